"""LeGrad: identities, attention by rows, and heads that cannot read each block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import in_float64
from tests.references.models import DEPTH, reference_images, reference_vit

TARGETS = [1, 4]
READOUTS = ["head", "mean"]


@pytest.fixture
def model() -> nn.Module:
    return reference_vit(layer_scale=True)


def explained(model: nn.Module, images: Tensor | None = None, **options: object) -> Tensor:
    method = cv.LeGrad(model, **options, output="tokens")
    return method.attribute(reference_images() if images is None else images, target=TARGETS)


@pytest.mark.parametrize("readout", READOUTS)
def test_a_blocks_map_is_that_of_the_model_cut_off_behind_it(model: nn.Module, readout: str) -> None:
    maps = [explained(model, layers=[layer], readout=readout) for layer in range(DEPTH)]
    assert_close(explained(model, readout=readout), sum(maps), "float64")
    for layer in reversed(range(DEPTH)):
        model.blocks = model.blocks[: layer + 1]
        assert_close(explained(model, layers=[-1], readout=readout), maps[layer], "float64")


def test_in_the_last_block_it_is_the_positive_gradient_of_the_score(model: nn.Module) -> None:
    """g+ = (|g| + g) / 2, and of N rows that of CLS alone has a gradient."""
    sizes, signed = (
        cv.AttnGrad(model, heads=heads, output="tokens").attribute(reference_images(), target=TARGETS)
        for heads in ("abs", "mean")
    )
    assert_close(17 * explained(model, layers=[-1]), (sizes + signed) / 2, "float64")


def test_of_a_pooled_head_all_rows_count() -> None:
    """Mean pooling: one head's gradient at the last block's attention, by autograd, over all its rows."""
    case = in_float64("timm ViT mean, no CLS")
    block, seen = case.forward_func.blocks[-1], []
    kernel = nn.functional.scaled_dot_product_attention

    def written_out(q: Tensor, k: Tensor, v: Tensor, **kwargs: object) -> Tensor:
        seen.append(((q * q.shape[-1] ** -0.5) @ k.mT).softmax(-1))
        return seen[-1] @ v

    with pytest.MonkeyPatch.context() as patch:
        handle = block.register_forward_pre_hook(
            lambda *_: patch.setattr(nn.functional, "scaled_dot_product_attention", written_out)
        )
        score = case.forward_func(case.inputs)[:, 1].sum()
        handle.remove()
    assert nn.functional.scaled_dot_product_attention is kernel
    (gradient,) = torch.autograd.grad(score, seen)
    found = cv.LeGrad(case.forward_func, layers=[-1], output="tokens").attribute(case.inputs, target=1)
    assert_close(found, gradient.clamp(min=0).mean((1, 2)), "float64")


@pytest.mark.parametrize("readout", READOUTS)
def test_rows_at_a_time_give_the_same(model: nn.Module, readout: str) -> None:
    whole = explained(model, readout=readout)
    with cv.attention_memory(0.05):
        assert_close(explained(model, readout=readout), whole, "float64")


def test_constant_weights_change_nothing(model: nn.Module) -> None:
    wanted = explained(model)
    assert torch.equal(explained(model.requires_grad_(False)), wanted)


class ReadsTwoBlocks(nn.Module):
    """The score of the last block, and half of what the head makes of the first."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, x: Tensor) -> Tensor:
        first: list[Tensor] = []
        handle = self.vit.blocks[0].register_forward_hook(lambda module, args, out: first.append(out))
        last = self.vit.forward_features(x)
        handle.remove()
        return self.vit.forward_head(last) + self.vit.head(self.vit.norm(first[0])[:, 0]) / 2


@pytest.mark.filterwarnings("ignore::captum_vit.PartialMapWarning")
def test_a_head_that_reads_other_blocks_is_refused(model: nn.Module) -> None:
    with pytest.raises(cv.UnsupportedModelError, match="last block alone"):
        explained(ReadsTwoBlocks(model).eval())
