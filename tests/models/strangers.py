"""What is not supported, and which methods refuse what mixes the heads."""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from torch import nn

from tests.models.table import CLASSES

OF_TOKENS = {  # need no attention that can be followed
    "LayerCDAM", "LayerSmoothCDAM", "LayerIntegratedCDAM", "DecompX", "PLUS(DecompX)", "SkipPLUS(DecompX)",
    "PLUS(InputXGradient)", "CAT", "TokenGradCAM", "TokenGradCAMPlusPlus", "TokenXGradCAM", "TokenHiResCAM",
    "TokenGradCAMElementWise", "TokenLayerCAM", "Saliency", "InputXGradient", "IntegratedGradients", "SmoothGrad",
    "DAVE", "VanillaGrad", "ConservativeLRP", "RandomAttribution", "FullGrad", "FullGradPlus", "LRP",
}  # fmt: skip
READ_HEADS = {"VTranM", "AttIN", "GlobEnc", "ALTI", "PLUS(GlobEnc)", "PLUS(ALTI)"}  # refuse what mixes the heads


def used(model: nn.Module) -> nn.Module:
    """A model that keeps something of its first pass, such as a table of distances."""
    model.eval()(torch.zeros(1, 3, 32, 32))
    return model


STRANGERS: dict[str, Callable[[], nn.Module]] = {
    "Swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=24,
        depths=(2, 2),
        num_heads=(2, 2),
        num_classes=CLASSES,
    ),
    "ConvNeXt": lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), num_classes=CLASSES),
    "ConViT": lambda: used(timm.create_model("convit_tiny", img_size=32, embed_dim=24, depth=3, num_heads=3)),
}
