"""The same map wherever it is computed, or an error that says what to do; never a silent wrong one."""

import copy
import threading
import warnings
from collections.abc import Callable

import pytest
import torch
from captum.attr import Attribution
from torch import nn

import captum_vit as cv
from tests.contracts.closeness import BF16_CORRELATION, assert_close, assert_close_in_float32, correlation
from tests.contracts.pairs import IN_FULL_PRECISION, Pair, cast, draws, explain, half_precision, in_float64
from tests.models import CASES, Case

MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "enable_grad": torch.enable_grad}


def copied(pair: Pair) -> nn.Module:
    return copy.deepcopy(pair.case.forward_func)


def changes_nothing(pair: Pair, change: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """A model that was changed has the maps that it had, but for the order of sums; it is returned."""
    case = pair.exact
    model = copy.deepcopy(case.forward_func)
    changed = change(model)
    model = model if changed is None else changed
    found = explain(pair.on(model), case)
    assert_close(found, explain(pair.on(case.forward_func), case), pair.rounding)
    return model


def cloned(case: Case) -> Case:
    """Tensors made here and now, in whatever mode is on."""
    args = tuple(x.clone() for x in case.additional_forward_args)
    return case._replace(inputs=case.inputs.clone(), additional_forward_args=args)


@pytest.mark.along("mode", MODES)
def test_under_other_grad_modes(pair, mode):
    """Inputs, masks and targets made inside the mode too."""
    wanted = explain(pair.on(), pair.case)
    with MODES[mode]():
        case = cloned(pair.case)
        assert_close(explain(pair.on(), case), wanted, "same computation")
        assert_close(explain(pair.on(), case, target=torch.tensor(case.target)), wanted, "same computation")
        assert torch.is_grad_enabled() == (mode == "enable_grad")
        assert torch.is_inference_mode_enabled() == (mode == "inference_mode")


def test_after_the_inputs_left_inference_mode(slice_pair):
    with torch.inference_mode():
        case = cloned(slice_pair.case)
    assert_close(explain(slice_pair.on(), case), explain(slice_pair.on(), slice_pair.case), "same computation")


def test_frozen_parameters(pair):
    """A position bias that needs no gradient may go through another kernel, so sums may round differently."""
    changes_nothing(pair, lambda model: model.requires_grad_(False))


def agrees_with_double_precision(pair: Pair, model: nn.Module) -> None:
    """The map of a model in float32 is that of the exam's model in float64, up to what float32 rounds away."""
    case = pair.exact
    explained = lambda model, inputs: explain(pair.on(model), case, inputs=inputs)  # noqa: E731
    found, wanted = explain(pair.on(model), pair.case), explained(case.forward_func, case.inputs)
    if pair.method in IN_FULL_PRECISION:
        assert_close(found, wanted.float(), "float32 around float64")
    else:
        assert_close_in_float32(found, wanted, explained, case.forward_func, case.inputs)


def test_double_precision(pair):
    if draws(pair.on()):
        return
    agrees_with_double_precision(pair, pair.case.forward_func)


def terms(method: Attribution) -> Attribution:
    """A method, told to give what it adds up over channels: of a sum that cancels half precision leaves nothing."""
    if "channels" in method.outputs:
        method.output = "channels"
    return method


def test_half_precision(pair):
    """Within rounding of the float32 map; inputs may be float32, as NoiseTunnel makes them."""
    with half_precision(pair.method):
        found = explain(terms(pair.on(copied(pair).bfloat16())), cast(pair.case, torch.bfloat16))
        wanted = explain(terms(pair.on()), pair.case)
        assert found.dtype == torch.float32
        for row, wanted_row in zip(found, wanted, strict=True):
            assert correlation(row, wanted_row) > BF16_CORRELATION


def test_under_autocast(slice_pair):
    """Explanations are computed in the model's own precision."""
    with torch.autocast("cpu", torch.bfloat16):
        found = explain(slice_pair.on(), slice_pair.case)
    assert_close(found, explain(slice_pair.on(), slice_pair.case), "same computation")


def test_gradient_checkpointing(pair):
    """timm recomputes activations in eval mode too, Hugging Face in training mode alone.

    What is wrapped so takes the general route, whose sums may have another order.
    """
    flags: list[bool | None] = []

    def checkpoint(model: nn.Module) -> None:
        for module in model.modules():
            for switch in ("set_grad_checkpointing", "activation_checkpointing_enable"):
                getattr(module, switch, lambda: None)()
        flags.extend(getattr(module, "grad_checkpointing", None) for module in model.modules())

    model = changes_nothing(pair, checkpoint)
    assert [getattr(module, "grad_checkpointing", None) for module in model.modules()] == flags


@pytest.fixture(scope="module")
def compiled():
    """Models that were compiled and have run; each is made once."""
    made = {}

    def of(name: str) -> nn.Module:
        if name not in made:
            torch._dynamo.reset()
            case = in_float64(name)
            made[name] = torch.compile(copy.deepcopy(case.forward_func), backend="eager")
            with torch.no_grad():
                made[name](case.inputs, *case.additional_forward_args)
        return made[name]

    return of


@pytest.mark.slow
def test_compiled_models(slice_pair, compiled):
    """Hooks do not fire in compiled code, so it runs uncompiled meanwhile; what was compiled stays so."""
    model = changes_nothing(slice_pair, lambda _: compiled(slice_pair.model))
    assert model._orig_mod is not None


def test_compiled_in_place(slice_pair):
    model = changes_nothing(slice_pair, lambda model: model.compile(backend="eager"))
    assert model._compiled_call_impl is not None


def test_from_another_thread(pair):
    found = []
    thread = threading.Thread(target=lambda: found.append(explain(pair.on(), pair.case)))
    thread.start()
    thread.join()
    assert_close(found[0], explain(pair.on(), pair.case), "same computation")


TARGETS = {
    "concept": lambda: cv.ConceptSimilarity(CASES["timm ViT"]().forward_func, torch.randn(4, 24)),
    "text": lambda: cv.TextSimilarity(CASES["HF CLIP"]().forward_func.model, torch.randn(4, 16)),
    "direction": lambda: cv.Direction(CASES["timm ViT"]().forward_func, torch.randn(5)),
}


@pytest.mark.parametrize("target", TARGETS)
def test_targets_made_in_inference_mode(target):
    with torch.inference_mode():
        forward_func = TARGETS[target]()
    assert cv.LayerCDAM(forward_func).attribute(CASES["timm ViT"]().inputs, target=0).any()


@pytest.mark.along("implementation", ["eager", "sdpa"])
def test_hugging_face_attention_implementations(hugging_face_pair, implementation):
    """Eager and fused attention give the same map; in float32, since the eager softmax is never more precise."""
    model = copied(hugging_face_pair)
    inner = next(m for m in model.modules() if hasattr(m, "set_attn_implementation"))
    inner.set_attn_implementation(implementation)
    chosen = inner.config._attn_implementation  # some families have one alone
    if draws(hugging_face_pair.on()):  # other numbers in float64
        return
    agrees_with_double_precision(hugging_face_pair, model)
    assert inner.config._attn_implementation == chosen


def test_one_layer_in_training_mode_is_refused(slice_pair):
    model = copied(slice_pair)
    cv.spec_of(model).modules()[0].train()
    with pytest.raises(cv.ModelStateError, match="training mode"):
        explain(slice_pair.on(model), slice_pair.case)


def heads(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the last linear layer that runs."""
    ran = []
    handles = [
        m.register_forward_hook(lambda m, *_: ran.append(m)) for m in model.modules() if isinstance(m, nn.Linear)
    ]
    yield ran
    for handle in handles:
        handle.remove()
    yield list(ran[-1].parameters())


def test_a_head_of_zeros_is_never_silent(pair):
    model, case = copied(pair), pair.case
    last = heads(model)
    next(last)
    model(case.inputs, *case.additional_forward_args)
    with torch.no_grad():
        for parameter in next(last):
            parameter.zero_()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = explain(pair.on(model), case)
        except cv.CaptumVitError as error:
            assert error.hint
            return
    warned = any(issubclass(w.category, cv.ZeroMapWarning) for w in caught)
    assert torch.isfinite(found).all()
    assert warned or found.any()


@pytest.mark.along("dtype", [torch.bfloat16, torch.float16])
def test_a_sure_model_in_half_precision(method, dtype):
    """A probability near one leaves half precision no slope; the softmax is wider than the model."""
    case = CASES["timm ViT"]()._replace(target=1)
    sure = copy.deepcopy(case.forward_func)
    with torch.no_grad():
        sure.head.bias[1] += 16
        assert sure(case.inputs).softmax(1)[:, 1].amin() > 0.999
    with half_precision(method):
        found = explain(cv.METHODS[method](copy.deepcopy(sure).to(dtype)), case)
        for row, wanted in zip(found, explain(cv.METHODS[method](sure), case), strict=True):
            assert correlation(row, wanted) > BF16_CORRELATION


@pytest.mark.along("name", ["timm ViT", "timm SigLIP", "HF ViT", "HF BERT"])
def test_blocks_compiled_one_by_one(method, name):
    """Regional compilation, as libraries advise it: every block in a wrapper of its own."""
    holders: list[nn.Sequential | nn.ModuleList] = []

    def compile_blocks(model: nn.Module) -> None:
        stack = cv.spec_of(model).modules()
        lists = [m for m in model.modules() if isinstance(m, nn.Sequential | nn.ModuleList)]
        holders.append(next(blocks for blocks in lists if blocks[0] is stack[0]))
        for i, block in enumerate(stack):
            holders[0][i] = torch.compile(block, backend="eager")

    changes_nothing(Pair(method, name), compile_blocks)
    assert all(hasattr(block, "_orig_mod") for block in holders[0])
