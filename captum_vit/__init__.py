"""Attribution methods for transformers, as Captum attributions.

>>> import captum_vit as cv
>>> cv.LayerCDAM(model).attribute(images, target=281)
"""

from captum_vit import studies
from captum_vit.attr import *  # every method; the list is there
from captum_vit.attr import __all__ as _methods
from captum_vit.doctor import Report, doctor
from captum_vit.errors import (
    CaptumVitError,
    InputError,
    LayerError,
    MethodError,
    MissingLibraryError,
    ModelStateError,
    OptionError,
    PaddingWarning,
    PartialMapWarning,
    TargetError,
    TraceError,
    UnrepeatableWarning,
    UnsupportedModelError,
    ZeroMapWarning,
)
from captum_vit.explain import Explanation, explain
from captum_vit.models import Spec, register_spec
from captum_vit.models.transformer import Transformer
from captum_vit.targets import (
    Answer,
    AnswerSpan,
    BeforeActivation,
    Box,
    ConceptSimilarity,
    Direction,
    Frame,
    ImageSimilarity,
    Margin,
    MultiLabel,
    Pixel,
    Query,
    Region,
    Scalar,
    SentenceSimilarity,
    TextSimilarity,
    TwoClasses,
    from_layer,
    logits_of,
)
from captum_vit.tokens import TokenLayout
from captum_vit.trace.layout.image_tokens import ImageTokens, image_tokens
from captum_vit.trace.modes.by_rows import attention_memory
from captum_vit.trace.record.decomposition import Decomposition, Shares
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.run.describe import spec_of

__version__ = "0.1.0"

__all__ = [
    *_methods,
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
    "SentenceSimilarity",
    "Answer",
    "AnswerSpan",
    "Margin",
    "Direction",
    "Scalar",
    "MultiLabel",
    "TwoClasses",
    "Pixel",
    "Region",
    "Query",
    "Box",
    "Frame",
    "BeforeActivation",
    "logits_of",
    "from_layer",
    # of words and pictures
    "Decomposition",
    "Shares",
    "ImageTokens",
    "image_tokens",
    # models
    "Spec",
    "register_spec",
    "spec_of",
    "Transformer",
    # what a pass may take
    "attention_memory",
    # for methods of one's own
    "Record",
    "Want",
    "TokenLayout",
    # errors
    "CaptumVitError",
    "InputError",
    "LayerError",
    "MethodError",
    "MissingLibraryError",
    "ModelStateError",
    "OptionError",
    "PaddingWarning",
    "PartialMapWarning",
    "TargetError",
    "TraceError",
    "UnsupportedModelError",
    "UnrepeatableWarning",
    "ZeroMapWarning",
]
