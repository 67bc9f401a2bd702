"""The row with which a head reads the tokens, against gates moved by hand, and what follows from it for the maps."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.trace.record.head import read_at
from captum_vit.trace.record.record import Record, Want, record
from captum_vit.trace.run.describe import transformer_of
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
        return record(model, transformer_of(model, (x,), ()), (x,), (), target, Want(row=row))


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
        found = record(model, transformer_of(model, (x,), ()), (x,), (), 2, want)
    assert (found.row[0] > 0).all() and torch.equal(found.row[1, 0] > 0, shown(x)[1, :, 0].bool())
    torch.testing.assert_close(found.read[1, 0], shown(x)[1, :, 0] / shown(x)[1].sum())


def shown(x: Tensor) -> Tensor:  # shape: (B, N, 1)
    kept = torch.ones(len(x), N, 1, dtype=x.dtype)
    kept[1:, 11:] = 0
    return kept


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_each_token_is_traced_to_its_row_in_every_precision(dtype: torch.dtype) -> None:
    rows = torch.randn(2, 300, 8, dtype=dtype, requires_grad=True)
    order = torch.randperm(300)[:280]
    tokens = F.layer_norm(rows[:, order], (8,))
    at = read_at(rows, tokens.pow(2).mean(1).sum(), [tokens, tokens * 2])
    assert at.x is tokens and at.tokens(tokens).shape == (560, 8)
    numbers = at.by_row(torch.arange(560).float(), (2, 300))
    assert torch.equal(numbers[:, order], torch.arange(560).float().view(2, 280)) and (numbers > 0).sum() == 559


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + x.mean(1, keepdim=True),
        lambda x: x.roll(1, 1) + x,
        lambda x: F.avg_pool1d(x.mT, 2, 2).mT,
        lambda x: x[:, [0, 0, 1, 2]],
        lambda x: x.cumsum(1),
    ],
)
def test_where_tokens_are_mixed_or_doubled_they_are_no_longer_rows(mix: Callable[[Tensor], Tensor]) -> None:
    rows = torch.randn(2, 6, 8, dtype=torch.float64, requires_grad=True)
    normed = F.layer_norm(rows, (8,))
    mixed = mix(normed)
    at = read_at(rows, mixed.pow(2).sum(), [normed, mixed])
    assert at.x is normed and at.rows.tolist() == at.made.tolist() == list(range(12))


def test_a_tensor_that_a_path_runs_past_is_no_place() -> None:
    rows = torch.randn(2, 6, 8, dtype=torch.float64, requires_grad=True)
    keys, values = F.layer_norm(rows, (8,)), rows * 2
    score = (keys.softmax(1) * values).sum()
    assert read_at(rows, score, [keys, values]).x is rows
    halves = torch.cat([rows, rows], -1).chunk(2, -1)
    assert read_at(rows, (halves[0] * halves[1]).sum(), list(halves)).x is rows


def in_a_grid(x: Tensor) -> Tensor:
    return F.layer_norm(x[:, 1:].unflatten(1, (SIDE, SIDE)), (WIDTH,)).mean((1, 2))


def channels_first(x: Tensor) -> Tensor:
    x = x[:, 1:].mT.unflatten(2, (SIDE, SIDE))
    x = x - x.mean(1, keepdim=True)
    return (x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt()).mean((2, 3))


def tokens_first(x: Tensor) -> Tensor:
    return F.layer_norm(x.transpose(0, 1), (WIDTH,))[1:].mean(0)


LAYOUTS = {"a grid": in_a_grid, "channels first": channels_first, "tokens first": tokens_first}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_norm_of_tokens_in_another_layout_is_found(name: str) -> None:
    model, x = made(Linear(lambda x: F.layer_norm(x, (WIDTH,))[:, 1:].mean(1)), normalised=False), pictures()
    wanted = seen(model, x, "evidence").row
    model.head.pool = LAYOUTS[name]
    torch.testing.assert_close(seen(model, x, "evidence").row, wanted)


def hidden_before(x: Tensor) -> Tensor:
    return (F.layer_norm(x * shown(x), (WIDTH,)) * shown(x)).sum(1) / shown(x).sum(1)


def end_to_end(x: Tensor) -> Tensor:
    kept = shown(x).squeeze(2).bool()
    sample = torch.arange(len(x)).unsqueeze(1).expand_as(kept)[kept]
    tokens = F.layer_norm(x[kept], (WIDTH,))
    return x.new_zeros(len(x), WIDTH).index_add(0, sample, tokens) / shown(x).sum(1)


@pytest.mark.parametrize("pool", [hidden_before, end_to_end])
def test_a_norm_of_the_tokens_that_a_mask_keeps_is_found(pool: Callable[[Tensor], Tensor]) -> None:
    """The second sample has fewer words, whose places the norm sees as zeros, or not at all."""
    behind = Linear(lambda x: (F.layer_norm(x, (WIDTH,)) * shown(x)).sum(1) / shown(x).sum(1))
    model, x = made(behind, normalised=False), pictures()
    wanted = {kind: seen(model, x, kind).row for kind in ("evidence", "target")}
    model.head.pool = pool
    for kind, row in wanted.items():
        torch.testing.assert_close(seen(model, x, kind).row, row)
    swapped = seen(model, x.flip(0), "evidence").row  # now it is the first that has all
    model.head.pool = behind.pool = lambda x: (F.layer_norm(x, (WIDTH,)) * shown(x)).sum(1) / shown(x).sum(1)
    torch.testing.assert_close(swapped, seen(model, x.flip(0), "evidence").row)


def test_products_that_are_nothing_but_rounding_are_no_evidence() -> None:
    """Each sample has a norm of its own here, so no tensor holds all tokens behind it: the lengths of gradients count."""
    pool = lambda x: torch.stack([F.layer_norm(one, (WIDTH,))[1:].mean(0) for one in x])  # noqa: E731
    model, x = made(Linear(pool), normalised=False), pictures()
    torch.testing.assert_close(seen(model, x, "evidence").row, seen(model, x, "target").row)


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


@pytest.mark.parametrize("name", [*FOLLOW_EVIDENCE[:3], *FOLLOW_EVIDENCE[4:]])
def test_a_head_that_reads_earlier_blocks_too_is_warned_of(name: str) -> None:
    model, x = redrawn(Layers(nn.Linear(4 * WIDTH, CLASSES))).double(), pictures()
    with pytest.warns(cv.PartialMapWarning, match="tokens of earlier blocks"):
        cv.METHODS[name](model).attribute(x, target=1)


@pytest.mark.parametrize("name", ["DecompX", "CAT", "FullGradPlus", "AttnGrad"])
def test_methods_that_leave_nothing_out_do_not_warn_of_earlier_blocks(name: str) -> None:
    model, x = redrawn(Layers(nn.Linear(4 * WIDTH, CLASSES))).double(), pictures()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cv.METHODS[name](model).attribute(x, target=1).any()


def maps_of_blocks(model: nn.Module, x: Tensor, target: int) -> list[Tensor]:  # shape of each: (B, N, N)
    with undisturbed(model):
        want = Want(seen=["probs"], grads=["probs"])
        found = record(model, transformer_of(model, (x,), ()), (x,), (), target, want)
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
