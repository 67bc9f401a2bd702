"""A vision transformer with heads that read its tokens in many ways, and the row with which each reads them."""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.trace.record.record import Record, Want, record
from captum_vit.trace.run.describe import transformer_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.models import redrawn

FOLLOW_EVIDENCE = ["GenAtt", "VTranM", "TransAttr", "PredicAtt", "GradSAM", "PLUS(GenAtt)"]
FOLLOW_ROWS = [*FOLLOW_EVIDENCE, "AttnGrad", "AttCAM", "PartialLRP"]
N, SIDE, WIDTH, CLASSES = 17, 4, 48, 5
PICTURES = (2, 3, 64, 64)


class Headed(nn.Module):
    """A vision transformer without a head, and a head over its tokens; gates stand where the head reads them."""

    def __init__(self, head: nn.Module, normalised: bool = True) -> None:
        super().__init__()
        self.vit = timm.create_model(
            "vit_tiny_patch16_224", img_size=64, embed_dim=WIDTH, num_heads=3, depth=2, num_classes=0
        )
        if not normalised:
            self.vit.norm = nn.Identity()
        self.head, self.gates = head, torch.ones(N, 1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.vit.forward_features(x) * self.gates)


class Linear(nn.Linear):
    """Of the tokens pooled by a function."""

    def __init__(self, pool: Callable[[Tensor], Tensor], width: int = WIDTH) -> None:
        super().__init__(width, CLASSES)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pool(x))


class Attentive(nn.Module):
    """Attention pooling whose keys are normalised, its values not."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Parameter(torch.randn(1, WIDTH)), nn.Linear(WIDTH, WIDTH)
        self.k_norm, self.v, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        a = (self.q @ self.k_norm(self.k(x)).mT).div(WIDTH**0.5).softmax(-1)
        return self.out((a @ self.v(x)).squeeze(1))


class Boxes(Linear):
    """One output for each side of the picture: the mean of a class's logit over its patches."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)[:, 1:, 0].unflatten(1, (SIDE, SIDE))
        return torch.stack([logits[:, :, :2].mean((1, 2)), logits[:, :, 2:].mean((1, 2))], 1)


def cls_and_mean(x: Tensor) -> Tensor:
    return torch.cat([x[:, 0], x[:, 1:].mean(1)], -1)


HEADS: dict[str, Callable[[], nn.Module]] = {
    "mean of all": lambda: Linear(lambda x: x.mean(1)),
    "mean of patches": lambda: Linear(lambda x: x[:, 1:].mean(1)),
    "norm behind the mean": lambda: Linear(lambda x: F.layer_norm(x[:, 1:].mean(1), (WIDTH,))),
    "CLS beside the mean": lambda: Linear(cls_and_mean, 2 * WIDTH),
    "attention, keys normalised": Attentive,
    "patches in another order": lambda: Linear(lambda x: (x[:, [*range(9, N), *range(1, 9)]] * weights(x)).sum(1)),
    "largest of each channel": lambda: Linear(lambda x: x[:, 1:].amax(1)),
    "unit length, then mean": lambda: Linear(lambda x: F.normalize(x.flip(1), dim=-1).mean(1)),
}


def weights(x: Tensor) -> Tensor:
    """Unequal ones."""
    return torch.linspace(0.1, 2, N - 1, dtype=x.dtype).unsqueeze(1)


def made(head: nn.Module, normalised: bool = True) -> Headed:
    return redrawn(Headed(head, normalised)).double()


def pictures(n: int = 2) -> Tensor:
    return torch.randn(n, *PICTURES[1:], dtype=torch.float64)


def seen(model: nn.Module, x: Tensor, row: str, target: int | list[int] | None = 2) -> Record:
    with undisturbed(model):
        return record(Pass(model, (x,), (), transformer_of(model, (x,), ())), target, Want(row=row))


def by_gates(model: Headed, x: Tensor, target: int, h: float = 1e-4) -> Tensor:  # shape: (B, N)
    """What the target gains with each gate, by central differences."""
    gains = []
    with torch.no_grad():
        for i in range(N):
            scores = []
            for step in (h, -h):
                model.gates[i] = 1 + step
                scores.append(model(x)[:, target])
            model.gates[i] = 1
            gains.append((scores[0] - scores[1]) / (2 * h))
    return torch.stack(gains, 1)


def shown(x: Tensor) -> Tensor:  # shape: (B, N, 1)
    kept = torch.ones(len(x), N, 1, dtype=x.dtype)
    kept[1:, 11:] = 0
    return kept
