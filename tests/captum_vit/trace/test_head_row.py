"""The row with which a head reads the tokens, against gates moved by hand, and what follows from it for the maps."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.trace.record.record import Want, record
from captum_vit.trace.run.describe import transformer_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.captum_vit.trace.headed import (
    CLASSES,
    FOLLOW_EVIDENCE,
    FOLLOW_ROWS,
    HEADS,
    WIDTH,
    Boxes,
    Headed,
    Linear,
    N,
    by_gates,
    made,
    pictures,
    seen,
    shown,
    weights,
)
from tests.models import redrawn


@pytest.mark.parametrize("name", [name for name in HEADS if name != "unit length, then mean"])
def test_evidence_is_what_the_target_gains_with_a_gate(name: str) -> None:
    model, x = made(HEADS[name]()), pictures()
    gained = by_gates(model, x, target=2)
    assert gained[:, 1:].lt(0).any() and gained[:, 1:].gt(0).any()
    wanted = gained.clamp(min=0)
    wanted[:, 0] = gained[:, 0].abs()
    found = seen(model, x, "evidence")
    assert found.several.all()
    assert (found.row.squeeze(1) - wanted / wanted.sum(1, keepdim=True)).abs().max() < 1e-6


def test_in_front_of_a_norm_evidence_is_zero_by_algebra_and_behind_it_is_read() -> None:
    """A token's length says nothing to a head that scales each to length 1; behind that it is read."""
    model, x = made(HEADS["unit length, then mean"]()), pictures()
    assert by_gates(model, x, target=2).abs().max() < 1e-8
    with torch.no_grad():
        units = F.normalize(model.vit.forward_features(x), dim=-1)
        wanted = (units @ model.head.weight[2]).clamp(min=0) / N
        wanted[:, 0] = (units[:, 0] @ model.head.weight[2]).abs() / N
    row = seen(model, x, "evidence").row.squeeze(1)
    assert (row - wanted / wanted.sum(1, keepdim=True)).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["outputs", "target"])
def test_weights_of_a_mean_are_equal_though_tokens_have_norms_of_their_own(kind: str) -> None:
    model, x = made(HEADS["mean of patches"]()), pictures()
    wanted = torch.tensor([0.0] + [1 / (N - 1)] * (N - 1), dtype=torch.float64).expand(2, -1)
    assert (seen(model, x, kind).row.squeeze(1) - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["outputs", "target"])
def test_weights_that_the_head_gives_to_places_count(kind: str) -> None:
    model, x = made(Linear(lambda x: (x[:, 1:] * weights(x)).mean(1))), pictures()
    wanted = F.pad(weights(x).squeeze(1) / weights(x).sum(), (1, 0)).expand(2, -1)
    assert (seen(model, x, kind).row.squeeze(1) - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["outputs", "target", "evidence"])
def test_one_row_that_is_read_has_all_of_it(kind: str) -> None:
    for head in (Linear(lambda x: x[:, 0]), Linear(lambda x: F.layer_norm(x[:, 0], (WIDTH,)))):
        for normalised in (True, False):
            found = seen(made(head, normalised), pictures(), kind)
            assert torch.equal(found.row, F.one_hot(torch.zeros(2, 1, dtype=torch.long), N).double())
            assert not found.several.any()


def test_cls_read_behind_a_norm_of_its_own_keeps_its_weight() -> None:
    """Its product with the gradient is zero by algebra in front of that norm: there the lengths of gradients count."""

    def own(x: Tensor) -> Tensor:
        return torch.cat([F.layer_norm(x[:, 0], (WIDTH,)), F.layer_norm(x[:, 1:].mean(1), (WIDTH,))], -1)

    model, x = made(Linear(own, 2 * WIDTH), normalised=False), pictures()
    assert by_gates(model, x, 2)[:, 0].abs().max() < 1e-6
    found = seen(model, x, "evidence")
    assert torch.equal(found.row, seen(model, x, "target").row)
    assert (found.row[..., 0] > 2 / N).all()


@pytest.mark.parametrize("rule", ["grad", "frozen", "libra"])
def test_tokens_that_one_sample_hides_are_not_read_in_it(rule: str) -> None:
    """The second sample has fewer words; what its head multiplies by zero has no weight."""
    model, x = made(Linear(lambda x: (x * shown(x)).sum(1) / shown(x).sum(1))), pictures()
    with undisturbed(model):
        want = Want(row="target", rule=rule)
        found = record(Pass(model, (x,), (), transformer_of(model, (x,), ())), 2, want)
    assert (found.row[0] > 0).all() and torch.equal(found.row[1, 0] > 0, shown(x)[1, :, 0].bool())
    torch.testing.assert_close(found.read[1, 0], shown(x)[1, :, 0] / shown(x)[1].sum())


@pytest.mark.parametrize("name", [*FOLLOW_ROWS[:3], *FOLLOW_ROWS[4:], "FullGradPlus"])
def test_outputs_of_other_places_change_nothing(name: str) -> None:
    model, x = made(Boxes(lambda x: x)), pictures()
    method = cv.VTranM(model, score="logit") if name == "VTranM" else cv.METHODS[name](model)
    both = method.attribute(x, target=0)
    whole = model.head.forward
    model.head.forward = lambda x: whole(x)[:, :1]
    torch.testing.assert_close(method.attribute(x, target=0), both, rtol=1e-9, atol=1e-15)
    assert both.any()


@pytest.mark.parametrize("name", ["PredictionMap", "PredicAtt"])
def test_copies_of_one_token_say_nothing_of_places(name: str) -> None:
    model, x = made(Boxes(lambda x: x)), pictures()
    with pytest.raises(cv.UnsupportedModelError, match="outputs that read the tokens of places of their own"):
        cv.METHODS[name](model).attribute(x, target=0)
    assert cv.DecompX(model).attribute(x, target=0).any()


class Largest(Linear):
    """The largest logit of each class: outputs read tokens of their own, wherever these are."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, 1:].amax(1)


def test_outputs_that_pick_tokens_by_what_they_hold_belong_to_no_places() -> None:
    model, x = made(Largest(lambda x: x)), pictures()
    assert not torch.equal(*(seen(model, x[:1], "target", target).row for target in (0, 1)))
    found = cv.PredictionMap(model, score="logit").attribute(x, target=1)
    with torch.no_grad():
        logits = nn.functional.linear(model.vit.forward_features(x)[:, 1:], model.head.weight, model.head.bias)[..., 1]
    torch.testing.assert_close(found.flatten(1), logits)


@pytest.mark.parametrize("name", HEADS)
def test_prediction_maps_of_heads_that_pool_are_made(name: str) -> None:
    model, x = made(HEADS[name]()), pictures()
    assert cv.PredicAtt(model).attribute(x, target=1).any()


@pytest.mark.parametrize("name", FOLLOW_ROWS)
def test_a_sample_without_a_gradient_is_zero_and_the_other_as_by_itself(name: str) -> None:
    model, x = made(HEADS["CLS beside the mean"]()), pictures()
    plain = model.head.forward
    model.head.forward = lambda x: (
        plain(x)
        * (1.0 * (x[:, :1, 0] > -torch.inf)).index_fill(0, torch.tensor([1] if len(x) > 1 else [], dtype=torch.long), 0)
    )
    method = cv.METHODS[name](model)
    with pytest.warns(cv.ZeroMapWarning):
        found = method.attribute(x, target=1)
    assert not found[1].any()
    torch.testing.assert_close(found[:1], method.attribute(x[:1], target=1), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", [*FOLLOW_ROWS, "RawAttention", "AttentionRollout", "AttIN", "GlobEnc", "ALTI"])
def test_cls_with_a_little_of_the_mean_tends_to_cls(name: str) -> None:
    """The weights are the head's, where it reads rows unequally."""

    def little(eps: float) -> Callable[[Tensor], Tensor]:
        return lambda x: x[:, 0] + eps * x[:, 1:].mean(1)

    model, x = made(Linear(little(0.0))), pictures()
    cls = cv.METHODS[name](model).attribute(x, target=1)
    apart = []
    for eps in (1e-3, 1e-7):
        model.head.pool = little(eps)
        found = cv.METHODS[name](model).attribute(x, target=1)
        apart.append(1 - F.cosine_similarity(found.flatten(1), cls.flatten(1)).min().item())
    assert apart[1] < 1e-8 and apart[1] <= apart[0] + 1e-12


@pytest.mark.parametrize("name", ["mean of patches", "CLS beside the mean", "attention, keys normalised"])
def test_all_classes_have_rows_of_their_own(name: str) -> None:
    model, x = made(HEADS[name]()), pictures()
    every = cv.PredicAtt(model).all_classes(x)
    for c in range(CLASSES):
        torch.testing.assert_close(every[:, c : c + 1], cv.PredicAtt(model).attribute(x, target=c))


class Layers(Headed):
    """The head reads what leaves several blocks."""

    def forward(self, x: Tensor) -> Tensor:
        _, found = self.vit.forward_intermediates(x, indices=[0, 1], return_prefix_tokens=True, output_fmt="NLC")
        return self.head(torch.cat([torch.cat([cls[:, 0], patches.mean(1)], -1) for patches, cls in found], -1))


FOLLOW_NO_TARGET = ["RawAttention", "AttentionRollout", "AttIN", "GlobEnc", "ALTI", "PredictionMap"]


@pytest.mark.parametrize("name", [*FOLLOW_EVIDENCE, *FOLLOW_NO_TARGET])
def test_a_head_that_reads_earlier_blocks_too_is_warned_of(name: str) -> None:
    model, x = redrawn(Layers(nn.Linear(4 * WIDTH, CLASSES))).double(), pictures()
    with pytest.warns(cv.PartialMapWarning, match="tokens of earlier blocks"):
        cv.METHODS[name](model).attribute(x, target=1)


@pytest.mark.parametrize("name", ["DecompX", "CAT", "FullGradPlus"])
def test_methods_that_leave_nothing_out_do_not_warn_of_earlier_blocks(name: str) -> None:
    model, x = redrawn(Layers(nn.Linear(4 * WIDTH, CLASSES))).double(), pictures()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cv.METHODS[name](model).attribute(x, target=1).any()


def maps_of_blocks(model: nn.Module, x: Tensor, target: int) -> list[Tensor]:  # shape of each: (B, N, N)
    with undisturbed(model):
        want = Want(seen=["probs"], grads=["probs"])
        found = record(Pass(model, (x,), (), transformer_of(model, (x,), ())), target, want)
    products = [found.seen["probs"][layer] * found.grads["probs"][layer] for layer in found.layers]
    return [product.clamp(min=0).mean(1) for product in products]


def rows_to_one(T: Tensor) -> Tensor:
    return T / T.sum(-1, keepdim=True)


@pytest.mark.parametrize("name", ["mean of patches", "CLS beside the mean", "attention, keys normalised"])
def test_what_attention_gathers_for_a_row_weighs_as_much_as_the_row(name: str) -> None:
    """S = r (I + T), each row of T scaled to sum to 1: of GenAtt T is the product less I, of GradSAM the sum."""
    model, x = made(HEADS[name]()), pictures()
    first, last = maps_of_blocks(model, x, target=2)
    eye, row = torch.eye(N, dtype=torch.float64), seen(model, x, "evidence").row
    by_gen_att = (eye + last) @ (eye + first) - eye
    for method, T in (
        (cv.GenAtt(model, output="tokens"), by_gen_att),
        (cv.GradSAM(model, output="tokens"), first + last),
        (cv.PLUS(cv.GenAtt(model, output="tokens")), first + last),
    ):
        found = method.attribute(x, target=2)
        torch.testing.assert_close(found, (row @ (eye + rows_to_one(T))).squeeze(1))
        torch.testing.assert_close(found.sum(1), torch.full((2,), 2.0, dtype=torch.float64))


def test_of_samples_that_differ_each_has_the_rule_of_its_own() -> None:
    """One sample hides all but CLS from its head, the other nothing."""

    def only_cls(x: Tensor) -> Tensor:
        return (x * F.pad(torch.ones(len(x), 1, 1), (0, 0, 0, N - 1), value=0.0).to(x)).sum(1)

    def mixed(x: Tensor) -> Tensor:
        return torch.cat([only_cls(x[:1]), x[1:].mean(1)])

    model, x = made(Linear(mixed)), pictures()
    for name in FOLLOW_EVIDENCE:
        together = cv.METHODS[name](model).attribute(x, target=1)
        model.head.pool = only_cls
        torch.testing.assert_close(together[:1], cv.METHODS[name](model).attribute(x[:1], target=1))
        model.head.pool = lambda x: x.mean(1)
        torch.testing.assert_close(together[1:], cv.METHODS[name](model).attribute(x[1:], target=1))
        model.head.pool = mixed
