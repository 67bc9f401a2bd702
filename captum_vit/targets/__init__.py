"""What is explained, as a forward function: logits, a concept, a text, a margin, a pixel, a box.

Each is a small module that returns (batch, n_targets), so every method explains it with ``target=k``,
Captum's own included; and each holds the model, so the transformer inside is found.
"""

from captum_vit.targets.answer import Answer
from captum_vit.targets.before_activation import BeforeActivation
from captum_vit.targets.classifiers import MultiLabel, TwoClasses
from captum_vit.targets.concepts import ConceptSimilarity
from captum_vit.targets.dense import Pixel, Region
from captum_vit.targets.image_text import ImageSimilarity, TextSimilarity
from captum_vit.targets.rows import Box, Frame, Query
from captum_vit.targets.scores import (
    AnswerSpan,
    Direction,
    FromLayer,
    Logits,
    Margin,
    Scalar,
    TargetModule,
    from_layer,
    logits_of,
)
from captum_vit.targets.sentences import SentenceSimilarity

__all__ = [
    "Answer",
    "AnswerSpan",
    "BeforeActivation",
    "Box",
    "ConceptSimilarity",
    "Direction",
    "Frame",
    "FromLayer",
    "ImageSimilarity",
    "Logits",
    "Margin",
    "MultiLabel",
    "Pixel",
    "Query",
    "Region",
    "Scalar",
    "SentenceSimilarity",
    "TargetModule",
    "TextSimilarity",
    "TwoClasses",
    "from_layer",
    "logits_of",
]
