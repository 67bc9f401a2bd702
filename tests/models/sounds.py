"""The demo's AST: trained, and clips that it knows. Its map has an axis of time and one of pitch."""

from __future__ import annotations

from captum_vit.demo import demo_ast, tone_clips
from tests.models.table import TRAINED, Case, case

AST = "tones, AST"


@case(AST, TRAINED)
def ast() -> Case:
    clips = tone_clips(3, 2)
    return Case(demo_ast(), clips.inputs, target=clips.kinds[:, 0].tolist())
