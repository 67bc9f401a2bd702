"""Models whose code looks at the numbers that it computes."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MixtralConfig, MixtralForSequenceClassification

import captum_vit as cv
from tests.captum_vit.description.unnamed import Aa, Base, N, feed_forward
from tests.models import redrawn

X = torch.randn(3, N, 7, generator=torch.Generator().manual_seed(0))


class Either(nn.Module):
    """Norms before the branches, or on the stream: the same modules in both orders."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.f, self.m, self.n = Aa(), feed_forward(), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, post: bool) -> Tensor:
        if post:
            x = self.m(x + self.a(x))
            return self.n(x + self.f(x))
        x = x + self.a(self.m(x))
        return x + self.f(self.n(x))


class ByData(Base):
    def __init__(self) -> None:
        super().__init__()
        self.b = nn.ModuleList(Either(self.e.out_features) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        post = bool(x[:, 0, 0].mean() > 0)
        x = self.e(x) + self.p
        for block in self.b:
            x = block(x, post)
        return self.h(x.mean(1))


def built(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return redrawn(kind()).eval()


def starting(number: float, x: Tensor = X) -> Tensor:
    x = x.clone()
    x[:, 0, 0] = number
    return x


@pytest.mark.parametrize("method", ["LayerCDAM", "DecompX", "GenAtt", "VTranM", "AttIN"])
def test_another_order_of_norms_than_in_the_described_pass_is_refused(method: str) -> None:
    model, attribute = built(ByData), lambda model, x: cv.METHODS[method](model).attribute(x, target=1)
    attribute(model, starting(-1.0))
    with pytest.raises(cv.TraceError, match="same torch calls"):
        attribute(model, starting(1.0))
    other = attribute(deepcopy(model), starting(1.0))
    fresh = built(ByData)
    torch.testing.assert_close(attribute(fresh, starting(1.0)), other)


def test_a_batch_that_decides_otherwise_than_its_first_sample_is_described_as_a_whole() -> None:
    x = starting(1.0)
    x[0, 0, 0] = -0.5  # the first sample by itself would have its norms before the branches
    model = built(ByData)
    assert cv.spec_of(model, x).post_norm and not cv.spec_of(deepcopy(model), x[:1]).post_norm


class Weighed(ByData):
    """The attention's branch by a number of the sample."""

    def forward(self, x: Tensor) -> Tensor:
        factor = float(x.std())
        x = self.e(x) + self.p
        for block in self.b:
            x = x + factor * block.a(block.m(x))
            x = x + block.f(block.n(x))
        return self.h(x.mean(1))


def test_a_factor_that_is_computed_is_no_layer_scale() -> None:
    model = built(Weighed)
    assert "may be another one" in cv.spec_of(model, X).blocks[0].between
    assert cv.LayerCDAM(model).attribute(X, target=1).any()
    with pytest.raises(cv.UnsupportedModelError, match="may be another one for other inputs"):
        cv.VTranM(model).attribute(X, target=1)


class Turned(nn.Module):
    """Tokens are a convolution's output by its attribute ``mT``, and no module takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.h = nn.Conv2d(3, 32, 8, 8), nn.Linear(32, 5)
        self.qkv, self.o = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x).flatten(2).mT
        q, k, v = self.qkv(F.layer_norm(x, (32,))).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + F.gelu(F.layer_norm(x, (32,)))
        return self.h(x.mean(1))


def test_an_attribute_that_turns_is_a_place() -> None:
    model, x = built(Turned), torch.randn(2, 3, 32, 32)
    assert cv.spec_of(model, x).blocks[0].entrance.label.endswith("(mT)")
    assert cv.LayerCDAM(model).attribute(x, target=1).shape == (2, 1, 4, 4)


def mixtral(experts: str) -> nn.Module:
    """Two of sixteen experts for each token."""
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 60, "head_dim": 8}
    heads = {"num_attention_heads": 3, "num_key_value_heads": 3, "num_local_experts": 16, "num_experts_per_tok": 2}
    model = MixtralForSequenceClassification(MixtralConfig(**sizes, **heads, num_labels=5, pad_token_id=0))
    model.set_experts_implementation(experts)
    return redrawn(model)


def test_a_loop_over_experts_is_refused_with_what_works() -> None:
    model, ids = mixtral("eager"), torch.arange(2, 16).view(2, 7)
    with pytest.raises(cv.TraceError, match="a loop over experts") as refused:
        cv.LayerCDAM(model).attribute(ids, target=1)
    eval(refused.value.hint.partition(" for ")[0], {"model": model})
    found = cv.LayerCDAM(model).attribute(ids, target=1)
    alone = [cv.LayerCDAM(model).attribute(row[None], target=1)[0] for row in ids]
    assert torch.allclose(found, torch.stack(alone), atol=1e-5) and found.any(1).all()
    for experts in ("batched_mm", "grouped_mm"):
        model.set_experts_implementation(experts)
        sums = cv.FullGrad(model, rule="frozen").attribute(ids, target=1).sum(1)
        assert torch.allclose(sums, model(ids).logits[:, 1], atol=1e-5)
