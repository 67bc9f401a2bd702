"""What happens to a prediction when parts of the input go away: which first, how, and what is left of it."""

from .curve import FRACTIONS, Curve, curves, target_score
from .order import ORDERS, rank, ranking_map
from .remove import Blur, Fill, Remover, gaussian_blur

__all__ = [
    "Curve", "curves", "target_score", "FRACTIONS",
    "rank", "ranking_map", "ORDERS",
    "Remover", "Blur", "Fill", "gaussian_blur",
]  # fmt: skip
