"""Layers that compute what they did, but not by their weights alone: hooks, another forward, other parameters."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import captum_vit as cv
from captum_vit.trace.record.written_by_heads import linear_map
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import explain
from tests.models import CASES, READ_HEADS, Case

READERS = sorted(READ_HEADS)


@cache
def plain(name: str = "timm ViT") -> Case:
    case = CASES[name]()
    return case._replace(forward_func=copy.deepcopy(case.forward_func).double(), inputs=_double(case.inputs))


def _double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def changed(change: Callable[[nn.Module], object], name: str = "timm ViT") -> nn.Module:
    model = copy.deepcopy(plain(name).forward_func)
    change(model)
    return model.eval()


@torch.no_grad()
def _halve(module: nn.Module) -> None:
    for p in module.parameters():
        p.mul_(0.5)


def by_hook(module: nn.Module) -> None:
    _halve(module)
    module.register_forward_hook(lambda module, args, output: 2 * output)


def by_keywords(module: nn.Module) -> None:
    _halve(module)
    module.register_forward_hook(lambda module, args, kwargs, output: 2 * output, with_kwargs=True)


def by_pre_hook(linear: nn.Module) -> None:
    with torch.no_grad():
        linear.weight.mul_(0.5)
    linear.register_forward_pre_hook(lambda module, args: (2 * args[0],))


def by_forward(module: Any) -> None:
    _halve(module)
    forward = module.forward
    module.forward = lambda x: 2 * forward(x)


def hooked(model: Any) -> None:
    """Every kind of hook, on projections and on norms."""
    first, second, third = model.blocks
    by_hook(first.attn.proj)
    by_pre_hook(second.attn.proj)
    by_forward(third.attn.proj)
    by_keywords(first.norm2)
    by_forward(second.norm2)
    by_hook(third.norm1)
    by_hook(model.norm)


def test_every_method_explains_what_a_layer_computes(method: str) -> None:
    case = plain()
    model = changed(hooked)
    with torch.no_grad():
        assert torch.allclose(model(case.inputs), case.forward_func(case.inputs), rtol=1e-12)
    make = cv.METHODS[method]
    why = "float64, divided by sums near zero" if method in {"LRP", "PartialLRP", "TransAttr"} else "float64"
    assert_close(explain(make(model), case), explain(make(case.forward_func), case), why)


def parametrised(model: Any) -> None:
    for block in model.blocks:
        parametrizations.weight_norm(block.attn.proj)


def everyone(module: nn.Module, args: Any, output: Any) -> Any:
    """A hook for all modules, which finds its own."""
    return 2 * output if hasattr(module, "halved") else None


@pytest.mark.parametrize("reader", READERS)
def test_other_parameters_are_the_weights_they_make(reader: str) -> None:
    case = plain()
    found, wanted = (explain(cv.METHODS[reader](m), case) for m in (changed(parametrised), case.forward_func))
    assert_close(found, wanted, "float64")


@pytest.mark.parametrize("reader", READERS)
def test_hooks_of_all_modules_count(reader: str) -> None:
    case = plain()
    model = changed(lambda m: None)
    for block in model.blocks:
        _halve(block.attn.proj)
        block.attn.proj.halved = True
    handle = nn.modules.module.register_module_forward_hook(everyone)
    try:
        found = explain(cv.METHODS[reader](model), case)
    finally:
        handle.remove()
    assert_close(found, explain(cv.METHODS[reader](case.forward_func), case), "float64")


def test_weights_that_are_elsewhere_between_passes_are_read() -> None:
    """Offloaded layers hold no numbers until they are called."""
    accelerate = pytest.importorskip("accelerate")
    linear = nn.Linear(6, 4).double()
    wanted, bias = linear.weight.detach().T.clone(), linear.bias.detach().clone()
    accelerate.cpu_offload(linear)
    assert linear.weight.is_meta
    found, added = linear_map(linear, wanted.new_empty(2, 5, 6))
    assert_close(found, wanted, "float64")
    assert_close(added, bias, "float64")


def centred(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Linear, but not token by token."""
    return output - output.mean(1, keepdim=True)


OTHER: dict[str, Callable[[Any], object]] = {
    "not linear": lambda m: m.blocks[-1].attn.proj.register_forward_hook(lambda module, args, output: output.tanh()),
    "not token by token": lambda m: m.blocks[-1].attn.proj.register_forward_hook(centred),
    "one row": lambda m: m.blocks[-1].attn.proj.register_forward_hook(
        lambda module, args, output: torch.cat([2 * output[:, :1], output[:, 1:]], 1)
    ),
}


@pytest.mark.parametrize("change", OTHER)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_linear_projection_is_refused(reader: str, change: str) -> None:
    with pytest.raises(cv.UnsupportedModelError, match=r"linear|nothing more|reach each other"):
        explain(cv.METHODS[reader](changed(OTHER[change])), plain())


@pytest.mark.parametrize("part", ["attn", "ls1"])
@pytest.mark.parametrize("reader", READERS)
def test_a_factor_behind_the_projection_is_a_scale(reader: str, part: str) -> None:
    case = plain()
    by_hooks = changed(
        lambda m: getattr(m.blocks[-1], part).register_forward_hook(lambda module, args, output: 2 * output)
    )
    by_weights = changed(lambda m: [p.data.mul_(2) for p in m.blocks[-1].attn.proj.parameters()])
    found, wanted = (explain(cv.METHODS[reader](m), case) for m in (by_hooks, by_weights))
    assert_close(found, wanted, "float64")


def test_norms_to_pass_are_read_as_they_are_called() -> None:
    case, model = plain(), changed(hooked)
    found, wanted = (explain(cv.GlobEnc(m, include_ln2=True), case) for m in (model, case.forward_func))
    assert_close(found, wanted, "float64")


def test_what_is_no_norm_is_refused() -> None:
    model = changed(lambda m: m.blocks[-1].norm2.register_forward_hook(lambda module, args, output: output.tanh()))
    with pytest.raises(cv.UnsupportedModelError, match="norm"):
        explain(cv.GlobEnc(model, include_ln2=True), plain())


def test_a_post_norm_block_is_read_as_it_is_called() -> None:
    case = plain("HF BERT")

    def hook(model: Any) -> None:
        first, *_, last = cv.spec_of(model).modules()
        by_hook(first.attention.output.dense)
        by_keywords(first.attention.output.LayerNorm)
        by_forward(last.output.LayerNorm)

    model = changed(hook, "HF BERT")
    for reader in READERS:
        wanted = explain(cv.METHODS[reader](case.forward_func), case)
        assert_close(explain(cv.METHODS[reader](model), case), wanted, "float64")


def test_bfloat16_is_tried_at_its_own_precision() -> None:
    case = plain()
    model = changed(hooked).bfloat16()
    for reader in READERS:
        assert explain(cv.METHODS[reader](model), case).isfinite().all()


@pytest.mark.parametrize("reader", READERS)
def test_hooks_that_know_one_shape_are_met_with_it(reader: str) -> None:
    case = plain()
    model = changed(lambda m: None)

    def knows(module: Any, args: Any, output: Tensor) -> Tensor:
        return output.view(-1, 17, 24)

    for block in model.blocks:
        block.attn.proj.register_forward_hook(knows)
    assert_close(
        explain(cv.METHODS[reader](model), case), explain(cv.METHODS[reader](case.forward_func), case), "float64"
    )


def test_a_hook_that_fails_is_named() -> None:
    def first_alone(module: Any, args: Any, output: Tensor) -> None:
        if not output[:, 0].any():
            raise ValueError("zeros")

    model = changed(lambda m: m.blocks[-1].attn.proj.register_forward_hook(first_alone))
    with torch.no_grad():
        model.blocks[-1].attn.proj.bias.zero_()
    with pytest.raises(cv.UnsupportedModelError, match="ValueError: zeros"):
        explain(cv.VTranM(model), plain())
