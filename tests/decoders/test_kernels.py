"""Kernels that no gradient can pass, and weights in eight bits: refused with what to do, never a map of the rest."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

import captum_vit as cv
from tests.decoders.families import decoder

N = 6  # the prompt
IDS = torch.randint(3, 60, (1, 9), generator=torch.Generator().manual_seed(0))
SDPA = 'model.set_attn_implementation("sdpa")'


@torch.library.custom_op("tests_decoders::attention", mutates_args=())
def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def of_a_library(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **_: Any) -> tuple[Tensor, None]:
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    return kernel(q, k, v).transpose(1, 2).contiguous(), None


@torch.no_grad()
def without_graph(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """As of a kernel that PyTorch does not know: its result has no graph."""
    return of_a_library(*args, **kwargs)


@pytest.mark.parametrize("method", ["DecompX", "CAT", "LayerCDAM", "GenAtt"])
def test_a_kernel_without_a_derivative_is_refused(method: str) -> None:
    AttentionInterface.register("of_a_library", of_a_library)
    model = copy.deepcopy(decoder("Llama"))
    model.set_attn_implementation("of_a_library")
    explainer = cv.METHODS[method](cv.Answer(model, N))
    with pytest.raises(cv.UnsupportedModelError, match="no attention" if method == "GenAtt" else "derivative|autograd"):
        explainer.attribute(IDS, target=1)
    model.set_attn_implementation("sdpa")
    assert cv.METHODS[method](cv.Answer(model, N)).attribute(IDS, target=1).any()


def test_what_a_kernel_hides_from_gradients_is_no_constant() -> None:
    AttentionInterface.register("without_graph", without_graph)
    model = copy.deepcopy(decoder("Llama"))
    model.set_attn_implementation("without_graph")
    with pytest.raises(cv.UnsupportedModelError, match="added in LlamaDecoderLayer") as refused:
        cv.DecompX(cv.Answer(model, N)).attribute(IDS, target=1)
    assert SDPA in refused.value.hint


@pytest.mark.filterwarnings("ignore")  # of torch, about its own quantisation
def test_weights_in_eight_bits_return_no_gradient() -> None:
    whole = copy.deepcopy(decoder("Llama")).float()
    model = torch.ao.quantization.quantize_dynamic(whole, {nn.Linear}, dtype=torch.qint8).eval()
    answer = cv.Answer(model, N)
    for method in ("DecompX", "FullGrad", "LayerCDAM", "GenAtt"):
        with pytest.raises(cv.ModelStateError, match="returns none") as refused:
            cv.METHODS[method](answer).attribute(IDS, target=1)
    assert "PredictionMap" in refused.value.hint
    assert cv.PredictionMap(answer).attribute(IDS, target=1).any()
