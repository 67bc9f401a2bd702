"""Explain vision transformers, BERT and CLIP, in Captum's words.

>>> import captum_vit as cv
>>> cv.LayerCDAM(model).attribute(images, target=281)
"""

from captum_vit import studies
from captum_vit.attr import (
    ALTI,
    CAT,
    METHODS,
    PLUS,
    AttentionRollout,
    AttIN,
    DecompX,
    FullGrad,
    FullGradPlus,
    GenAtt,
    GlobEnc,
    LayerCDAM,
    LayerIntegratedCDAM,
    LayerSmoothCDAM,
    PredicAtt,
    PredictionMap,
    RandomAttribution,
    RawAttention,
    SkipPLUS,
    TokenAblation,
    TokenAttribution,
    VTranM,
)
from captum_vit.doctor import Report, doctor
from captum_vit.errors import (
    CaptumVitError,
    InputError,
    LayerError,
    ModelStateError,
    OptionError,
    TargetError,
    TraceError,
    UnsupportedModelError,
    ZeroMapWarning,
)
from captum_vit.explain import Explanation, explain
from captum_vit.models import Spec, register_spec, spec_of
from captum_vit.targets import (
    AnswerSpan,
    ConceptSimilarity,
    Direction,
    ImageSimilarity,
    Margin,
    Scalar,
    TextSimilarity,
    from_layer,
    logits_of,
)
from captum_vit.tokens import TokenLayout

__version__ = "0.1.0"

__all__ = [
    # methods of the four papers
    "LayerCDAM",
    "LayerSmoothCDAM",
    "LayerIntegratedCDAM",
    "PredictionMap",
    "PredicAtt",
    "VTranM",
    "DecompX",
    "PLUS",
    "SkipPLUS",
    "CAT",
    "FullGrad",
    "FullGradPlus",
    "GenAtt",
    "RawAttention",
    "AttentionRollout",
    "AttIN",
    "GlobEnc",
    "ALTI",
    "TokenAblation",
    "RandomAttribution",
    "METHODS",
    "TokenAttribution",
    # for a person at a prompt
    "explain",
    "Explanation",
    "doctor",
    "Report",
    "studies",
    # targets: what is explained
    "ConceptSimilarity",
    "TextSimilarity",
    "ImageSimilarity",
    "AnswerSpan",
    "Margin",
    "Direction",
    "Scalar",
    "logits_of",
    "from_layer",
    # models
    "Spec",
    "register_spec",
    "spec_of",
    "TokenLayout",
    # errors
    "CaptumVitError",
    "InputError",
    "LayerError",
    "ModelStateError",
    "OptionError",
    "TargetError",
    "TraceError",
    "UnsupportedModelError",
    "ZeroMapWarning",
]
