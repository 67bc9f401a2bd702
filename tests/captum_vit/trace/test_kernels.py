"""Models with kernels of their own: masks that are no tensors, and passes without a derivative."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.sites.nests import holds_tensor
from captum_vit.trace.removal.without import Without
from captum_vit.trace.run.state import undisturbed

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 5}


@dataclass
class Shade:
    """What a model may hand its blocks in an object: something for each sample."""

    strength: Tensor  # shape: (B, 1, 1)


class ShadedBlock(Block):
    def forward(self, x: Tensor, shade: Shade) -> Tensor:
        if len(shade.strength) != len(x):
            raise ValueError(f"{len(shade.strength)} shades for {len(x)} samples")
        return super().forward(x) * shade.strength


class ShadedViT(VisionTransformer):
    def forward_features(self, x: Tensor, **kwargs: object) -> Tensor:
        shade = Shade(1 + x.mean((1, 2, 3)).abs()[:, None, None])
        tokens = self._pos_embed(self.patch_embed(x))
        for block in self.blocks:
            tokens = block(tokens, shade)
        return self.norm(tokens)


class NoDerivative(nn.Module):
    """As flexible attention on a CPU: it runs, but not where a gradient is asked for."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise NotImplementedError("this kernel has no derivative")
        return self.inner(x)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, dtype=torch.float64)


def test_a_block_with_a_mask_in_an_object_runs_for_the_whole_batch(images: Tensor) -> None:
    model = ShadedViT(**TINY, block_fn=ShadedBlock).eval().double()
    maps = cv.LayerCDAM(model).attribute(images, target=1)
    general = cv.LayerCDAM(model).attribute(images, target=1, grad_kwargs={"allow_unused": True})
    assert torch.allclose(maps, general, rtol=1e-10, atol=0)
    each = torch.cat([cv.LayerCDAM(model).attribute(image[None], target=1) for image in images])
    assert torch.allclose(maps, each, rtol=1e-10, atol=0)


def test_tokens_are_hidden_beside_a_mask_that_cannot_be_thinned(images: Tensor) -> None:
    model = ShadedViT(**TINY, block_fn=ShadedBlock).eval().double()
    everyone, gone = torch.arange(3), torch.zeros(3, 16, dtype=torch.bool).index_fill(1, torch.tensor([2, 3]), True)
    with undisturbed(model):
        found = Without(model, (images,), ())
        assert found(everyone, gone).shape == (3, 5)
        assert found.way == "mask"
        with pytest.raises(cv.UnsupportedModelError, match="Shade"):
            Without(model, (images,), (), "drop")(everyone, gone)


@pytest.mark.parametrize("name", ["LayerCDAM", "LayerSmoothCDAM", "GenAtt", "CAT", "Saliency", "PLUS(InputXGradient)"])
def test_a_kernel_without_a_derivative_is_named(name: str, images: Tensor) -> None:
    model = VisionTransformer(**TINY).eval().double()
    model.blocks[-1].mlp = NoDerivative(model.blocks[-1].mlp).eval()
    with pytest.raises(cv.UnsupportedModelError, match="has no derivative"):
        cv.METHODS[name](model).attribute(images, target=1)
    assert cv.PredictionMap(model).attribute(images, target=1).shape == (3, 1, 4, 4)


def test_tensors_are_found_in_objects_too() -> None:
    shade = Shade(torch.ones(2, 1, 1))
    assert holds_tensor((None, {"mask": shade})) and holds_tensor([1, (torch.ones(1),)])
    assert not holds_tensor((None, 1, "sdpa", {"eps": 1e-6}, object()))
