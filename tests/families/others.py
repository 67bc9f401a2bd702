"""torchvision, open_clip, and PyTorch's own ``TransformerEncoder``, in both orders of its norms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import open_clip.model
import torch
import torchvision
from torch import Tensor, nn

import captum_vit as cv
from tests.families.own import Zed
from tests.families.shrink import CLASSES, HEADS, SIDE, WIDTH
from tests.families.weights import redrawn
from tests.models import Case, image, open_clip_model


class Encoder(Zed):
    """Patches through PyTorch's encoder."""

    def __init__(self, norm_first: bool, batch_first: bool = True) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=batch_first, norm_first=norm_first)
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.qq.append(encoder if batch_first else Turned(encoder))


class Turned(nn.Module):
    """The sequence before the batch, as PyTorch's encoder has it by default."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, t: Tensor) -> Tensor:
        return self.encoder(t.transpose(0, 1)).transpose(0, 1)


def swin(name: str) -> nn.Module:
    return getattr(torchvision.models, name)(num_classes=CLASSES)


def similarity(of: type[nn.Module]) -> nn.Module:
    return cv.TextSimilarity(open_clip_model(of), torch.randn(CLASSES, 16))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "torchvision ViT": lambda: torchvision.models.VisionTransformer(SIDE, 8, 2, HEADS, WIDTH, 64, num_classes=CLASSES),
    "torchvision swin_t": partial(swin, "swin_t"),
    "torchvision maxvit_t": partial(swin, "maxvit_t"),
    "torchvision resnet18": partial(swin, "resnet18"),
    "open_clip CLIP": partial(similarity, open_clip.model.CLIP),
    "open_clip CustomTextCLIP": partial(similarity, open_clip.model.CustomTextCLIP),
    "TransformerEncoder, pre-norm": partial(Encoder, True),
    "TransformerEncoder, post-norm": partial(Encoder, False),
    "TransformerEncoder, sequence first": partial(Encoder, True, False),
}
SIDES = {"torchvision maxvit_t": 224, "torchvision swin_t": 64, "torchvision resnet18": 64}


def names() -> list[str]:
    return list(MODELS)


def build(name: str) -> Case:
    model = MODELS[name]()
    if not name.startswith("open_clip"):  # drawn where it is built
        model = redrawn(model)
    side = SIDES.get(name, SIDE)
    return Case(model, image(side, side))
