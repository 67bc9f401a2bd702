"""What happens to a prediction when parts of the input go away: which first, how, and what is left of it."""

from .curve import FRACTIONS, Curve, curves, target_score
from .ranks import ORDERS, rank, ranking_map, ranking_words
from .remove import Black, Blur, Fill, Mean, Remover, gaussian_blur
from .remove_tokens import DropTokens, MaskKeys, ReplaceTokens, removable_words

__all__ = [
    "Curve", "curves", "target_score", "FRACTIONS",
    "rank", "ranking_map", "ranking_words", "ORDERS",
    "Remover", "Blur", "Fill", "Mean", "Black", "gaussian_blur",
    "DropTokens", "MaskKeys", "ReplaceTokens", "removable_words",
]  # fmt: skip
