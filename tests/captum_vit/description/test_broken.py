"""Models that were explained wrong, or by an error of another library."""

import gc
import weakref
from collections.abc import Callable
from copy import deepcopy
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.attr import AttCAT, DecompX, GenAtt, GlobEnc, LayerCDAM, PredicAtt, RawAttention, TokenAblation
from tests.captum_vit.description.unnamed import Aa, Base, D, H, N, NoNorm, feed_forward
from tests.models import redrawn

X = torch.randn(3, N, 7, generator=torch.Generator().manual_seed(0))


def built(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return redrawn(build()).eval()


class Block(nn.Module):
    """A block that is one module."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.f = Aa(), feed_forward()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.a(x)
        return x + self.f(x)


class Stack(Base):
    """Positions are added to the tokens; blocks are modules, or written out."""

    def __init__(self, whole: bool, cls: bool = False) -> None:
        super().__init__()
        self.whole, self.cls = whole, cls
        self.b = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.e(x) + self.p))

    def blocks(self, x: Tensor) -> Tensor:
        for block in self.b:
            x = block(x) if self.whole else self.step(x, block.a, block.f)
        return x

    def head(self, x: Tensor) -> Tensor:
        return self.h(x[:, 0] if self.cls else x.mean(1))


@cache
def both(cls: bool) -> list[nn.Module]:
    """With blocks that are modules, and with the same that are none."""
    return [built(lambda whole=whole: Stack(whole, cls)) for whole in (True, False)]


@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("method", [LayerCDAM, RawAttention, GenAtt, GlobEnc, DecompX, TokenAblation, PredicAtt])
def test_blocks_that_are_no_modules_have_the_maps_of_blocks_that_are(method: type, cls: bool):
    whole, loose = both(cls)
    wanted, found = (method(model, output="tokens").attribute(X, target=1) for model in (whole, loose))
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_tokens_are_ablated_in_blocks_that_are_no_modules():
    model = built(lambda: Stack(False))
    found = TokenAblation(model, score="logit", output="tokens").attribute(X, target=1)
    tokens = model.e(X) + model.p
    others = [[j for j in range(N) if j != i] for i in range(N)]
    without = [model.head(model.blocks(tokens[:, some]))[:, 1] for some in others]
    wanted = model(X)[:, 1, None] - torch.stack(without, 1)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_values_and_keys_of_blocks_that_are_no_modules():
    whole, loose = built(lambda: Stack(True)), built(lambda: Stack(False))
    terms = [LayerCDAM(model, layer=1, output="tokens").value_and_key_terms(X, 1) for model in (whole, loose)]
    for wanted, found in zip(*terms, strict=True):
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


class Routed(Stack):
    """Which blocks run depends on the input."""

    routes = ([0, 1, 0], [0, 0, 1])

    def blocks(self, x: Tensor) -> Tensor:
        for k in self.routes[int(x[0, 0, 0] > 0)]:
            x = self.b[k](x)
        return x


class Skipping(Routed):
    routes = ([0, 2], [0, 1, 2])


@pytest.mark.parametrize("kind", [Routed, Skipping])
@pytest.mark.parametrize("method", [LayerCDAM, RawAttention])
@pytest.mark.parametrize("first", [0, 1])
def test_other_blocks_than_in_the_pass_that_found_them_are_refused(kind: type, method: type, first: int):
    model = built(lambda: kind(True))
    xs = [x for x in (X, -X) if (model.e(x) + model.p)[0, 0, 0] > 0] + [
        x for x in (X, -X) if (model.e(x) + model.p)[0, 0, 0] <= 0
    ]
    one, other = xs[first], xs[1 - first]
    method(model, output="tokens").attribute(one, target=1)
    with pytest.raises(cv.TraceError, match="same blocks for all inputs"):
        method(model, output="tokens").attribute(other, target=1)
    method(deepcopy(model), output="tokens").attribute(other, target=1)  # as the error says


def test_a_hook_on_gradients_is_no_other_block():
    model = built(lambda: Stack(True))
    wanted = GenAtt(model, output="tokens").attribute(X, target=1)
    for block in model.b:
        block.register_full_backward_hook(lambda *args: None)
    assert torch.equal(GenAtt(model, output="tokens").attribute(X, target=1), wanted)


class Rolled(Aa):
    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        return super().heads(self.k1(x).roll(1, 1))


class Shifted(Aa):
    def forward(self, x: Tensor) -> Tensor:
        y = self.k1(x)
        return super().forward(0.5 * y + 0.5 * torch.cat([y[:, 1:], y[:, :1]], 1))


class Squeezed(Aa):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * y.mean(1, keepdim=True).sigmoid()


class Channels(Aa):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.mT for t in self.heads(x))
        return self.k4((self.probs(q, k) @ v).mT.transpose(1, 2).flatten(2))


class Twice(Base):
    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        y = a(x)
        x = x + y + y.roll(1, 1)
        return x + f(x)


MIXED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "rolled": (lambda: Base(Rolled), "in front of the attention (roll)"),
    "shifted": (lambda: Base(Shifted), "in front of the attention"),
    "squeezed": (lambda: Base(Squeezed), "between the attention and the stream (mean, sigmoid)"),
    "twice": (Twice, "added to the stream twice"),
}


@pytest.mark.parametrize("name", MIXED)
def test_tokens_that_reach_each_other_beside_the_attention_are_refused(name: str):
    build, why = MIXED[name]
    with pytest.raises(cv.UnsupportedModelError) as error:
        RawAttention(built(build), output="tokens").attribute(X, target=1)
    assert why in str(error.value)


def test_channels_that_attend_are_no_tokens_where_there_are_as_many():
    with pytest.raises(cv.UnsupportedModelError, match="channels attend to channels"):
        RawAttention(_of_length(D // H, Channels), output="tokens").attribute(X[:, : D // H], target=1)
    RawAttention(_of_length(D // H, Aa), output="tokens").attribute(X[:, : D // H], target=1)


def _of_length(n: int, kind: Callable[[], nn.Module]) -> nn.Module:
    model = built(lambda: Base(kind))
    model.p = nn.Parameter(model.p.detach()[:, :n])
    return model


class PostNormModules(Base):
    """Post-norm, with norms that are modules."""

    def __init__(self) -> None:
        super().__init__(NoNorm)
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.e(x) + self.p
        for k, (a, f) in enumerate(self.m):
            x = self.norms[2 * k](x + a(x))
            x = self.norms[2 * k + 1](x + f(x))
        return self.h(x.mean(1))


class Scaled(Base):
    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(D))

    def step(self, x: Tensor, a: nn.Module, f: nn.Module) -> Tensor:
        x = x + self.g * a(x)
        return x + f(x)


@pytest.mark.parametrize("build", [Base, PostNormModules, Scaled])
def test_bfloat16_has_the_blocks_of_float32(build: Callable[[], nn.Module]):
    model = built(build)
    wanted = GlobEnc(model, output="tokens").attribute(X)
    found = GlobEnc(deepcopy(model).bfloat16(), output="tokens").attribute(X.bfloat16())
    assert F.cosine_similarity(found, wanted, dim=1).min() > 0.99


class Overwriting(Stack):
    """Fit for passes without gradients alone: a norm needs what is written over."""

    def blocks(self, x: Tensor) -> Tensor:
        for a, f in self.m:
            x += a(x)
            x += f(x)
        return x


@pytest.mark.parametrize("method", [LayerCDAM, AttCAT])
def test_a_model_that_writes_over_what_gradients_need_is_refused_by_name(method: type):
    model = built(lambda: Overwriting(False))
    with pytest.raises(cv.UnsupportedModelError, match="writes over tensors"):
        method(model, 0, output="tokens").attribute(X, target=1)
    RawAttention(model, output="tokens").attribute(X)


class Prompted(Stack):
    """Prompts are put in anew before every block, in the place of what the last one made of them."""

    def __init__(self) -> None:
        super().__init__(True)
        self.prompts = nn.Parameter(torch.randn(3, 2, D))

    def blocks(self, x: Tensor) -> Tensor:
        x = torch.cat([x.new_zeros(len(x), 2, D), x[:, 2:]], 1)
        for prompts, block in zip(self.prompts, self.b, strict=True):
            x = block(torch.cat([prompts.expand(len(x), -1, -1), x[:, 2:]], 1))
        return x


@pytest.mark.parametrize("method", [GenAtt, RawAttention])
def test_prompts_that_are_put_in_anew_are_refused(method: type):
    with pytest.raises(cv.UnsupportedModelError, match=rf"2 of {N} tokens are put in anew"):
        method(built(Prompted), output="tokens").attribute(X, target=1)


class RootScaled(Stack):
    """A parameter of the whole model scales every branch."""

    def __init__(self) -> None:
        super().__init__(False)
        self.g = nn.Parameter(torch.rand(D) + 0.5)

    def blocks(self, x: Tensor) -> Tensor:
        for block in self.b:
            x = x + self.g * block.a(x)
            x = x + block.f(x)
        return x


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RootScaled, lambda: Stack(True)])
def test_what_is_remembered_keeps_no_model_alive(kind: Callable[[], nn.Module]):
    model = built(kind)
    for method in (LayerCDAM, GlobEnc, cv.VTranM):
        assert method(model, output="tokens").attribute(X, target=1).any()
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


class Later(Stack):
    """Its blocks are no modules, and it may call something more behind them."""

    more = False

    def head(self, x: Tensor) -> Tensor:
        return super().head(x * 2 if self.more else x)


def test_a_pass_with_more_calls_than_the_one_that_was_described_is_refused():
    model = built(lambda: Later(False))
    LayerCDAM(model, output="tokens").attribute(X, target=1)
    model.more = True
    with pytest.raises(cv.TraceError, match="same torch calls"):
        LayerCDAM(model, output="tokens").attribute(X, target=1)
