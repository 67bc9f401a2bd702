"""A method of one's own: what it leaves out, or asks for in vain, is refused in words that help."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.trace.record.probe import KINDS
from captum_vit.trace.record.record import Record, Want
from tests.models import CASES

MODEL, IMAGES = CASES["timm ViT"]().forward_func, CASES["timm ViT"]().inputs


class Mine(cv.TokenAttribution):
    """Attention in the last block, whatever the layer."""

    def want(self, transformer: cv.Transformer) -> Want:
        return Want(seen=["probs"], row="outputs")

    def relevance(self, found: Record) -> Tensor:
        return found.attended(found.layers[-1]).mean(1)


class MineAtALayer(Mine):
    """The same in the block that `layer` names."""

    reads_layer = True

    def relevance(self, found: Record) -> Tensor:
        assert isinstance(self.layer, int)
        return found.attended(self.layer).mean(1)


@pytest.mark.parametrize("layer", [0, -1, "nonsense", "blocks.0", MODEL.blocks[0]], ids=str)
def test_a_layer_that_is_not_read_is_refused(layer: nn.Module | str | int):
    with pytest.raises(cv.LayerError, match="reads_layer = True") as refused:
        Mine(MODEL, layer)
    assert isinstance(refused.value, ValueError)


def test_a_layer_that_is_read_is_not():
    first, last = (MineAtALayer(MODEL, layer).attribute(IMAGES) for layer in (0, 2))
    assert not torch.equal(first, last)
    assert torch.equal(last, Mine(MODEL).attribute(IMAGES))


@pytest.mark.parametrize("name", cv.METHODS)
def test_every_method_reads_its_layer_or_takes_none(name: str):
    method = cv.METHODS[name](MODEL)
    assert isinstance(method, cv.TokenAttribution)
    assert method.reads_layer or method.layer is None


WRONG = [
    {"seen": ["prob"]}, {"grads": ["value"]}, {"seen": "probs"}, {"seen": [3]}, {"score": "probability"},
    {"rule": "lrp"}, {"seen": ["probs"], "grads": [None]},
]  # fmt: skip


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_a_wrong_want_is_refused_when_it_is_made(options):
    with pytest.raises(cv.OptionError) as refused:
        Want(**options)
    known = {"score": "logit", "rule": "frozen"}.get(next(iter(options)), "probs")
    assert known in refused.value.wanted + refused.value.hint


def test_every_kind_can_be_wanted():
    assert Want(seen=KINDS, grads=KINDS).kinds == set(KINDS)


class Nothing(cv.TokenAttribution):
    """Neither part is written yet."""


class WantsOnly(Mine):
    """It says what it wants, and nothing of it."""

    relevance = cv.TokenAttribution.relevance


@pytest.mark.parametrize(("kind", "part"), [(Nothing, "want"), (WantsOnly, "relevance")])
def test_a_part_that_is_not_written(kind: type[cv.TokenAttribution], part: str):
    with pytest.raises(cv.MethodError, match=f"def {part}") as refused:
        kind(MODEL).attribute(IMAGES)
    assert isinstance(refused.value, NotImplementedError)
    written = {}
    exec(refused.value.hint.removesuffix("."), {"captum_vit": cv, "Want": Want}, written)
    whole = type("Whole", (Mine,), written)
    assert torch.equal(whole(MODEL).attribute(IMAGES), Mine(MODEL).attribute(IMAGES))


OTHER_SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "B H N N": lambda attention: attention,
    "B H N": lambda attention: attention[:, :, 0],
    "B patches": lambda attention: attention.mean((1, 2))[:, 1:],
}


@pytest.mark.parametrize("of", OTHER_SHAPES.values(), ids=list(OTHER_SHAPES))
def test_a_map_of_another_shape_is_refused_by_name(of: Callable[[Tensor], Tensor]):
    class Other(Mine):
        def relevance(self, found: Record) -> Tensor:
            return of(found.seen["probs"][0])

    with pytest.raises(cv.MethodError, match="Other, with shape"):
        Other(MODEL).attribute(IMAGES)
