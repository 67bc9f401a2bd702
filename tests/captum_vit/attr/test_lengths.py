"""Parts of the stream: what they sum to, which of them are computed, and how much of them exists at a time."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import captum_vit as cv
from captum_vit.attr.lengths import shares
from captum_vit.models import registry
from captum_vit.trace.record import parts
from captum_vit.trace.record.frozen_norm import frozen_norm
from captum_vit.trace.record.parts import Parts, mid_kinds, stream_parts
from captum_vit.trace.record.record import Record, Want, record
from captum_vit.trace.record.written_by_heads import output_map
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.contracts.pairs import in_float64
from tests.models import CASES, redrawn, slow_beyond_slice
from tests.models.specs import BERT
from tests.references.models import reference_bert, reference_images, reference_sentences, reference_vit

DECOMPOSABLE = [name for name in CASES if name != "timm EVA-02 CLIP"]  # it normalises the merged heads
METHODS = (cv.AttIN, cv.GlobEnc, cv.ALTI)


@cache
def seen(name: str) -> Record:
    """A pass in float64."""
    model, inputs, args, target = in_float64(name)
    transformer = cv.spec_of(model, inputs, args)
    want = Want(seen=[*mid_kinds(transformer), "mid"], row="outputs")
    with undisturbed(model):
        return record(Pass(model, (inputs,), args, transformer), target, want)


def whole(T: Parts) -> Tensor:  # shape: (B, N, N, D)
    """Every vector, as the package never forms them."""
    return torch.einsum("bjrk,bjkd->brjd", T.coefficients(torch.arange(T.n_tokens)), T.vectors(slice(None)))


@pytest.mark.parametrize("name", slow_beyond_slice(DECOMPOSABLE))
def test_parts_and_biases_sum_to_the_stream_behind_the_attention(name: str) -> None:
    found = seen(name)
    for layer, block in enumerate(found.transformer.blocks):
        total = whole(stream_parts(found, layer)).sum(2)
        bias = getattr(block.out_proj, "bias", None)
        bias = total.new_zeros(total.shape[-1]) if bias is None else bias.detach()
        if block.attn_scale is not None:
            bias = bias * block.attn_scale().detach()
        if found.transformer.post_norm:
            norm = block.first_norm
            frozen = frozen_norm(norm, found.seen["before_mid"][layer])
            bias = frozen.unscaled(bias) * frozen.scale.unsqueeze(-1) + norm.bias.detach()
        torch.testing.assert_close(total + bias, found.seen["mid"][layer], rtol=1e-10, atol=1e-10)


def test_parts_behind_the_second_norm_sum_to_what_it_makes_of_them() -> None:
    """GlobEnc on BERT: LN2(LN1(residual + attention)), with the feed-forward left out of the parts alone."""
    model, (ids, mask) = reference_bert(), reference_sentences()
    transformer = cv.spec_of(model)
    with undisturbed(model):
        found = record(
            Pass(model, (ids,), (mask,), transformer), 0, Want(seen=[*mid_kinds(transformer), "before_norm"])
        )
    for layer, block in enumerate(model.bert.encoder.layer):
        T = stream_parts(found, layer)
        ln2, before = block.output.LayerNorm, found.seen["before_norm"][layer]
        feed_forward = before - whole(T).sum(2)  # and the biases
        total = whole(T.through(frozen_norm(ln2, before))).sum(2)
        deviation = (before.var(-1, correction=0, keepdim=True) + ln2.eps).sqrt()
        rest = (feed_forward - feed_forward.mean(-1, keepdim=True)) / deviation * ln2.weight + ln2.bias
        torch.testing.assert_close(total + rest.detach(), ln2(before).detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("name", DECOMPOSABLE)
def test_altis_rows_are_shares_of_one(name: str, norm: str) -> None:
    found = seen(name)
    for layer in found.layers:
        T = stream_parts(found, layer)
        matrix = cv.ALTI(CASES[name]().forward_func, norm=norm)._matrix(found, layer, T, torch.arange(T.n_tokens))
        assert (matrix >= 0).all()
        lonely = (matrix == 0).all(-1)  # every part lies farther from the sum than nothing does
        assert lonely.sum() <= 1
        torch.testing.assert_close(matrix.sum(-1), 1.0 - lonely.double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_plus_is_the_sum_of_the_maps_of_single_blocks(method: Any) -> None:
    model, images = reference_vit(), reference_images()
    single = [method(model, [layer], aggregation="last").attribute(images) for layer in range(3)]
    options = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(cv.PLUS(method(model)).attribute(images), sum(single), **options)
    torch.testing.assert_close(method(model, aggregation="sum").attribute(images), sum(single), **options)
    torch.testing.assert_close(cv.SkipPLUS(method(model)).attribute(images), single[2], **options)
    torch.testing.assert_close(
        method(model, [0, -1], aggregation="sum").attribute(images), single[0] + single[2], **options
    )


def test_patches_get_from_the_stream_only_what_attention_sends_where_cls_is_read() -> None:
    model, images = reference_vit(), reference_images()
    parts, attention = (cv.PLUS(method(model)).attribute(images, 0) for method in (cv.GlobEnc, cv.AttIN))
    torch.testing.assert_close(parts, attention, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_rollout_over_chosen_blocks_passes_the_others_by(method: Any) -> None:
    model, images = reference_vit(), reference_images()
    whole_way, last, one = (
        method(model, layers, aggregation="rollout", output="tokens").attribute(images) for layers in (None, [2], [0])
    )
    single = method(model, [2], aggregation="last", output="tokens").attribute(images)
    single = single / single.sum(1, keepdim=True)
    if method is cv.AttIN:  # in halves with the residual stream
        single = (single + torch.eye(17, dtype=single.dtype)[0]) / 2
    torch.testing.assert_close(last, single, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(whole_way, last, rtol=1e-3) and not torch.allclose(one, last, rtol=1e-3)


def test_rows_of_one_value_each_are_attention() -> None:
    """Where all values of a block are one vector, AttIN is attention times its length: the heads' sum."""
    model, images = reference_vit(), reference_images()
    qkv, proj = model.blocks[-1].attn.qkv, model.blocks[-1].attn.proj
    with torch.no_grad():
        qkv.weight[-24:] = 0
        proj.weight.copy_(proj.weight[:, :8].repeat(1, 3))  # each head writes the same way
        qkv.bias[-24:] = qkv.bias[-24:-16].repeat(3)
    sent = (qkv.bias[-8:] @ output_map(cv.spec_of(model), 2, torch.empty(0, 3, 0, 8).double())[0][0]).norm().item()
    attention = cv.RawAttention(model).attribute(images)
    torch.testing.assert_close(cv.AttIN(model).attribute(images), 3 * sent * attention, rtol=1e-10, atol=1e-12)


class Largest(TorchDispatchMode):
    """The number of values of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        if isinstance(result, Tensor):
            self.values = max(self.values, result.numel())
        return result


@pytest.mark.parametrize("options", [{}, {"aggregation": "sum"}])
@pytest.mark.parametrize("method", [cv.AttIN, cv.GlobEnc, cv.ALTI, lambda *a, **k: cv.ALTI(*a, **k, norm="l2")])
def test_the_vector_of_every_pair_never_exists(method: Any, options: dict[str, str]) -> None:
    torch.manual_seed(0)
    size = {"img_size": 64, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2, "num_classes": 3}
    model, images = redrawn(VisionTransformer(**size)), torch.randn(2, 3, 64, 64)
    n, d, vectors = 65, 48, 3  # of each token: one from each head, and its own
    method(model, **options).attribute(images)  # the layout is measured once
    with Largest() as largest:
        method(model, **options).attribute(images)
    assert largest.values <= 2 * n * max(parts.CHUNK * d, n * vectors) < 2 * n * n * d / 8


@pytest.mark.parametrize("method", METHODS)
def test_the_size_of_chunks_changes_nothing(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = reference_vit(), reference_images()
    maps = []
    for chunk in (0, 3, 10_000):
        monkeypatch.setattr(parts, "CHUNK", chunk)
        maps.append(method(model, aggregation="rollout").attribute(images))
    for found in maps[1:]:
        torch.testing.assert_close(found, maps[0], rtol=1e-12, atol=1e-12)


def test_long_products_of_large_lengths_stay_finite() -> None:
    """The plain product of 3 such matrices is beyond float32."""
    model, images = reference_vit().float(), reference_images().float()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.proj.weight.mul_(1e15)
    found = cv.GlobEnc(model, output="tokens").attribute(images)
    assert found.isfinite().all() and torch.allclose(found.sum(1), torch.ones(2))


def test_a_row_without_any_share_stays_zero() -> None:
    rows = torch.tensor([[0.0, 0.0], [1.0, 3.0]])
    assert torch.equal(shares(rows), torch.tensor([[0.0, 0.0], [0.25, 0.75]]))


@pytest.mark.parametrize("method", METHODS)
def test_wrong_options_are_refused(method: Any) -> None:
    model, images = reference_vit(), reference_images()
    with pytest.raises(cv.OptionError, match="aggregation"):
        method(model, aggregation="mean")
    with pytest.raises(cv.OptionError, match="At least one layer"):
        method(model, []).attribute(images)
    with pytest.raises(cv.LayerError):
        method(model, [3]).attribute(images)
    with pytest.raises(cv.OptionError, match="norm"):
        cv.ALTI(model, norm="l3")


def test_a_post_norm_block_without_a_named_first_norm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (ids, mask) = reference_bert(), reference_sentences()
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    cv.register_spec("transformers.BertModel", spec=replace(BERT, first_norm=None))
    with pytest.raises(cv.UnsupportedModelError, match="first_norm"):
        cv.GlobEnc(model).attribute(ids, additional_forward_args=(mask,))
    assert cv.AttIN(model).attribute(ids, additional_forward_args=(mask,)).any()


class MeanOne(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.abs().mean(-1, keepdim=True)


def test_a_norm_of_another_kind_is_refused() -> None:
    model, images = reference_vit(), reference_images()
    for block in model.blocks:
        block.norm2 = MeanOne().eval()
    with pytest.raises(cv.UnsupportedModelError, match="no module is the norm"):
        cv.GlobEnc(model, include_ln2=True).attribute(images)
    assert cv.GlobEnc(model).attribute(images).any()


@pytest.mark.parametrize(("make", "eps"), [(nn.RMSNorm, None), (nn.RMSNorm, 1e-3), (timm.layers.RmsNorm, 1e-3)])
def test_root_mean_square_norms_pass_parts_on(make: Any, eps: float | None) -> None:
    x = reference_images().flatten(2)[..., :24]  # shape: (2, 3, 24)
    norm = make(24, eps=eps).double()
    nn.init.uniform_(norm.weight)
    frozen = frozen_norm(norm, x)
    torch.testing.assert_close(frozen.unscaled(x) * frozen.scale.unsqueeze(-1), norm(x).detach(), rtol=1e-12, atol=0)
