"""Looking into a model with the methods of the papers: numbers as tensors, each with a ``plot``.

Layers      per_layer           what the head makes of every layer: accuracy, confidence, entropy
Heads       head_agreement      which attention agrees with the prediction map, block by head
            most_similar_layers from which block the most similar attention comes
Start       cutoffs             SkipPLUS from every start layer, in one pass
            score_cutoffs       and how good each of them is
"""

from captum_vit.studies.heads import HeadAgreement, MostSimilarLayers, head_agreement, most_similar_layers
from captum_vit.studies.plus import Cutoffs, CutoffScores, cutoffs, score_cutoffs
from captum_vit.studies.prediction_map import PerLayer, Readings, per_layer

__all__ = [
    "per_layer",
    "PerLayer",
    "Readings",
    "head_agreement",
    "HeadAgreement",
    "most_similar_layers",
    "MostSimilarLayers",
    "cutoffs",
    "Cutoffs",
    "score_cutoffs",
    "CutoffScores",
]
