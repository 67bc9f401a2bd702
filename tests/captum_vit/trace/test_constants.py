"""Under a rule, what is made of a stream and constants is gradient x stream and bias x gradient, in every form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import UnsupportedModelError
from captum_vit.sites.site import Site
from captum_vit.trace.modes.biases import BiasTap
from captum_vit.trace.modes.rules import under
from captum_vit.trace.replay.proof import Proof, proof
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed

G = torch.Generator().manual_seed(0)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=G, dtype=torch.float64)


TABLE, MASK, WEIGHT, KERNEL = noise(2, 1, 6, 4), noise(6, 4) > 0, noise(4, 4), noise(3, 2, 2, 2)
BIAS, IMAGE_SHAPE = noise(2), (2, 3, 6, 4)
GRID = F.affine_grid(noise(2, 2, 3), [2, 3, 5, 5], align_corners=False)


def written(x: Tensor) -> Tensor:
    buffer = torch.ones(2, 3, 8, 4, dtype=x.dtype)
    buffer[:, :, 1:7] = x
    return buffer


CONSTANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "cat": lambda x: torch.cat([TABLE, x], 1),
    "stack": lambda x: torch.stack((x, TABLE.expand_as(x)), -1),
    "pad": lambda x: F.pad(x, (1, 0), value=0.7),
    "pad by reflection": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "masked_fill": lambda x: x.masked_fill(MASK, 2.0),
    "masked_fill with a tensor": lambda x: x.masked_fill(MASK, torch.tensor(2.0, dtype=x.dtype)),
    "where": lambda x: torch.where(MASK, x, TABLE),
    "where, the method": lambda x: x.where(MASK, 3.0),
    "written into a buffer": written,
    "baddbmm": lambda x: torch.baddbmm(TABLE[:, 0], x[:, 0], WEIGHT.expand(2, 4, 4), beta=0.3, alpha=2),
    "addcmul": lambda x: torch.addcmul(TABLE, x, TABLE, value=2),
    "a table": lambda x: x + TABLE,
}
LAYERS: dict[str, Callable[[Tensor], Tensor]] = {
    "conv1d": lambda x: F.conv1d(x[..., 0], KERNEL[:, :, 0].transpose(0, 1), BIAS),
    "conv2d": lambda x: F.conv2d(x, KERNEL.transpose(0, 1), BIAS),
    "conv3d": lambda x: F.conv3d(x[:, :, None], KERNEL.transpose(0, 1)[:, :, None], BIAS),
    "conv_transpose1d": lambda x: F.conv_transpose1d(x[..., 0], KERNEL[:, :, 0], BIAS),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, KERNEL, BIAS),
    "conv_transpose3d": lambda x: F.conv_transpose3d(x[:, :, None], KERNEL[:, :, None], BIAS),
    "instance norm": lambda x: F.instance_norm(x, weight=noise_of(3), bias=noise_of(3)),
    "group norm": lambda x: F.group_norm(x, 3, noise_of(3), noise_of(3)),
    "batch norm": lambda x: F.batch_norm(x, noise_of(3), noise_of(3) ** 2, noise_of(3), noise_of(3)),
    "grid_sample": lambda x: F.grid_sample(x, GRID + x.mean((1, 2, 3)).view(-1, 1, 1, 1), align_corners=False),
    "divided by its norm": lambda x: x / (x.norm(dim=-1, keepdim=True) + 0.1),
    "divided by a deviation": lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1).sqrt(),
    "times one over a root": lambda x: x * (1 / torch.sqrt(x.square().mean(-1, keepdim=True) + 1)),
    "mask of queries": lambda x: F.scaled_dot_product_attention(x, x, x, x @ x.transpose(-2, -1)),
}  # fmt: skip


def noise_of(n: int) -> Tensor:
    return torch.linspace(-1, 2, n, dtype=torch.float64)


class Plain(nn.Module):
    """A function between two layers, then a fixed mixture of everything."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.function = nn.Identity(), function

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(self.first(x))
        return (y * torch.cos(torch.arange(y.numel(), dtype=y.dtype).view_as(y))).flatten(1).sum(1, keepdim=True)


def proved(function: Callable[[Tensor], Tensor], rule: str = "frozen", x: Tensor | None = None) -> Proof:
    model = Plain(function).eval()
    x = noise(*IMAGE_SHAPE) if x is None else x
    with undisturbed(model):
        return proof(Pass(model, (x,), ()), Site(model.first, "output"), rule)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["frozen", "libra"])
@pytest.mark.parametrize("name", [*CONSTANTS, *LAYERS])
def test_tokens_and_biases_are_the_score(name: str, rule: str) -> None:
    found = proved((CONSTANTS | LAYERS)[name], rule)
    assert found.closes
    assert found.residual < 1e-14
    assert found.size > 0


@pytest.mark.parametrize("name", CONSTANTS)
def test_biases_are_what_is_left_without_the_stream(name: str) -> None:
    """All these are affine: the biases are the score of zeros, and the tokens have the plain gradient."""
    model = Plain(CONSTANTS[name])
    x = noise(*IMAGE_SHAPE)
    found = proved(CONSTANTS[name], x=x)
    at_zero = proved(CONSTANTS[name], x=torch.zeros_like(x))
    assert found.biases == pytest.approx(at_zero.score, rel=1e-12)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(model(leaf).sum(), leaf)
    with under("frozen"):
        (held,) = torch.autograd.grad(model(leaf).sum(), leaf)
    torch.testing.assert_close(held, g, rtol=1e-12, atol=1e-12)


HELD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # the first is followed, the second is held
    "grid_sample": lambda x, c: F.grid_sample(x, GRID + c.mean((1, 2, 3)).view(-1, 1, 1, 1), align_corners=False),
    "divided by its norm": lambda x, c: x / (c.norm(dim=-1, keepdim=True) + 0.1),
    "times one over a root": lambda x, c: x * (1 / torch.sqrt(c.square().mean(-1, keepdim=True) + 1)),
    "mask of queries": lambda x, c: F.scaled_dot_product_attention(c, c, x, c @ c.transpose(-2, -1)),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_what_is_held_has_no_gradient(name: str) -> None:
    x = noise(*IMAGE_SHAPE).requires_grad_()
    weights = torch.cos(torch.arange(LAYERS[name](x).numel(), dtype=x.dtype))
    (wanted,) = torch.autograd.grad((HELD[name](x, x.detach()).flatten() * weights).sum(), x)
    with under("frozen"):
        (found,) = torch.autograd.grad((LAYERS[name](x).flatten() * weights).sum(), x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_batch_norm_of_one_sample_whose_gradient_has_channels_last() -> None:
    x = noise(1, 4, 3, 3).requires_grad_()
    weight, mean, variance = noise_of(4), noise_of(4), noise_of(4) ** 2 + 0.5
    out = noise(1, 9, 4)
    with under("frozen"):
        y = F.batch_norm(x, mean, variance, weight)
        (found,) = torch.autograd.grad((y.flatten(2).transpose(1, 2) * out).sum(), x)
    wanted = out.transpose(1, 2).reshape(x.shape) * (weight / (variance + 1e-5).sqrt()).view(1, 4, 1, 1)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


class Cumulated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumprod(-1).logsumexp(-1)


@pytest.mark.parametrize("rule", ["frozen", "libra"])
def test_the_first_operation_outside_the_rule_is_named_with_its_module(rule: str) -> None:
    found = proved(Cumulated(), rule)
    assert not found.closes
    assert [name in what for name, what in zip(("cumprod", "logsumexp"), found.outside, strict=True)] == [True, True]
    with pytest.raises(UnsupportedModelError, match=r"cumprod.*Cumulated in Plain"):
        found.refuse()


def test_without_the_tap_nothing_is_proved() -> None:
    """The tap adds what the tokens lack."""
    assert proved(CONSTANTS["cat"]).residual < 1e-14
    seen: list[Tensor] = []
    tap = BiasTap(lambda y, axis: 0)
    tap.told.append(lambda place, part: seen.append(part))
    x = noise(*IMAGE_SHAPE).requires_grad_()
    with under("frozen"), tap:
        y = Plain(CONSTANTS["cat"])(x).sum()
    (g,) = torch.autograd.grad(y, x)
    assert abs((g * x).sum() - y) > 0.1
    torch.testing.assert_close((g * x).sum() + sum(part.sum() for part in seen), y)


class Ended(nn.Module):
    """Logits, and what makes probabilities of them."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.head, self.end = nn.Identity(), nn.Linear(4, 5).double(), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.head(self.first(x)).unsqueeze(1))[:, 0]


@pytest.mark.parametrize("end", [nn.Sigmoid(), torch.sigmoid, nn.Softmax(-1), lambda y: y.softmax(-1)])
def test_a_probability_at_the_end_is_refused_by_the_layer_before_it(end: Callable[[Tensor], Tensor]) -> None:
    model, x = Ended(end).eval(), noise(2, 6, 4)
    with undisturbed(model), pytest.raises(UnsupportedModelError, match=r"`head` \(Linear\)") as caught:
        proof(Pass(model, (x,), ()), Site(model.first, "output"), "frozen")
    assert "outputs are what `head`" in caught.value.hint
    open_ended = Ended(nn.Identity()).eval()
    with undisturbed(open_ended):
        assert proof(Pass(open_ended, (x,), ()), Site(open_ended.first, "output"), "frozen").closes
