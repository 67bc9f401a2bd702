"""What grows with the number of tokens, told by the tensors that are made: not timed, so the same on every machine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import captum_vit as cv
from tests.models import redrawn

WIDTH, HEADS, DEPTH, PATCH, BATCH, CLASSES = 12, 3, 2, 4, 3, 5
SIZES = (32, 64)  # 65 and 257 tokens: more than any width in the model, so that a dimension tells what it is
EXPLICIT = ("DecompX", "PLUS(DecompX)", "SkipPLUS(DecompX)", "VTranM", "GenAtt", "PLUS(GenAtt)",
            "GradSAM", "AttentionRollout")  # fmt: skip
CDAM = ("LayerCDAM", "LayerSmoothCDAM", "LayerIntegratedCDAM")
ROWS = (*CDAM, "PredictionMap", "PredicAtt", "CAT", "FullGradPlus")
GENERAL = {"grad_kwargs": {"allow_unused": True}}  # the route of any model
FEW: dict[str, dict[str, Any]] = {"LayerSmoothCDAM": {"n_samples": 4}, "LayerIntegratedCDAM": {"n_steps": 4}}

Explain = Callable[[Tensor], object]


class Made(TorchDispatchMode):
    """The largest tensor, the smallest dimension of the largest product, and the rows that meet each weight."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.cube = 0
        self.rows: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.largest = max([self.largest, *(x.numel() for x in tree_leaves(found) if isinstance(x, Tensor))])
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            left, right = args[-2:]
            self.cube = max(self.cube, min(*left.shape[-2:], right.shape[-1]))
            self.rows[right.untyped_storage().data_ptr()] += left.shape[-2]
        return found


def built(size: int) -> VisionTransformer:
    torch.manual_seed(0)
    return redrawn(
        VisionTransformer(
            img_size=size, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=CLASSES
        )
    )


def made(model: VisionTransformer, explain: Explain) -> Made:
    x = torch.randn(BATCH, 3, *model.patch_embed.img_size)
    cv.spec_of(model, x)  # the first pass finds the blocks
    with Made() as seen:
        explain(x)
    return seen


def by_name(name: str, model: nn.Module, **options: Any) -> Explain:
    return lambda x: cv.METHODS[name](model).attribute(x, target=1, **FEW.get(name, {}), **options)


def test_the_watch_sees_what_it_is_to_see():
    square = torch.ones(65, 65)
    with Made() as seen:
        square @ square
        torch.einsum("ij,jk,kl->ijl", square, square, square)
    assert seen.cube == 65 and seen.largest == 65**3


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", EXPLICIT)
def test_attention_maps_are_the_largest_tensors_and_are_never_multiplied_with_each_other(name: str, size: int):
    model = built(size)
    n = 1 + (size // PATCH) ** 2
    with cv.attention_memory(math.inf):  # written out whole
        seen = made(model, by_name(name, model))
    assert seen.largest == BATCH * HEADS * n**2
    by_rows = made(model, by_name(name, model))
    assert by_rows.largest <= seen.largest
    assert max(seen.cube, by_rows.cube) < n


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ROWS)
def test_fused_attention_stays_fused(name: str, size: int):
    model = built(size)
    n = 1 + (size // PATCH) ** 2
    seen = made(model, by_name(name, model))
    images, hidden = BATCH * 3 * size**2, BATCH * n * 4 * WIDTH
    draws = FEW.get(name, {}).get("n_samples", 1) * BATCH * n * WIDTH
    assert seen.largest <= max(images, hidden, draws)
    assert seen.cube < n


TAILS: dict[str, Callable[[nn.Module], Explain]] = {
    **{name: lambda model, name=name: by_name(name, model) for name in CDAM},
    "LayerCDAM.all_classes": lambda model: cv.LayerCDAM(model).all_classes,
}


@pytest.mark.parametrize("name", TAILS)
def test_the_last_block_runs_for_one_sample_and_for_cls_rows(name: str):
    model = built(SIZES[0])
    rows = rows_through_the_last_block(model, TAILS[name](model))
    n = 1 + (SIZES[0] // PATCH) ** 2
    assert n < rows < 2 * n < BATCH * n


@pytest.mark.parametrize("name", CDAM)
def test_the_general_route_runs_it_for_all(name: str):
    model = built(SIZES[0])
    n = 1 + (SIZES[0] // PATCH) ** 2
    assert rows_through_the_last_block(model, by_name(name, model, **GENERAL)) >= BATCH * n


def rows_through_the_last_block(model: VisionTransformer, explain: Explain) -> int:
    """How many rows meet the weight of its feed-forward layer, forward and backward."""
    return made(model, explain).rows[model.blocks[-1].mlp.fc1.weight.untyped_storage().data_ptr()]
