"""A pass shows the blocks of models whose names tell nothing, and what is refused in others."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.description import measured
from captum_vit.models.transformer import Transformer
from captum_vit.sites.site import Place, Site
from captum_vit.trace.run.state import undisturbed
from tests.captum_vit.description.unnamed import REFUSED, N, known
from tests.models import redrawn

KNOWN = known()
X = torch.randn(3, N, 7, generator=torch.Generator().manual_seed(0))


def described(model: nn.Module, x: Tensor = X) -> Transformer:
    with undisturbed(model):
        return measured(model, (x,), ())


def seen(model: nn.Module, place: Place, visit: Callable[[Tensor], Tensor | None]) -> Tensor:
    """The scores of a pass with a visitor."""
    handle = place.hook(visit)
    try:
        return model(X)
    finally:
        handle.remove()


def tensor_at(model: nn.Module, place: Place) -> Tensor:
    found: list[Tensor] = []
    seen(model, place, lambda x: found.append(x.detach().clone()))
    return found[0]


def leaf_map(model: nn.Module, place: Place, leaf: bool) -> Tensor:  # shape: (B, N)
    """Gradient x token of class 1; a leaf in the place of the tokens has the gradient of what reads it there alone."""
    found: list[Tensor] = []

    def visit(x: Tensor) -> Tensor | None:
        found.append(x.detach().requires_grad_() if leaf else x)
        return found[-1] if leaf else None

    scores = seen(model, place, visit)
    (gradient,) = torch.autograd.grad(scores[:, 1].sum(), found[0])
    return (gradient * found[0]).sum(-1).detach()


@pytest.mark.parametrize("name", KNOWN)
def test_the_reading_point_is_the_one_that_a_reader_names(name: str):
    model, module, nth = KNOWN[name]()
    of = 2 if name == "shared layers" else 1
    block = described(model).blocks[1]
    assert block.attn_in is not None
    wanted = leaf_map(model, Site(module, "input", nth, of), leaf=name == "no norms")
    found = leaf_map(model, block.attn_in, leaf=True)
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("place", ["entrance", "out"])
def test_another_tensor_at_a_place_reaches_all_who_read_it(name: str, place: str):
    """A leaf there has the gradient that the tensor itself has in an ordinary pass."""
    model = KNOWN[name]().model
    for block in described(model).blocks:
        where = getattr(block, place)
        wanted, found = (leaf_map(model, where, leaf) for leaf in (False, True))
        assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()


@pytest.mark.parametrize("name", KNOWN)
def test_what_leaves_a_block_enters_the_next(name: str):
    model = KNOWN[name]().model
    blocks = described(model).blocks
    for before, after in pairwise(blocks):
        left, entered = tensor_at(model, before.out), tensor_at(model, after.entrance)
        assert torch.equal(left, entered) and left.shape == (3, N, 24)


def test_parts():
    post = described(KNOWN["post-norm, written out"]().model)
    assert post.post_norm and all(b.first_norm is None and b.last_norm is None for b in post.blocks)
    assert "no module" in post.blocks[0].missing["first_norm"]
    parallel = described(KNOWN["parallel"]().model)
    assert all(block.mid is None for block in parallel.blocks) and "side by side" in parallel.blocks[0].missing["mid"]
    chunked = KNOWN["chunks"]().model
    assert [block.module for block in described(chunked).blocks] == [chunk.m[1] for chunk in chunked.m]
    model = KNOWN["torch pre-norm"]().model
    for block, layer in zip(described(model).blocks, model.m.layers, strict=True):
        assert block.module is layer and block.out_proj is layer.self_attn.out_proj and block.mid_norm is layer.norm2
        assert block.entrance == Site(layer, "input") and block.out == Site(layer, "output")
    model = KNOWN["torch post-norm"]().model
    for block, layer in zip(described(model).blocks, model.m.layers, strict=True):
        assert block.first_norm is layer.norm1 and block.last_norm is layer.norm2 and block.mid_norm is None


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("batch", [1, 3])
def test_refused_with_what_was_found(name: str, batch: int):
    build, words = REFUSED[name]
    torch.manual_seed(0)
    model = redrawn(build())
    with pytest.raises(cv.UnsupportedModelError) as caught:
        described(model, X[:batch])
    assert words in caught.value.got


def test_a_model_that_takes_no_batch_of_one_is_described_by_all():
    model = KNOWN["torch pre-norm"]().model

    def refuse(module: nn.Module, args: tuple[Tensor]) -> None:
        if len(args[0]) == 1:
            raise ValueError("at least two")

    model.register_forward_pre_hook(refuse)
    assert len(described(model).blocks) == 3
