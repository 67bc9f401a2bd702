"""Models whose curves can be computed by hand, and two tiny real ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from quantus_metrics.cells import patches_of


class Additive(nn.Module):
    r"""f_c = Σ_i w_ci · (mean of patch i): each patch that is kept adds its weight. Counts what it sees."""

    def __init__(self, weights: Tensor, patch: int = 4):  # weights (classes, h, w)
        super().__init__()
        self.weights, self.patch = nn.Parameter(weights.clone()), patch
        self.passes, self.images = 0, 0
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes, self.images = self.passes + 1, self.images + len(inputs)
        patches = nn.functional.avg_pool2d(inputs.mean(1, keepdim=True), self.patch)  # (n, 1, h, w)
        return (patches * self.weights).sum((2, 3))

    def ones(self, n: int) -> np.ndarray:
        """Images on which every patch counts in full."""
        height, width = (self.patch * side for side in self.weights.shape[1:])
        return np.ones((n, 3, height, width), dtype=np.float32)


@pytest.fixture
def additive() -> Callable[..., Additive]:
    def made(weights: torch.Tensor, patch: int = 4) -> Additive:
        model = Additive(torch.as_tensor(weights, dtype=torch.float32), patch)
        assert patches_of(model, torch.as_tensor(model.ones(1))) is None  # one pass shows that it is no transformer
        model.passes = model.images = 0
        return model

    return made


def _stirred(model: nn.Module) -> nn.Module:
    """Random weights that are large enough for the patches to matter."""
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    return model.eval()


@pytest.fixture
def timm_vit() -> nn.Module:
    return tiny_vit()


def tiny_vit() -> nn.Module:
    torch.manual_seed(0)
    return _stirred(
        timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=24, num_classes=5)
    )


def _hf_vit(depth: int) -> nn.Module:
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=depth,
        num_attention_heads=2,
        num_labels=5,
    )
    return _stirred(ViTForImageClassification(config))


@pytest.fixture
def hf_vit() -> nn.Module:
    return _hf_vit(2)


@pytest.fixture
def hf_vit_of_three_blocks() -> nn.Module:
    """One that leaves no map zero: gradient x input cancels in the last layers of a model that reads its CLS token."""
    return _hf_vit(3)


@pytest.fixture
def data() -> dict[str, Any]:
    """Six images of noise, and a class for each."""
    x = np.random.default_rng(0).standard_normal((6, 3, 32, 32), dtype=np.float32)
    return {"x_batch": x, "y_batch": np.array([0, 1, 2, 3, 4, 0])}
