"""Attention some rows at a time is attention written out whole, and takes the memory of a backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.trace.modes.by_rows import ByRows, Gradients, Shown, by_rows
from captum_vit.trace.modes.explicit import explicit
from captum_vit.trace.record.backward_pass import BackwardPass
from quantus_metrics.benchmark.memory import peak_bytes
from tests.captum_vit.attr.test_growth import built
from tests.contracts.pairs import in_float64
from tests.models import redrawn

FEW = 0.01  # MiB: a few rows of the maps of these models
CPU = torch.device("cpu")
METHODS: dict[str, Callable[[nn.Module], cv.TokenAttribution]] = {
    "GenAtt": cv.GenAtt,
    "PLUS(GenAtt)": lambda model: cv.PLUS(cv.GenAtt(model)),
    "GradSAM of all rows": lambda model: cv.GradSAM(model, rows="mean"),
    "VTranM": cv.VTranM,
    "TokenTM": lambda model: cv.VTranM(model, variant="tokentm"),
    "AttnGrad": lambda model: cv.AttnGrad(model, 0, heads="abs"),
    "SkipPLUS(AttCAM)": lambda model: cv.SkipPLUS(cv.AttCAM(model)),
    "AttCAT": lambda model: cv.AttCAT(model, alignment="input"),
    "AttentionRollout": cv.AttentionRollout,
    "AttIN": lambda model: cv.AttIN(model, aggregation="rollout"),
    "GlobEnc": cv.GlobEnc,
    "ALTI": cv.ALTI,
}
MODELS = [
    "timm ViT", "timm ViT mean, no CLS", "timm SigLIP", "timm ViT average and maximum", "timm EVA-02",
    "timm relative positions", "timm ViT qk-norm", "HF BERT", "HF CLIP words", "HF ModernBERT", "HF DeBERTa-v2",
]  # fmt: skip


def whole_and_by_rows(explain: Callable[[], Any]) -> tuple[Tensor, Tensor]:
    found = []
    for memory in (math.inf, FEW, 1000 * FEW):
        with cv.attention_memory(memory):
            found.append(explain())
    assert torch.equal(found[0], found[2])  # short
    return found[0], found[1]


def close(found: Tensor, wanted: Tensor) -> None:
    assert wanted.any()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10 * float(wanted.detach().abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_maps_are_those_of_attention_written_out(name: str) -> None:
    case = in_float64(name)
    for make in METHODS.values():
        method = make(case.forward_func)
        args = case.additional_forward_args or None
        close(*whole_and_by_rows(lambda: method.attribute(case.inputs, case.target, args))[::-1])  # noqa: B023


def test_keys_that_heads_share() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = transformers.LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=50, pad_token_id=0)
    model = redrawn(transformers.LlamaForSequenceClassification(config)).double()
    ids, mask = torch.randint(1, 50, (2, 7)), torch.ones(2, 7).long()
    ids[1, 5:] = mask[1, 5:] = 0
    for make in METHODS.values():
        close(*whole_and_by_rows(lambda: make(model).attribute(ids, 1, mask))[::-1])  # noqa: B023


B, H, N, D = 2, 4, 7, 3
SEEN = torch.rand(B, 1, N, N).gt(0.3) & torch.arange(N).ne(2).view(N, 1)  # the query 2 sees no key
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.3},
    "masked": {"attn_mask": SEEN},
    "padded": {"attn_mask": torch.arange(N).lt(5).view(1, 1, 1, N)},
    "biased": {"attn_mask": torch.randn(H, N, N, dtype=torch.float64)},
    "biased by key": {"attn_mask": torch.randn(B, H, 1, N, dtype=torch.float64)},
    "grouped": {"enable_gqa": True},
}


@pytest.mark.parametrize("name", FORMS)
def test_what_the_backward_pass_shows_and_hands_on(name: str) -> None:
    """Probabilities and their gradients; and the gradients of all that attention is made of."""
    options = dict(FORMS[name])
    q, k, v = (torch.randn(B, h, N, D).double().requires_grad_() for h in (H, *[2 if name == "grouped" else H] * 2))
    leaves = [q, k, v]
    if name.startswith("biased"):
        options["attn_mask"] = options["attn_mask"].clone().requires_grad_()
        leaves.append(options["attn_mask"])
    g = torch.randn(B, H, N, D).double()
    g[:, :, [0, 6]] = 0
    written = explicit(q, k, v, **options)
    G, *wanted = torch.autograd.grad((written.context * g).sum(), [written.probs, *leaves])

    shown, seen = Shown(), []
    with cv.attention_memory(4 * 3 * B * H * N * 8 / 2**20):
        rows, context = by_rows(shown, False, q, k, v, **options)
    shown.look = lambda of, now: seen.extend(now.chunks())
    found = torch.autograd.grad((context * g).sum(), leaves)
    assert [some for some, _, _ in seen] == [slice(1, 4), slice(4, 6)] and rows.grad is not None
    close(context, written.context)
    for some, A, of_A in seen:
        close(A, written.probs[:, :, some])
        close(of_A, G[:, :, some])
    for one, other in zip(found, wanted, strict=True):
        close(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_gradients_are_as_good_as_the_kernels(dtype: torch.dtype) -> None:
    exact = [torch.randn(B, H, N, D) for _ in range(4)]
    half = [x.to(dtype).requires_grad_() for x in exact]
    wide = [x.detach().double().requires_grad_() for x in half]

    def gradients(attend: Callable[..., Tensor], tensors: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad((attend(*tensors[:3]) * tensors[3].detach()).sum(), tensors[:3])

    kernel = F.scaled_dot_product_attention
    wanted, theirs = gradients(kernel, wide), gradients(kernel, half)
    ours = gradients(lambda *qkv: by_rows(Shown(), False, *qkv)[1], half)
    for x, one, other in zip(wanted, ours, theirs, strict=True):
        assert (one - x).norm() <= 2 * (other - x).norm() + torch.finfo(dtype).eps * x.norm()


def test_where_the_head_reads_one_row_the_last_block_shows_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    add = Gradients.add

    def counted(self: Gradients, some: slice, A: Tensor, G: Tensor) -> None:
        shown.append(A.shape[2])
        add(self, some, A, G)

    monkeypatch.setattr(Gradients, "add", counted)
    model, x = built(32), torch.randn(3, 3, 32, 32)
    with cv.attention_memory(1):
        cv.AttCAT(model, alignment="input").attribute(x, target=1)
        assert shown == [65, 65]  # it reads the attention of all rows
        shown.clear()
        cv.GenAtt(model).attribute(x, target=1)
    assert shown == [1]  # of the last block; in front of the first one nothing is needed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::captum_vit.ZeroMapWarning")
@pytest.mark.parametrize("name", ["GenAtt", "GradSAM", "VTranM", "AttCAT", "AttentionRollout"])
def test_memory_is_that_of_a_backward_pass_and_grows_with_the_tokens(name: str) -> None:
    taken = {}
    for size in (32, 64):
        model, x = built(size), torch.randn(1, 3, size, size)
        for other in (name, "CAT"):
            method = cv.METHODS[other](model)
            with cv.attention_memory(0.05):
                method.attribute(x, target=1)
                taken[other, size] = peak_bytes(lambda: method.attribute(x, target=1), CPU)  # noqa: B023
    assert taken[name, 64] <= 1.1 * taken["CAT", 64]
    assert taken[name, 64] <= 4.4 * taken[name, 32]


@pytest.mark.parametrize("memory", [0, -1, math.nan, "16", None])
def test_memory_that_is_none_is_refused(memory: Any) -> None:
    with pytest.raises(cv.OptionError, match="mib"), cv.attention_memory(memory):
        pass


def test_memory_below_one_row_is_refused_and_the_advice_works() -> None:
    model, x = built(64), torch.randn(3, 3, 64, 64)
    wanted = r"one row.*0\.0353 MiB for 3 samples, 3 heads, 257 keys"
    with cv.attention_memory(0.03), pytest.raises(cv.OptionError, match=wanted):
        cv.GenAtt(model).attribute(x, target=1)
    with cv.attention_memory(1):
        assert cv.GenAtt(model).attribute(x, target=1).any()


def test_keys_that_are_written_over_are_refused_and_the_advice_works() -> None:
    model, x = built(64), torch.randn(3, 3, 64, 64)
    fused = F.scaled_dot_product_attention

    def forward(self: Any, x: Tensor, **options: Any) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        context = fused(q, k, v)
        k.mul_(2)
        return self.proj(context.transpose(1, 2).flatten(2))

    for block in model.blocks:
        block.attn.forward = MethodType(forward, block.attn)
    with cv.attention_memory(1), pytest.raises(cv.UnsupportedModelError, match="in place") as error:
        cv.AttentionRollout(model).attribute(x)
    assert "attention_memory(math.inf)" in str(error.value)
    with cv.attention_memory(math.inf):
        assert cv.AttentionRollout(model).attribute(x).any()


def test_blocks_in_another_order_are_refused() -> None:
    x = torch.randn(B, H, N, D).requires_grad_()
    shown = Shown()
    first, y = by_rows(shown, False, x, x, x)
    second, z = by_rows(shown, False, y, y, y)
    attention: dict[int, ByRows] = {0: second, 1: first}
    backward = BackwardPass(z.sum().view(1), {}, lambda x: x, attention, shown)
    with pytest.raises(cv.TraceError, match="block 1 after block 0"):
        backward.run()
    assert shown.look is None
