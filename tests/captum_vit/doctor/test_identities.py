"""Identities hold on healthy models in every precision, and the right one fails on a broken model."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.doctor import DEFECT, Identity
from captum_vit.doctor.identities import CHECKS
from captum_vit.models import registry
from tests.models import CASES, TIMM, redrawn, timm_vit

TWICE, ROW, ORDER, FROZEN, LIBRA, HEADS, DROPPED, PADDING = CHECKS
PRECISIONS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
BESIDE_FLOAT32 = [d if d == torch.float32 else pytest.param(d, marks=pytest.mark.slow) for d in PRECISIONS]

Examine = Callable[..., dict[str, Identity]]


# -- healthy models ----------------------------------------------------------------------------------------------


def assert_healthy(found: dict[str, Identity], *without: str) -> None:
    assert {name for name, one in found.items() if one.holds} == set(CHECKS) - set(without), found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", ["timm ViT", "HF BERT"])
def test_all_hold_in_every_precision(name: str, dtype: torch.dtype, examined: Examine):
    model, inputs, args, _ = CASES[name]()
    given = inputs.to(dtype) if inputs.is_floating_point() else inputs
    found = examined(copy.deepcopy(model).to(dtype), given, args or None)
    assert_healthy(found, *([PADDING] if inputs.is_floating_point() else []))
    exact = 1e3 * torch.finfo(dtype).eps
    assert all(one.bound <= exact and one.methods for one in found.values())


STOCK = {
    "DINOv2": {},
    "DINOv2 with registers": {"reg_tokens": 4, "no_embed_class": True},
    "DeiT-3": {"no_embed_class": True},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *(("DINOv2", dtype) for dtype in PRECISIONS),
        ("DINOv2 with registers", torch.float32),
        ("DeiT-3", torch.bfloat16),
    ],
)
def test_tiny_layer_scales_are_no_false_alarm(kind: str, dtype: torch.dtype, examined: Examine):
    """Weights as timm draws them: the stream gains less than it is rounded by."""
    torch.manual_seed(0)
    model = timm_vit(**TIMM | STOCK[kind] | {"embed_dim": 48}, init_values=1e-5).eval()
    assert_healthy(examined(model.to(dtype)), PADDING)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "deit3_small_patch16_224"]
)
def test_stock_models_are_no_false_alarm(name: str, examined: Examine):
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=112, num_classes=10).eval()
    assert_healthy(examined(model), PADDING)


def test_weights_of_all_sizes(examined: Examine):
    for scale in (1e-3, 30.0):
        model = redrawn(timm_vit(**TIMM))
        with torch.no_grad():
            for p in model.blocks.parameters():
                p.mul_(scale)
        assert_healthy(examined(model), PADDING)


class Halved(nn.Module):
    """Half precision inside of float32 weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(x).float()


def test_the_precision_is_that_of_the_arithmetic(examined: Examine):
    found = examined(Halved(redrawn(timm_vit(**TIMM))).eval())
    assert not [one for one in found.values() if one.holds is False]
    assert found[ROW].bound > 1e-2


def test_it_takes_about_twenty_passes(examined: Examine):
    model, passes = redrawn(timm_vit(**TIMM)), []
    handle = model.register_forward_hook(lambda module, args, output: passes.append(len(args[0])))
    examined(model)
    handle.remove()
    to_look = 7  # one finds the blocks, one looks for a probability at the end
    assert len(passes) - to_look == 19 and sorted(passes)[-2:] == [2, 9]


# -- broken models: which identity fails -------------------------------------------------------------------------


def hooked(hook: Callable[[Tensor], Tensor], path: str = "") -> nn.Module:
    model = redrawn(timm_vit(**TIMM))
    model.blocks[1].get_submodule(path).register_forward_hook(lambda module, args, output: hook(output))
    return model


def doubled_backwards(y: Tensor) -> Tensor:
    if y.requires_grad:
        y.register_hook(lambda grad: 2 * grad)
    return y


class Kernel(torch.autograd.Function):
    """An activation with a derivative of its own, which no rule can replace."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return nn.functional.gelu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 0.5


def with_a_kernel() -> nn.Module:
    class Activation(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Kernel.apply(x)

    model = redrawn(timm_vit(**TIMM))
    model.blocks[1].mlp.act = Activation().eval()
    return model


class Rearranged(VisionTransformer):
    """Patches in another order than that of reading; prompts behind them."""

    def _pos_embed(self, x: Tensor) -> Tensor:
        x = super()._pos_embed(x)
        if self.how == "elsewhere":
            return torch.cat([x[:, :1], x[:, 1:].flip(1)], 1) if ELSEWHERE else x
        if self.how == "by content":
            order = x[:, 1:].sum(-1).argsort(1) + 1
            return torch.cat([x[:, :1], x.gather(1, order.unsqueeze(-1).expand_as(x[:, 1:]))], 1)
        if self.how == "columns":
            return torch.cat([x[:, :1], x[:, 1:].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)], 1)
        return torch.cat([x, torch.ones_like(x[:, :5])], 1)


ELSEWHERE: list[bool] = []  # what no module holds


def turned_behind_our_back() -> nn.Module:
    """The order that was remembered is no longer that of the patches."""
    ELSEWHERE.clear()
    model = rearranged("elsewhere")
    cv.doctor(model)
    ELSEWHERE.append(True)
    return model


def rearranged(how: str) -> nn.Module:
    model = redrawn(Rearranged(**TIMM))
    model.how = how
    return model


BROKEN: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "an activation that no rule covers": (with_a_kernel, {FROZEN, LIBRA}),
    "a gradient that is doubled": (lambda: hooked(doubled_backwards, "mlp"), {FROZEN, LIBRA}),
    "a batch that is centred": (lambda: hooked(lambda y: y - 0.5 * y.mean(0, keepdim=True)), {ROW}),
    "patches turned by what no module holds": (turned_behind_our_back, {ORDER}),
}


@pytest.mark.parametrize(("build", "failing"), BROKEN.values(), ids=BROKEN)
def test_on_a_broken_model_the_right_one_fails(build: Callable[[], nn.Module], failing: set[str], examined: Examine):
    found = examined(build())
    assert {name for name, one in found.items() if one.holds is False} == failing
    for name in failing:
        assert found[name].reason and found[name].residual > 1e3 * found[name].bound


def test_a_hook_that_doubles_a_branch_is_a_scale(examined: Examine):
    assert examined(hooked(lambda y: 2 * y, "attn"))[HEADS].holds


def test_a_hook_that_bends_a_branch_is_named(examined: Examine):
    found = examined(hooked(torch.tanh, "attn"))
    assert found[HEADS].holds is None and "tanh in between" in found[HEADS].reason


def test_a_random_model_is_no_rounding(examined: Examine):
    """However random its head is, that does not count as what rounding may do; and nothing else is judged."""
    model = redrawn(timm_vit(**TIMM))
    model.head.register_forward_hook(lambda module, args, output: output + 0.1 * torch.randn_like(output))
    found = examined(model)
    assert found[TWICE].holds is False and found[TWICE].bound < 1e-4
    assert all(one.holds is None and TWICE in one.reason for name, one in found.items() if name != TWICE)


@pytest.mark.parametrize("how", ["columns", "prompts"])
def test_tokens_in_another_order_are_laid_out_by_what_they_read(how: str, examined: Examine):
    assert all(one.holds is not False for one in examined(rearranged(how)).values())


RANDOM_HOOKS = {
    "randn_like": lambda y: y + 0.1 * torch.randn_like(y),
    "normal_": lambda y: y + torch.empty_like(y).normal_(0, 0.1),
    "dropout": lambda y: nn.functional.dropout(y, 0.1),
}


@pytest.mark.parametrize(
    ("name", "part"), [*((name, "blocks.1") for name in RANDOM_HOOKS), ("randn_like", "norm"), ("normal_", "norm")]
)
def test_random_tokens_are_a_problem(name: str, part: str):
    model = redrawn(timm_vit(**TIMM))
    module = model.get_submodule(part)
    module.register_forward_hook(lambda module, args, output: RANDOM_HOOKS[name](output))
    report = cv.doctor(model)
    assert any(f"random numbers ({name})" in problem for problem in report.problems)
    assert all(report.methods.values())


def test_dropout_that_is_off_is_none(examined: Examine):
    found = examined(hooked(lambda y: nn.functional.dropout(nn.functional.dropout(y, 0.1, False), 0.0)))
    assert_healthy(found, PADDING)


def test_a_permutation_at_random_is_a_problem():
    class Shuffled(VisionTransformer):
        def _pos_embed(self, x: Tensor) -> Tensor:
            return super()._pos_embed(x)[:, torch.randperm(16)]

    report = cv.doctor(redrawn(Shuffled(**TIMM, class_token=False, global_pool="avg")))
    assert any("random numbers (randperm)" in problem for problem in report.problems)
    assert all(report.methods.values())


def test_an_order_by_content_is_a_problem_where_each_token_reads_its_own_pixels():
    report = cv.doctor(rearranged("by content"))
    assert any("does not depend on the picture" in problem for problem in report.problems)
    assert all(report.methods.values())


WRONG = {"out_proj": {"out_proj": "mlp.fc2"}, "attn_scale": {"attn_scale": None}}


@pytest.mark.parametrize("dtype", BESIDE_FLOAT32, ids=str)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_description_of_a_branch_shows(wrong: str, dtype: torch.dtype, examined: Examine, monkeypatch):
    class Mine(VisionTransformer):
        pass

    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    model = redrawn(Mine(**TIMM, init_values=0.1, mlp_ratio=1)).to(dtype)
    right = cv.Spec(attn_scale="ls1.gamma")
    cv.register_spec(Mine, spec=right)
    assert examined(model)[HEADS].holds
    cv.register_spec(Mine, spec=dataclasses.replace(right, **WRONG[wrong]))
    found = examined(model)[HEADS]
    assert found.holds is False and "in block" in found.reason


def test_a_mask_that_nobody_minds(examined: Examine):
    class Deaf(nn.Module):
        def __init__(self, bert: nn.Module) -> None:
            super().__init__()
            self.bert, self.config = bert, bert.config

        def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            return self.bert(ids, torch.ones_like(ids)).logits

    bert, ids, _, _ = CASES["HF BERT"]()
    assert examined(Deaf(bert).eval(), ids)[PADDING].holds is False


# -- what could not be tried -------------------------------------------------------------------------------------


def test_refusals_and_surprises_are_rows(examined: Examine, monkeypatch: pytest.MonkeyPatch):
    def surprise(subject: Any) -> None:
        raise KeyError("surprise")

    def refusal(subject: Any) -> None:
        raise cv.TraceError("One thing.", "another", "a third.")

    monkeypatch.setitem(CHECKS, ROW, CHECKS[ROW]._replace(residual=surprise))
    monkeypatch.setitem(CHECKS, ORDER, CHECKS[ORDER]._replace(residual=refusal))
    found = examined(redrawn(timm_vit(**TIMM)))
    assert found[ROW].holds is None and found[ROW].reason.startswith(f"{DEFECT} KeyError")
    assert found[ORDER].holds is None and found[ORDER].reason == "One thing. Got: another. Try: a third."
    assert found[FROZEN].holds


def test_where_heads_reach_the_stream_by_no_projection(examined: Examine):
    model, inputs, _, _ = CASES["timm EVA-02 CLIP"]()
    found = examined(model, inputs)
    assert found[HEADS].holds is None and "in between" in found[HEADS].reason
    assert found[FROZEN].holds


def test_blocks_that_insist_on_a_whole_sequence(examined: Examine):
    model, inputs, _, _ = CASES["HF DeBERTa-v2"]()
    assert "with their keys hidden" in examined(model, inputs)[DROPPED].reason


def test_a_picture_of_one_patch(examined: Examine):
    found = examined(redrawn(timm_vit(**TIMM | {"img_size": 8})))
    assert found[ORDER].holds is None and found[DROPPED].holds is None and found[FROZEN].holds
