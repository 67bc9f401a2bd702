"""Attention is read however it is written; what cannot be read is refused by what stands in its way."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention

import captum_vit as cv
from captum_vit.models import registry
from captum_vit.trace.modes.explicit import Attention, AttentionTap
from captum_vit.trace.record.record import Want, record
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.captum_vit.trace.attentions import FORMS, Attend, B, D, H, N, d, images, plain, vit
from tests.models import CASES

METHODS = (
    "RawAttention", "AttentionRollout", "GenAtt", "DecompX", "VTranM", "TokenAblation", "PredictionMap", "PredicAtt",
    "LRP", "CAT", "AttIN", "GlobEnc", "ALTI",
)  # fmt: skip
QUICK = ("GenAtt", "DecompX", "PredictionMap", "LRP")


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spec of one's own, so that the pass of a method is what refuses."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    cv.register_spec("WrittenViT", spec=cv.Spec(family="test ViT"))


def seen_in(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Probabilities, values, contexts and the gradients at all three, of both blocks."""
    kinds = ["probs", "values", "context"]
    with undisturbed(model):
        found = record(Pass(model, (x,), (), cv.spec_of(model, x)), 1, Want(seen=kinds, grads=kinds))
    return [row[layer] for seen in (found.seen, found.grads) for row in seen.values() for layer in (0, 1)]


@pytest.mark.usefixtures("described")
@pytest.mark.parametrize("name", FORMS)
def test_what_is_seen_is_what_the_plain_form_shows(name: str) -> None:
    wanted = seen_in(vit(), images())
    found = seen_in(vit(FORMS[name]), images())
    assert [tuple(x.shape) for x in found[:6:2]] == [(B, H, N, N), (B, H, N, d), (B, H, N, d)]
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-13)


REFUSED = {
    ("heads_before_samples", "TokenAblation"),  # of two samples with two heads, in which it is found out how
    ("a_sink_that_draws_nothing", "TokenAblation"),  # what is hidden has a share of the sink's column
}


@cache
def written(attend: Attend) -> nn.Module:
    """One model for all methods: what is found in it is found once."""
    return vit(attend)


@cache
def map_of_the_plain_form(method: str) -> Tensor:
    return cv.METHODS[method](written(plain)).attribute(images(), target=1)


@pytest.mark.parametrize("method", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in METHODS])
@pytest.mark.parametrize("name", FORMS)
def test_maps_are_those_of_the_plain_form(name: str, method: str) -> None:
    if (name, method) in REFUSED:
        with pytest.raises(cv.UnsupportedModelError, match="can be taken away"):
            cv.METHODS[method](written(FORMS[name])).attribute(images(), target=1)
        return
    wanted = map_of_the_plain_form(method)
    found = cv.METHODS[method](written(FORMS[name])).attribute(images(), target=1)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10 * wanted.abs().max().item())
    assert wanted.abs().max() > 0


def heads_of_all_samples_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.permute(2, 0, 1, 3).reshape(-1, N, d) for x in (q, k, v))
    return torch.bmm(torch.bmm(q, k.mT).softmax(-1), v).view(H, -1, N, d).permute(1, 2, 0, 3)


def test_flat_heads_in_another_order_are_refused_in_a_batch_and_read_in_one_sample() -> None:
    model = vit(heads_of_all_samples_first)
    with pytest.raises(cv.TraceError, match="all samples of a head before the next head"):
        cv.RawAttention(model).attribute(images())
    torch.testing.assert_close(
        cv.GenAtt(model).attribute(images(1), target=1), cv.GenAtt(vit()).attribute(images(1), 1)
    )


def talking_heads(mix: nn.Module) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        A = torch.softmax(q @ k.mT, -1)
        return (mix(A.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) @ v).transpose(1, 2)

    return attend


def difference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    one, other = torch.softmax(q @ k.mT, -1), torch.softmax(k @ q.mT, -1)
    return ((one - 0.3 * other) @ v).transpose(1, 2)


def convolved_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    weight = torch.randn(H, H, 1, 1, dtype=q.dtype)
    return (F.conv2d(torch.softmax(q @ k.mT, -1), weight) @ v).transpose(1, 2)


def reattended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    A = torch.einsum("bhij,hg->bgij", torch.softmax(q @ k.mT, -1), torch.ones(H, H, dtype=q.dtype))
    return (A @ v).transpose(1, 2)


def scaled_by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    A = torch.softmax(q @ k.mT, -1) * torch.tensor([1.0, 0.5]).to(q)[:, None, None]
    return (A @ v).transpose(1, 2)


def scaled_in_place(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    A = torch.softmax(q @ k.mT, -1).clone()
    A[..., 0] = 0.1
    return (A @ v).transpose(1, 2)


def sharpened(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    A = torch.softmax(q @ k.mT, -1)
    return ((A / A.sum(-2, keepdim=True)) @ v).transpose(1, 2)


def sink(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    A = torch.cat([q @ k.mT, q.new_zeros(len(q), H, N, 1)], -1).softmax(-1)
    return (A[..., :-1] @ v).transpose(1, 2)


def part_of_the_keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return ((q @ k.mT).softmax(-1)[..., :-3] @ v[:, :, :-3]).transpose(1, 2)


def registers_of_keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (torch.cat([x, x.new_ones(len(x), H, 2, d)], 2) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def channels(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.permute(0, 2, 3, 1) for x in (q, k, v))  # shape: (B, H, d, N)
    return (torch.softmax(q @ k.mT, -1) @ v).permute(0, 3, 1, 2)


def over_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return (torch.softmax(q @ k.mT, -2) @ v).transpose(1, 2)


def windows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x[:, 1:].reshape(-1, 4, H, d).transpose(1, 2) for x in (q, k, v))
    context = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 16, H, d)
    return F.pad(context, (0, 0, 0, 0, 1, 0))


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return (F.elu(q) @ (F.elu(k).mT @ v)).transpose(1, 2)


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    e = (q @ k.mT).exp()
    return (e / e.sum(-1, keepdim=True) @ v).transpose(1, 2)


def twice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return plain(q, k, v) + plain(q, v, k)


OTHERS: dict[str, tuple[Attend, str]] = {
    "a linear layer over heads": (
        talking_heads(nn.Linear(H, H).double()),
        "linear .Linear in WrittenAttention. between",
    ),
    "a convolution over heads": (
        convolved_heads,
        "conv2d .WrittenAttention in WrittenBlock. between the softmax and the",
    ),
    "a product over heads": (reattended, "einsum over other axes than one of keys .WrittenAttention in WrittenBlock."),
    "a difference": (difference, r"mul \(.*\) and sub \(WrittenAttention in WrittenBlock\) between"),
    "a factor for each head": (scaled_by_head, r"_*mul_* .WrittenAttention"),
    "entries written over": (scaled_in_place, "__setitem__ .WrittenAttention"),
    "sums over queries": (sharpened, r"\w*div\w* .WrittenAttention"),
    "fewer keys": (part_of_the_keys, "14 keys for 17 tokens"),
    "more keys": (registers_of_keys, "19 keys for 17 tokens"),
    "channels": (channels, "6 keys for 17 tokens"),
    "a softmax over queries": (over_queries, "over other axes than one of keys"),
    "windows": (windows, r"\(12, 2, ., 4\) in block ., where 17 tokens enter"),
    "no softmax": (linear_attention, "no softmax over tokens"),
    "a softmax by hand": (by_hand, "no softmax over tokens"),
}


@pytest.mark.usefixtures("described")
@pytest.mark.parametrize("name", OTHERS)
def test_what_stands_between_softmax_and_values_is_named(name: str) -> None:
    attend, words = OTHERS[name]
    model = vit(attend)
    for method in ("RawAttention", "GenAtt", "VTranM"):
        with pytest.raises(cv.TraceError, match=words):
            cv.METHODS[method](model).attribute(images(), target=1)
    assert cv.LayerCDAM(model).attribute(images(), target=1).shape == (B, 1, 4, 4)


@pytest.mark.parametrize("name", OTHERS)
def test_it_is_refused_without_a_spec_too(name: str) -> None:
    model = vit(OTHERS[name][0])
    for method in ("RawAttention", "VTranM"):
        with pytest.raises(cv.CaptumVitError, match=r"between the softmax|places attend|block|no attention"):
            cv.METHODS[method](model).attribute(images(), target=1)


def test_what_a_sink_draws_belongs_to_no_token() -> None:
    """A learned column of the softmax, without a value: rows of the attention sum to less than 1."""
    model, x = written(sink), images()
    A = cv.RawAttention(model, output="tokens").attribute(x)
    assert (A.sum(1) < 0.99).all()
    for rule in ("frozen", "libra"):
        S = cv.FullGrad(model, rule=rule, output="tokens").attribute(x, target=1)
        torch.testing.assert_close(S.sum(1), model(x)[:, 1].detach(), rtol=1e-9, atol=1e-12)
    for name in METHODS:
        if name == "TokenAblation":  # the softmax has another column than one for each token
            with pytest.raises(cv.UnsupportedModelError, match="hidden from all queries"):
                cv.METHODS[name](model).attribute(x, target=1)
        else:
            assert cv.METHODS[name](model).attribute(x, target=1).any(), name


def test_attention_is_looked_for_where_a_block_attends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the blocks that are watched, in the module that attends: any other torch call would cost time for nothing."""
    case, seen, looks = CASES["timm ViT"](), [], AttentionTap.__torch_function__

    def counted(tap: AttentionTap, func: Any, *given: Any) -> Any:
        seen.append(func)
        return looks(tap, func, *given)

    monkeypatch.setattr(AttentionTap, "__torch_function__", counted)
    cv.RawAttention(case.forward_func).attribute(case.inputs)  # of the last block
    assert seen.count(F.scaled_dot_product_attention) == 1 and F.gelu not in seen
    assert all("forward" not in vars(module) for module in case.forward_func.modules())


@pytest.mark.usefixtures("described")
def test_two_attentions_in_a_block_are_refused() -> None:
    with pytest.raises(cv.UnsupportedModelError, match="Got: 4, in which tokens attend"):
        cv.RawAttention(vit(twice)).attribute(images())


def kernel_of_its_own(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return flex_attention(q, k, v).transpose(1, 2)


@pytest.mark.slow
@pytest.mark.usefixtures("described")
def test_another_kernel_is_named() -> None:
    with pytest.raises(cv.TraceError, match=r"flex_attention.* in its place"):
        cv.RawAttention(vit(kernel_of_its_own)).attribute(images())


@pytest.mark.usefixtures("described")
@pytest.mark.parametrize("weighted", [False, True])
def test_kernels_with_masks_give_the_scores_of_the_plain_form(weighted: bool) -> None:
    mask = torch.rand(N, N, generator=torch.Generator().manual_seed(3)) > 0.4
    mask |= torch.eye(N, dtype=torch.bool)
    added = torch.zeros(N, N).double().masked_fill(~mask, -torch.inf)

    def written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return (torch.softmax(q @ k.mT + added, -1) @ v).transpose(1, 2)

    def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        given = added if weighted else mask
        return F.scaled_dot_product_attention(q, k, v, attn_mask=given, scale=1.0).transpose(1, 2)

    for x, y in zip(seen_in(vit(fused), images()), seen_in(vit(written), images()), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-13)


def test_a_single_key_is_one_too() -> None:
    q, k, v = (torch.randn(2, 1, H, d) for _ in range(3))
    seen: list[Attention] = []
    for name in ("einsum_of_heads_behind_queries", "einsum_with_keys_before_queries", "values_on_the_left"):
        with AttentionTap(seen.append, batch=2):
            FORMS[name](q, k, v)
    with AttentionTap(seen.append, batch=2):
        plain(q, k, v)
    assert [tuple(a.context.shape) for a in seen] == [(2, H, 1, d)] * 4
    assert all(torch.equal(a.values, v.transpose(1, 2)) for a in seen)


def softmax_in_float32(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return (F.softmax(q @ k.mT, -1, dtype=torch.float32).to(q.dtype) @ v).transpose(1, 2)


@pytest.mark.usefixtures("described")
def test_a_softmax_in_float32_is_read_where_the_model_is_in_half_precision() -> None:
    x = images().bfloat16()
    found, wanted = (seen_in(vit(attend).bfloat16(), x) for attend in (softmax_in_float32, FORMS["kernel"]))
    assert {y.dtype for y in found} == {torch.bfloat16}
    for y, z in zip(found, wanted, strict=True):
        torch.testing.assert_close(y, z, rtol=0.1, atol=0.05 * z.abs().max().item())


def test_the_packed_layers_of_pytorch_are_unpacked_and_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(30, D), nn.Linear(D, 5)
            layer = nn.TransformerEncoderLayer(D, H, 20, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.encoder(self.embed(ids), src_key_padding_mask=ids == 0)[:, 0])

    parts = {"out_proj": "self_attn.out_proj", "mid": "linear1", "first_norm": "norm1", "last_norm": "norm2"}
    cv.register_spec("Encoder", spec=cv.Spec("encoder.layers", "self_attn", **parts))
    torch.manual_seed(0)
    model, ids = Encoder().eval(), torch.tensor([[5, 6, 7, 8, 9], [3, 4, 2, 0, 0]])
    assert torch.backends.mha.get_fastpath_enabled()
    for method in ("LayerCDAM", "RawAttention", "AttIN", "GenAtt", "PredictionMap", "DecompX"):
        both = cv.METHODS[method](model).attribute(ids, target=1)
        alone = cv.METHODS[method](model).attribute(ids[1:, :3], target=1)
        torch.testing.assert_close(both[1, :3], alone[0], rtol=1e-4, atol=1e-6)
        assert torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(cv.InputError):
        cv.RawAttention(model).attribute(ids + 40)
    assert torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        cv.RawAttention(model).attribute(ids)
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
