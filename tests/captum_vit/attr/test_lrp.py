"""Relevance propagation: against loops, conserved in every family, and refused where it is not defined."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.trace.modes.redistribution import Added
from captum_vit.trace.modes.relevance import Relevance
from tests.captum_vit.models.families import MORE
from tests.contracts.pairs import cast
from tests.models import CASES, Case
from tests.references import lrp
from tests.references.models import reference_bert, reference_images, reference_sentences, reference_vit

TARGETS = [1, 4]
FLOAT64, FLOAT32 = 1e-9, 1e-5  # relevance is float64 inside float32 too: what rounds is what it starts from and gives
TOKENS: Any = {"output": "tokens"}

TWINS: dict[str, tuple[Callable, Callable]] = {
    "LRP": (lambda m: cv.LRP(m, **TOKENS), lrp.lrp),
    "LRP from block 2": (lambda m: cv.LRP(m, 2, **TOKENS), lambda m, x, c: lrp.lrp(m, x, c, start=2)),
    "PartialLRP": (lambda m: cv.PartialLRP(m, **TOKENS), lrp.partial_lrp),
    "PartialLRP at block 1": (
        lambda m: cv.PartialLRP(m, 1, **TOKENS), lambda m, x, c: lrp.partial_lrp(m, x, c, layer=1)
    ),
    "TransAttr": (lambda m: cv.TransAttr(m, **TOKENS), lrp.trans_attr),
    "TransAttr from block 1": (
        lambda m: cv.TransAttr(m, 1, **TOKENS), lambda m, x, c: lrp.trans_attr(m, x, c, start=1)
    ),
}  # fmt: skip


def reference_samples(kind: str) -> tuple[nn.Module, Tensor, tuple, list[Any]]:
    if kind == "vit":
        images = reference_images()
        return reference_vit(), images, (), list(images)
    ids, mask = reference_sentences()
    return reference_bert(), ids, (mask,), list(zip(ids, mask, strict=True))


def explained(method: cv.TokenAttribution, case: Case) -> Tensor:
    return method.attribute(case.inputs, case.target, case.additional_forward_args or None)


def double(name: str) -> Case:
    case = cast(CASES[name](), torch.float64)
    return case._replace(forward_func=copy.deepcopy(case.forward_func).double())


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


# -------------------------------------------------------------------------------------------------- against the twins


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "bert"])
@pytest.mark.parametrize("name", TWINS)
def test_maps_equal_their_twins(name: str, kind: str) -> None:
    """A float32 model has rounded weights, and it is theirs that its map is compared by: relevance feels them."""
    make, twin = TWINS[name]
    model, inputs, args, singles = reference_samples(kind)
    wanted = torch.stack([twin(model, x, c) for x, c in zip(singles, TARGETS, strict=True)])
    found = make(model).attribute(inputs, TARGETS, args or None)
    assert found.dtype == torch.float64
    assert off(found, wanted) < FLOAT64

    single = copy.deepcopy(model).float()
    inputs = inputs.float() if inputs.is_floating_point() else inputs
    found = make(single).attribute(inputs, TARGETS, args or None)
    of_the_rounded = make(copy.deepcopy(single).double()).attribute(inputs, TARGETS, args or None)
    assert found.dtype == torch.float32 and of_the_rounded.dtype == torch.float64
    assert off(found, of_the_rounded) < FLOAT32


def off(found: Tensor, wanted: Tensor) -> float:
    """The largest difference by the largest value, over each sample."""
    return ((found.double() - wanted).abs().amax(1) / wanted.abs().amax(1)).max().item()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_pixels_equal_their_twin(dtype: torch.dtype) -> None:
    model, images = reference_vit().to(dtype), reference_images().to(dtype)
    pairs = zip(images.double(), TARGETS, strict=True)
    wanted = torch.stack([lrp.lrp_of_pixels(copy.deepcopy(model).double(), x, c) for x, c in pairs]).unsqueeze(1)
    (found,) = cv.LRP(model).pixels((images,), TARGETS)
    assert found.dtype == dtype and found.shape == (2, 1, 32, 32)
    assert (found.double() - wanted).abs().max() < (FLOAT64 if dtype == torch.float64 else FLOAT32) * wanted.abs().max()


@pytest.mark.parametrize("name", ["timm BEiT", "timm DINOv3", "HF BEiT"])
def test_pixels_share_what_patches_have_where_no_table_of_positions_is_added(name: str) -> None:
    case = double(name)
    method = cv.LRP(case.forward_func)
    pixels = method.pixels(case.inputs, case.target)
    close(F.avg_pool2d(pixels, 8) * 64, explained(method, case))


def test_pixels_by_an_option_are_those_of_the_call() -> None:
    """For spec files; no sum over blocks, other output or start layer is made of them."""
    model, images = reference_vit(), reference_images()
    method = cv.LRP(model, explains="pixels")
    close(method.attribute(images, TARGETS), cv.LRP(model).pixels(images, TARGETS))
    for refused in (
        lambda: cv.PLUS(method).attribute(images, TARGETS),
        lambda: cv.LRP(model, 1, explains="pixels"),
        lambda: cv.LRP(model, explains="pixels", output="tokens"),
    ):
        with pytest.raises(cv.OptionError, match="explains"):
            refused()


def test_words_have_no_pixels() -> None:
    case = CASES["HF BERT"]()
    with pytest.raises(cv.OptionError, match="image"):
        cv.LRP(case.forward_func).pixels(case.inputs, case.target, case.additional_forward_args)


def test_pixels_of_half_precision_and_without_a_target_are_refused() -> None:
    with pytest.raises(cv.ModelStateError, match="float32"):
        cv.LRP(reference_vit().bfloat16()).pixels(reference_images(), TARGETS)
    with pytest.raises(cv.TargetError):
        cv.LRP(reference_vit()).pixels(reference_images())


# ---------------------------------------------------------------------------------------------------------- conserved

# Relevance is lost where nothing adds to a sum positively. In a layer of 24 inputs that is rare; it is seen in the
# products of 8 with a constant query, or with constant keys for positions.
LEAKS = {
    "timm SigLIP": 1e-2,
    "timm ViT attention pooling with CLS": 1e-2,
    "timm ViT norm after heads": 1e-3,
    "HF DeBERTa-v2": 1e-2,
    "HF DeBERTa-v3": 1e-2,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_relevance_is_conserved_from_block_to_block(name: str) -> None:
    """With biases, gated units, rotary positions, any pooling: one unit of relevance stays one."""
    case = double(name)
    depth = len(cv.spec_of(case.forward_func).blocks)
    for start in range(depth):
        total = explained(cv.LRP(case.forward_func, start, **TOKENS), case).sum(1)
        assert (total - 1).abs().max() < LEAKS.get(name, 1e-6), f"block {start}"


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_relevance_is_conserved_in_further_families(name: str) -> None:
    """Maxima, written-out norms, norms behind heads and branches, QuickGELU, packed gates, open_clip."""
    case = MORE[name]()
    case = cast(case._replace(forward_func=case.forward_func.double()), torch.float64)
    total = explained(cv.LRP(case.forward_func, **TOKENS), case._replace(target=list(case.target))).sum(1)
    assert (total - 1).abs().max() < LEAKS.get(name, 1e-6)


@pytest.mark.parametrize("target", ["margin", "direction"])
def test_targets_are_layers_too(target: str) -> None:
    model = reference_vit()
    made = cv.Margin(model, 1, 4) if target == "margin" else cv.Direction(model, torch.linspace(-1, 2, 5).double())
    total = cv.LRP(made, **TOKENS).attribute(reference_images(), target=0).sum(1)
    close(total, torch.ones_like(total))


def test_biases_get_nothing_but_shift_what_others_get() -> None:
    model = reference_vit()
    with torch.no_grad():
        before = cv.LRP(model).attribute(reference_images(), TARGETS)
        model.head.bias += 100
        close(cv.LRP(model).attribute(reference_images(), TARGETS), before)
        model.blocks[0].attn.proj.bias += 1
        assert not torch.allclose(cv.LRP(model).attribute(reference_images(), TARGETS), before, rtol=0.01)


def test_a_positive_scale_of_branches_may_stand_in_the_weights() -> None:
    scaled, folded = reference_vit(layer_scale=True), reference_vit()
    with torch.no_grad():
        weights = {n: p for n, p in scaled.named_parameters() if not n.endswith("gamma")}
        for name, p in folded.named_parameters():
            p.copy_(weights[name])
        for a, b in zip(scaled.blocks, folded.blocks, strict=True):
            for layer, scale in ((b.attn.proj, a.ls1.gamma.abs_()), (b.mlp.fc2, a.ls2.gamma.abs_())):
                layer.weight.mul_(scale[:, None])
                layer.bias.mul_(scale)
    for method in (cv.LRP, cv.PartialLRP, cv.TransAttr):
        found, wanted = (method(m).attribute(reference_images(), TARGETS) for m in (scaled, folded))
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


# ---------------------------------------------------------------------------------------------------------- the rules


def relevance_of(f: Callable[..., Tensor], *xs: Tensor, batch: int = 1) -> list[Tensor]:
    """What each x gets of one unit at every entry of f(x, ...)."""
    xs = tuple(x.detach().double().requires_grad_() for x in xs)
    with Relevance(batch):
        y = f(*xs)
    return list(torch.autograd.grad(y, xs, torch.ones_like(y), materialize_grads=True))


def numbers(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_a_linear_layer_shares_by_positive_products() -> None:
    weight = torch.tensor([[2.0, -1.0, 1.0]])
    (R,) = relevance_of(lambda x: F.linear(x, weight, torch.tensor([5.0])), numbers(1, -3, -4))
    close(R, numbers(2 / 5, 3 / 5, 0))


def test_a_layer_without_positive_products_keeps_what_arrives() -> None:
    (R,) = relevance_of(lambda x: F.linear(x, torch.tensor([[1.0, 2.0]])), numbers(-1, -3))
    close(R, numbers(0, 0))


PRODUCTS = {
    "gate": lambda a, b: F.silu(a) * b,
    "matrices": lambda a, b: a.unsqueeze(2) @ b.unsqueeze(1),
    "einsum": lambda a, b: torch.einsum("bi,bi->bi", a, b),
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_two_streams_share_a_product_in_halves(product: str) -> None:
    a, b = relevance_of(PRODUCTS[product], numbers(2, -3), numbers(5, 7))
    close(a, b)
    close(a, numbers(0.5, 0.5) * (2 if product == "matrices" else 1))


def test_a_sum_is_shared_by_what_is_added_and_scaled_sample_by_sample() -> None:
    a, b = torch.tensor([[3.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0, 1.0], [-0.5, 1.0]])
    together = relevance_of(torch.add, a, b, batch=2)
    for i in range(2):
        alone = relevance_of(torch.add, a[i : i + 1], b[i : i + 1])
        for part, whole in zip(alone, together, strict=True):
            close(whole[i : i + 1], part)
    close(together[0][0] + together[1][0], torch.ones(2).double())
    # Sums of shares: 2 + 1/2 of a, -1 + 1/2 of b; they are scaled to 5/6 and 1/6 of what arrives.
    assert together[0][1].sum().item() == pytest.approx(2 * 5 / 6)
    assert together[1][1].sum().item() == pytest.approx(2 * 1 / 6)


def test_a_difference_is_a_sum_with_a_negative_part() -> None:
    a, b = relevance_of(torch.sub, numbers(5), numbers(2))
    close(a + b, numbers(1))
    close(a / b, numbers(-5 / 2).abs())


def added_in_place(a: Tensor, b: Tensor) -> Tensor:
    """By one who does not look at what is returned, in part of a tensor."""
    y = torch.cat([a, a], -1)
    y[:, :2].add_(b)
    y[:, 2:] = b
    return y


def test_writing_over_a_tensor_is_like_making_a_new_one() -> None:
    a, b = numbers(3, 1), numbers(1, 1)
    wanted = relevance_of(lambda a, b: torch.cat([a + b, b], -1), a, b)
    for found, part in zip(relevance_of(added_in_place, a, b), wanted, strict=True):
        close(found, part)


WHOLE: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda x: F.layer_norm(x, (2,)),
    "norm that is written out": lambda x: 3 * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "norm with a square root": lambda x: x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "activation": lambda x: F.gelu(x) * 0.5 + 1,
    "multiple of a parameter": lambda x: x * nn.Parameter(torch.tensor([2.0, -1.0])),
    "softmax": lambda x: torch.softmax(x, -1),
    "picks": lambda x: torch.cat([x.amax(-1, keepdim=True), x.min(-1, keepdim=True).values], -1),
    "moves": lambda x: torch.cat(x.flip(0).unsqueeze(0).chunk(2, -1), -1)[0],
    "in other precision": lambda x: (x * 1.0000001).float().to(torch.float32).double(),
}


@pytest.mark.parametrize("what", WHOLE)
def test_what_lets_relevance_pass(what: str) -> None:
    close(relevance_of(WHOLE[what], numbers(2, -3))[0], numbers(1, 1))


def test_float32_is_computed_in_float64() -> None:
    """Ones that cancel but for less than float32 can tell."""
    with Relevance(1):
        y = torch.tensor([1.0, 1e-12]).float() * 1.0 + torch.tensor([0.0])
        assert (torch.tensor([1.0]) + y[1:] - 1 > 0).all() and y.dtype == torch.float64


# -------------------------------------------------------------------------------------------------------- refusals


class Head(nn.Module):
    """A model with something of its own between its tokens and its output."""

    def __init__(self, what: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.vit, self.what = reference_vit(), what

    def forward(self, x: Tensor) -> Tensor:
        return self.what(self.vit(x))


UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "cumsum": lambda x: x.cumsum(-1),
    "cummax": lambda x: x.cummax(-1).values + x,
    "cumsum_": lambda x: x.clone().cumsum_(-1),
    "add": lambda x: torch.add(x, x.flip(-1), alpha=2),
}


@pytest.mark.parametrize("method", [cv.LRP, cv.PartialLRP, cv.TransAttr])
@pytest.mark.parametrize("name", UNKNOWN)
def test_an_operation_without_a_rule_is_refused_by_name(name: str, method: Callable) -> None:
    with pytest.raises(cv.UnsupportedModelError, match=name.strip("_")) as caught:
        method(Head(UNKNOWN[name]).eval()).attribute(reference_images(), TARGETS)
    assert caught.value.hint


def test_an_operation_without_a_rule_may_be_a_constant() -> None:
    beside = Head(lambda x: x + 0 * x.cumsum(-1).detach()).eval()
    wanted = cv.LRP(reference_vit()).attribute(reference_images(), TARGETS)
    close(cv.LRP(beside).attribute(reference_images(), TARGETS), wanted)


@pytest.mark.parametrize("method", [cv.LRP, cv.PartialLRP, cv.TransAttr])
def test_half_precision_is_refused(method: Callable) -> None:
    with pytest.raises(cv.ModelStateError, match="float32"):
        method(reference_vit().bfloat16()).attribute(reference_images(), TARGETS)


def test_a_sum_whose_rows_are_no_samples_is_refused() -> None:
    a = torch.ones(3, 2, requires_grad=True)
    with pytest.raises(cv.TraceError, match="batch of 2"):
        Added.apply(a, a, 2).sum().backward()


# ---------------------------------------------------------------------------------------------------------- identities


def test_plus_sums_the_maps_of_start_layers() -> None:
    model, images = reference_vit(), reference_images()
    wanted = sum(cv.LRP(model, start).attribute(images, TARGETS) for start in range(3))
    close(cv.PLUS(cv.LRP(model)).attribute(images, TARGETS), wanted)
    late = sum(cv.PartialLRP(model, layer).attribute(images, TARGETS) for layer in (1, 2))
    close(cv.PLUS(cv.PartialLRP(model), layers=[1, 2]).attribute(images, TARGETS), late)


def test_trans_attr_of_the_last_block_is_its_one_layer_map() -> None:
    model, images = reference_vit(), reference_images()
    alone = cv.PLUS(cv.TransAttr(model, **TOKENS), layers=[2]).attribute(images, TARGETS)
    rolled = cv.TransAttr(model, 2, **TOKENS).attribute(images, TARGETS)
    rolled[:, 0] -= 1  # the identity's share
    close(rolled, alone)


class Straight(nn.Module):
    """An activation that is none."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_conservative_lrp_is_decompx_where_there_are_no_activations() -> None:
    model, images = reference_vit(layer_scale=True), reference_images()
    assert not torch.allclose(*(m(model).attribute(images, TARGETS) for m in (cv.ConservativeLRP, cv.DecompX)))
    for block in model.blocks:
        block.mlp.act = Straight().eval()
    for start in range(3):
        found, wanted = (m(model, start).attribute(images, TARGETS) for m in (cv.ConservativeLRP, cv.DecompX))
        close(found, wanted)


def test_conservative_lrp_is_gradient_x_input_under_its_rule() -> None:
    model, images = reference_vit(), reference_images()
    method = cv.PLUS(cv.ConservativeLRP(model))
    close(method.attribute(images, TARGETS), cv.CAT(model, rule="conservative").attribute(images, TARGETS))
