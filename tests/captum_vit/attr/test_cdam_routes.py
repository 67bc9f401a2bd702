"""The CLS tail is a short way to the same numbers: held to the general route, and to a loop, on every model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.models.output import scores_of
from captum_vit.trace.replay.cls_tail import ClsTail
from captum_vit.trace.replay.reading import Reading
from captum_vit.trace.replay.replay import Replay
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.contracts.pairs import in_float64
from tests.models import CASES, Case, slow_beyond_slice

# Read at CLS alone, with plain keys and values: the others mix rows, rotate or normalise keys, or hide some.
SHORT = {
    "timm ViT", "timm ViT registers", "timm ViT LayerScale", "timm ViT non-square", "timm ViT dynamic size",
    "timm CLIP ViT", "timm DeiT-3", "timm DINOv2", "timm DINOv2 registers", "HF ViT", "HF DeiT", "HF BEiT CLS",
    "HF CLIP", "torchvision ViT", "open_clip", "timm ViT SwiGLU", "timm ViT RMSNorm",
}  # fmt: skip
GENERAL = {"grad_kwargs": {"allow_unused": True}}  # what autograd is asked in any case: the tail takes no such orders


def double(name: str) -> Case:
    """A case in double precision, on a copy that a test may spoil."""
    case = in_float64(name)
    return case._replace(forward_func=copy.deepcopy(case.forward_func))


def behind(case: Case) -> ClsTail | Replay:
    with undisturbed(case.forward_func):
        return Reading(Pass(case.forward_func, (case.inputs,), case.additional_forward_args), None).walk()[1]


def explain(made: cv.TokenAttribution, case: Case, /, **options) -> Tensor:
    made.output = "tokens"
    return made.attribute(
        case.inputs, target=case.target, additional_forward_args=case.additional_forward_args, **options
    )


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-12) -> None:
    assert found.shape == wanted.shape
    error = (found - wanted).abs().max() / wanted.abs().max()
    assert error <= tolerance, f"off by {error:.1e}"


def site(case: Case) -> tuple[nn.Module, nn.Module]:
    """The module whose input is read, and the last block."""
    transformer = cv.spec_of(case.forward_func)
    block = transformer.blocks[-1]
    return block.attn_in.module, block.module


class Loop:
    """The score as a function of what the last block's attention reads, by a hook and a pass of the whole model."""

    def __init__(self, case: Case) -> None:
        self.case, self.read = case, site(case)[0]
        with torch.no_grad():
            self.tokens = self.put(None)[1]

    def put(self, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []

        def swap(module, args, kwargs):
            old = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
            seen.append(old)
            if tokens is None:
                return None
            new = tuple(tokens if x is old else x for x in args)
            return new, {key: tokens if x is old else x for key, x in kwargs.items()}

        handle = self.read.register_forward_pre_hook(swap, with_kwargs=True)
        output = self.case.forward_func(self.case.inputs, *self.case.additional_forward_args)
        handle.remove()
        output = scores_of(output)
        return output[torch.arange(len(output)), torch.tensor(self.case.target)], seen[0]

    def gradient(self, tokens: Tensor) -> Tensor:
        leaf = tokens.clone().requires_grad_()
        return torch.autograd.grad(self.put(leaf)[0].sum(), leaf)[0]


@pytest.mark.parametrize("name", slow_beyond_slice(CASES))
def test_the_route_is_chosen_by_what_the_model_computes(name):
    assert isinstance(behind(in_float64(name)), ClsTail) == (name in SHORT)


@pytest.mark.parametrize("name", slow_beyond_slice(CASES))
def test_cdam_is_the_loop(name):
    case = in_float64(name)
    loop = Loop(case)
    wanted = (loop.tokens * loop.gradient(loop.tokens)).sum(-1)
    close(silent(explain(cv.LayerCDAM(case.forward_func), case), case), silent(wanted, case))
    close(explain(cv.LayerCDAM(case.forward_func), case, **GENERAL), silent(wanted, case))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_integrated_cdam_is_the_loop(name):
    case = in_float64(name)
    loop = Loop(case)
    wanted = sum(loop.tokens * loop.gradient(loop.tokens * k / 4) for k in range(1, 5)).sum(-1) / 4
    method = cv.LayerIntegratedCDAM(case.forward_func)
    close(explain(method, case, n_steps=4), silent(wanted, case))
    close(explain(method, case, n_steps=4, internal_batch_size=6, **GENERAL), silent(wanted, case))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_smooth_cdam_is_the_loop(name):
    case = in_float64(name)
    loop = Loop(case)
    draw = torch.Generator().manual_seed(5)
    noisy = [loop.tokens + torch.empty_like(loop.tokens).normal_(std=0.3, generator=draw) for _ in range(3)]
    wanted = sum(t * loop.gradient(t) for t in noisy).sum(-1) / 3
    for options in ({}, {"internal_batch_size": 6, **GENERAL}):
        draw = torch.Generator().manual_seed(5)
        found = explain(cv.LayerSmoothCDAM(case.forward_func), case, n_samples=3, stdev=0.3, generator=draw, **options)
        close(found, silent(wanted, case))


def silent(relevance: Tensor, case: Case) -> Tensor:
    """Padding gets zero."""
    if case.inputs.is_floating_point():
        return relevance
    return relevance * case.additional_forward_args[0]


# -- what must not take the short way --------------------------------------------------------------------------


class LowRank(nn.Module):
    """A layer with a low-rank update beside it, as LoRA adds."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        down, up = torch.randn(2, layer.in_features), torch.randn(layer.out_features, 2)
        self.update = nn.Parameter((up @ down).double())

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x @ self.update.T


def with_lora(model: nn.Module) -> None:
    model.blocks[-1].attn.qkv = LowRank(model.blocks[-1].attn.qkv).eval()


def with_eager_attention(model: nn.Module) -> None:
    model.blocks[-1].attn.fused_attn = False


def with_a_hook(model: nn.Module) -> None:
    model.blocks[-1].attn.qkv.register_forward_hook(lambda module, args, output: output.roll(1, 1))


def with_a_hook_behind(model: nn.Module) -> None:
    model.norm.register_forward_pre_hook(lambda module, args: (args[0] - args[0].mean(1, keepdim=True),))


def with_a_forward_of_its_own(model: nn.Module) -> None:
    own = model.blocks[-1].attn.forward
    model.blocks[-1].attn.forward = lambda x, **kwargs: own(x.flip(-1), **kwargs)


def with_a_mask(model: nn.Module) -> None:
    mask = torch.zeros(17, 17, dtype=torch.float64).index_fill(1, torch.tensor([4]), -1e9)
    model.blocks[-1].attn = Masked(model.blocks[-1].attn, mask).eval()


class Masked(nn.Module):
    def __init__(self, attn: nn.Module, mask: Tensor) -> None:
        super().__init__()
        self.attn, self.mask = attn, mask

    def forward(self, x: Tensor, **kwargs) -> Tensor:
        return self.attn(x, attn_mask=self.mask)


SPOILED = [with_lora, with_eager_attention, with_a_hook, with_a_hook_behind, with_a_forward_of_its_own, with_a_mask]


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_changed_model_takes_the_general_route(spoil):
    case = double("timm ViT")
    torch.manual_seed(0)
    spoil(case.forward_func)
    assert isinstance(behind(case), Replay)
    loop = Loop(case)
    close(explain(cv.LayerCDAM(case.forward_func), case), (loop.tokens * loop.gradient(loop.tokens)).sum(-1))


def test_other_blocks_and_literal_layers_take_the_general_route():
    case = double("timm ViT")
    method = cv.LayerIntegratedCDAM(case.forward_func, output="tokens")
    last = explain(method, case, n_steps=3)
    for layer in (case.forward_func.blocks[-1].norm1, "blocks.2.norm1", 2):
        close(explain(cv.LayerIntegratedCDAM(case.forward_func, layer), case, n_steps=3), last)
    assert not torch.allclose(explain(cv.LayerIntegratedCDAM(case.forward_func, 1), case, n_steps=3), last)


def test_the_last_block_runs_for_one_sample_alone():
    """What the saving rests on: fully connected layers of the last block see rows, not sequences."""
    case = double("timm ViT")
    seen = []
    own = case.forward_func.blocks[-1].mlp.fc1.weight

    class Count(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.nn.functional.linear and args[1] is own:
                seen.append(args[0].shape[:-1].numel())
            return func(*args, **(kwargs or {}))

    cv.spec_of(case.forward_func, case.inputs)  # the first pass finds the blocks
    with Count():
        explain(cv.LayerIntegratedCDAM(case.forward_func), case)
    assert seen == [17, 3, 150]  # the first sample's sequence; CLS rows of three samples; of 50 steps each


def test_a_token_that_nobody_attends_to_scores_zero():
    case = double("timm ViT")
    with_a_mask(case.forward_func)
    for method in (cv.LayerCDAM, cv.LayerSmoothCDAM, cv.LayerIntegratedCDAM):
        found = explain(method(case.forward_func), case)
        assert (found[:, 4] == 0).all() and (found[:, [3, 5]] != 0).all()
