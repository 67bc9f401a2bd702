"""An activation is what it computes, not how it is written; and what no rule covers is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.trace.modes.rules import under
from tests.captum_vit.trace.activations import EVERY, WRITTEN, gated_vit, vit_with
from tests.references.models import reference_images, reference_vit

TARGETS = [1, 4]
RULES = ("frozen", "libra")
TOKENS = {"output": "tokens"}


@cache
def logits_of(make: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor]:
    model = make()
    with torch.no_grad():
        return model, model(reference_images())[[0, 1], TARGETS]


def explained(method: cv.TokenAttribution) -> Tensor:
    return method.attribute(reference_images(), target=TARGETS)


def complete(model: nn.Module, logit: Tensor, rule: str) -> None:
    total = explained(cv.FullGrad(model, rule=rule, **TOKENS)).sum(1)
    torch.testing.assert_close(total, logit, rtol=1e-12, atol=1e-12)


MODELS = {name: partial(vit_with, function) for name, function in EVERY.items()}
USUAL = {"GELU", "ReLU", "SiLU", "Sigmoid", "gelu_new", "SiLU in place", "QuickGELU", "ReLU times ReLU"}  # quick loop


@pytest.mark.parametrize("rule", [pytest.param("frozen", marks=pytest.mark.slow), "libra"])
@pytest.mark.parametrize("name", [n if n in USUAL else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_tokens_and_biases_are_the_logit_whatever_the_activation(name: str, rule: str) -> None:
    complete(*logits_of(MODELS[name]), rule)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_relevance_is_conserved_by_every_activation(name: str) -> None:
    total = explained(cv.LRP(logits_of(MODELS[name])[0], **TOKENS)).sum(1)
    assert (total - 1).abs().max() < 1e-9


METHODS: dict[str, Callable[[nn.Module], cv.TokenAttribution]] = {
    "DecompX": partial(cv.DecompX, **TOKENS),
    "FullGradPlus, libra": partial(cv.FullGradPlus, rule="libra", **TOKENS),
    "ConservativeLRP": partial(cv.ConservativeLRP, **TOKENS),
    "LayerCDAM, frozen": partial(cv.LayerCDAM, layer="blocks.0", rule="frozen", **TOKENS),
    "LRP": partial(cv.LRP, **TOKENS),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_written_by_hand_it_is_the_module(name: str) -> None:
    by_hand, module = (vit_with(function) for function in WRITTEN[name])
    for method, make in METHODS.items():
        found, wanted = explained(make(by_hand)), explained(make(module))
        assert (found - wanted).abs().max() < 1e-10 * wanted.abs().max(), method


def test_a_number_added_before_an_activation_is_a_bias() -> None:
    """As the bias of a linear layer: where a ReLU behind it is shut, no token gets anything."""
    model = vit_with(F.gelu)
    shut = cv.Scalar(model, lambda output: (output[:, 0] - 100.0).relu())
    with pytest.warns(cv.ZeroMapWarning):
        assert not cv.DecompX(shut, **TOKENS).attribute(reference_images()).any()


GATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "GeGLU": lambda a, b: F.gelu(a) * b,
    "GeGLU by hand": lambda a, b: (0.5 * a * (1 + torch.erf(a / 2**0.5))) * b,
    "SwiGLU": lambda a, b: F.silu(a) * b,
    "SwiGLU, the other way round": lambda a, b: b * F.silu(a),
    "SwiGLU behind dropout": lambda a, b: F.dropout(F.silu(a), 0.1, training=False).view_as(a) * b,
    "ReGLU": lambda a, b: F.relu(a) * b,
    "ReGLU in place": lambda a, b: F.relu(a.clone(), inplace=True).mul_(b),
    "GLU": lambda a, b: F.glu(torch.cat([b, a], -1)),
    "GLU by hand": lambda a, b: a.sigmoid() * b,
    "a sigmoid and a tangent": lambda a, b: a.sigmoid() * torch.tanh(b),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", GATES)
def test_gated_units_are_complete(name: str, rule: str) -> None:
    complete(*logits_of(partial(gated_vit, GATES[name])), rule)


@pytest.mark.parametrize(("one", "other"), [("GeGLU", "GeGLU by hand"), ("GLU", "GLU by hand"),
                                            ("SwiGLU", "SwiGLU, the other way round")])  # fmt: skip
def test_a_gate_is_a_gate_however_it_is_written(one: str, other: str) -> None:
    for rule in RULES:
        found, wanted = (explained(cv.CAT(gated_vit(GATES[name]), rule=rule, **TOKENS)) for name in (one, other))
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


def test_a_product_without_a_gate_is_shared_in_halves_or_refused() -> None:
    model, logit = logits_of(partial(gated_vit, lambda a, b: a * b))
    complete(model, logit, "libra")
    with pytest.raises(cv.UnsupportedModelError, match="mul") as caught:
        explained(cv.DecompX(model))
    assert 'rule="libra"' in caught.value.hint


UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "cumprod": lambda x: x.cumprod(-1),
    "cumprod_": lambda x: x.cumprod_(-1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "softmin": lambda x: F.softmin(x, -1),
    "logsumexp": lambda x: x + torch.logsumexp(x, -1, keepdim=True),
    "var": lambda x: x + x.var(-1, keepdim=True),
    "log": lambda x: torch.log(x.abs()),  # not finite at zero, so it has no origin
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", UNKNOWN)
def test_what_no_rule_covers_is_refused_by_its_name(name: str, rule: str) -> None:
    model = vit_with(UNKNOWN[name])
    for method in (cv.CAT, cv.FullGrad):
        with pytest.raises(cv.UnsupportedModelError, match=name):
            explained(method(model, rule=rule))


class Odd(torch.autograd.Function):
    """A cube whose derivative PyTorch does not know."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * grad


@pytest.mark.parametrize("rule", RULES)
def test_a_gap_between_tokens_and_score_is_refused(rule: str) -> None:
    """What no mode can see shows in the sum."""
    for method in (cv.FullGrad, cv.FullGradPlus):
        with pytest.raises(cv.UnsupportedModelError, match="derivative of its own in Odd"):
            explained(method(vit_with(Odd.apply), rule=rule))
    assert explained(cv.FullGrad(vit_with(Odd.apply))).isfinite().all(), "the plain gradient claims no sum"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_no_gap(rule: str, dtype: torch.dtype) -> None:
    model = vit_with(EVERY["gelu_new"]).to(dtype)
    assert explained(cv.FullGrad(model, rule=rule)).isfinite().all()


# -- what a model ends in ----------------------------------------------------------------------------------------

ENDS: dict[str, nn.Module] = {
    "softmax": nn.Softmax(-1), "log_softmax": nn.LogSoftmax(-1), "softmin": nn.Softmin(-1),
}  # fmt: skip


COMPLETE = [cv.DecompX, partial(cv.FullGrad, rule="frozen"), partial(cv.CAT, rule="libra"),
            partial(cv.LayerCDAM, rule="frozen")]  # fmt: skip


@pytest.mark.parametrize("method", COMPLETE)
@pytest.mark.parametrize("end", [nn.Softmax(-1), nn.Sigmoid()])
def test_a_probability_at_the_end_is_refused_and_the_advice_works(
    method: Callable[..., cv.TokenAttribution], end: nn.Module
) -> None:
    """Of a saturated one a held slope is no effect that a change of a token has."""
    whole = nn.Sequential(reference_vit(), end).eval()
    for _ in range(2):  # remembered
        with pytest.raises(cv.UnsupportedModelError, match=r"at the end, of what `0\.head` \(Linear\)") as caught:
            explained(method(whole))
    assert "captum_vit.BeforeActivation(model)" in caught.value.hint
    torch.testing.assert_close(explained(method(cv.BeforeActivation(whole))), explained(method(whole[0])))


def test_a_softmax_at_the_end_has_no_rule_that_conserves() -> None:
    with pytest.raises(cv.UnsupportedModelError, match="softmax"):
        explained(cv.ConservativeLRP(nn.Sequential(reference_vit(), nn.Softmax(-1)).eval()))


@pytest.mark.parametrize("end", ["log_softmax", "softmin"])
def test_other_ends_are_refused_by_their_names(end: str) -> None:
    with pytest.raises(cv.UnsupportedModelError, match=end):
        explained(cv.DecompX(nn.Sequential(reference_vit(), ENDS[end]).eval()))


# -- pieces ------------------------------------------------------------------------------------------------------


def test_a_norm_over_groups_is_frozen() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, dtype=torch.float64, requires_grad=True)
    norm = nn.GroupNorm(4, 8).double()
    with under("frozen"):
        y = norm(x)
    torch.testing.assert_close(y, norm(x))
    (g,) = torch.autograd.grad(y.sum(), x)
    with torch.no_grad():
        norm.bias.zero_()
    torch.testing.assert_close((g * x).sum(), norm(x).sum())


def test_a_cosine_is_linear_in_what_is_compared() -> None:
    x, y = torch.randn(2, 3, 7, dtype=torch.float64).unbind()
    x.requires_grad_()
    with under("frozen"):
        found = F.cosine_similarity(x, y, -1)
    torch.testing.assert_close(found, F.cosine_similarity(x, y, -1))
    (g,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close((g * x).sum(), found.sum())


def test_parameters_may_ask_for_gradients() -> None:
    """A temperature that is learned is a constant too."""
    model = reference_vit()
    temperature = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    scaled = _Scaled(model, temperature)
    found = explained(cv.DecompX(scaled.eval()))
    torch.testing.assert_close(found, explained(cv.DecompX(model)) * temperature.detach().exp())


class _Scaled(nn.Module):
    def __init__(self, model: nn.Module, temperature: nn.Parameter) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) * self.temperature.exp()


WEIGHTS = torch.linspace(-1, 1, 5, dtype=torch.float64)
HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "lerp": lambda y: torch.lerp(y, y.flip(-1), 0.3),
    "lerp to a constant": lambda y: y.lerp(WEIGHTS, 0.3),
    "lerp by a gate": lambda y: torch.lerp(y, y.flip(-1), torch.sigmoid(y)),
    "addcmul": lambda y: torch.addcmul(WEIGHTS, y, WEIGHTS, value=2),
    "addcdiv": lambda y: torch.addcdiv(y, y.flip(-1), WEIGHTS + 3),
    "tensordot": lambda y: torch.tensordot(y, WEIGHTS.diag(), 1),
    "inner": lambda y: torch.inner(y, WEIGHTS.diag()),
    "dot and mv": lambda y: torch.stack([WEIGHTS.diag().mv(row) + torch.dot(row, WEIGHTS) for row in y]),
    "var_mean": lambda y: (y - torch.var_mean(y, -1, keepdim=True)[1]) / torch.var_mean(y, -1, keepdim=True)[0],
    "classes masked": lambda y: y + torch.tensor([0, 0, -torch.inf, 0, 0]),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", HEADS)
def test_heads_with_other_linear_functions_are_complete(name: str, rule: str) -> None:
    complete(*logits_of(partial(cv.Scalar, reference_vit(), HEADS[name])), rule)


def in_part(x: Tensor) -> Tensor:
    x[..., :9].relu_()
    return x


@pytest.mark.parametrize("rule", ["grad", *RULES])
def test_a_part_may_be_written_over(rule: str) -> None:
    """The bias of the layer before belongs to what that layer returned."""
    found, wanted = (
        explained(cv.FullGrad(vit_with(act), rule=rule, **TOKENS))
        for act in (in_part, lambda x: torch.cat([x[..., :9].relu(), x[..., 9:]], -1))
    )
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
