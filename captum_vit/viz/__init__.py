"""Pictures of explanations; the only folder that imports matplotlib.

Pictures    overlay, panels, gallery, blend, Mark
Others      film for a video, spectrogram and wave for a sound, slices for a volume
Text        text, TokenText
Both        Explanation, AnswerExplanation
Colours     scale_of, Scale, SIGNED, POSITIVE
Studies     in viz.studies and viz.heads; the results of captum_vit.studies call them by ``.plot()``

Figures are made without pyplot: no window opens, and no global state changes.
"""

from captum_vit.viz.answer import AnswerExplanation
from captum_vit.viz.blending import blend
from captum_vit.viz.colours import POSITIVE, SIGNED, Scale, scale_of
from captum_vit.viz.explanation import Explanation
from captum_vit.viz.film import film
from captum_vit.viz.gallery import gallery
from captum_vit.viz.marks import Mark
from captum_vit.viz.pictures import overlay, panels
from captum_vit.viz.sounds import spectrogram, wave
from captum_vit.viz.volumes import slices
from captum_vit.viz.words import TokenText, text

__all__ = [
    "overlay",
    "panels",
    "gallery",
    "film",
    "spectrogram",
    "wave",
    "slices",
    "Mark",
    "blend",
    "text",
    "TokenText",
    "Explanation",
    "AnswerExplanation",
    "scale_of",
    "Scale",
    "SIGNED",
    "POSITIVE",
]
