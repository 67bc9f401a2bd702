"""open_clip's: its picture side, against texts."""

from __future__ import annotations

import open_clip.model
import torch
from torch import nn

import captum_vit as cv
from tests.models.table import CLASSES, Case, case, image, redrawn


def open_clip_model(of: type[nn.Module] = open_clip.model.CLIP) -> nn.Module:
    visual = open_clip.model.CLIPVisionCfg(
        layers=3, width=24, head_width=8, patch_size=8, image_size=32, ls_init_value=0.1
    )
    text = open_clip.model.CLIPTextCfg(context_length=9, vocab_size=50, width=24, heads=3, layers=3, ls_init_value=0.1)
    return redrawn(of(16, visual, text, quick_gelu=True))


@case("open_clip")
def open_clip_texts() -> Case:
    return Case(cv.TextSimilarity(open_clip_model(), torch.randn(CLASSES, 16)), image())
