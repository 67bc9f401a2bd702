"""The same map wherever it is computed, or an error that says what to do; never a silent wrong one."""

import copy
import threading
import warnings

import pytest
import torch
from torch import nn

import captum_vit as cv
from tests.contracts.closeness import BF16_CORRELATION, assert_close, correlation
from tests.contracts.pairs import Pair, cast, draws, explain, half_precision
from tests.models import CASES, Case

MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "enable_grad": torch.enable_grad}


def copied(pair: Pair) -> nn.Module:
    return copy.deepcopy(pair.case.forward_func)


def cloned(case: Case) -> Case:
    """Tensors made here and now, in whatever mode is on."""
    args = tuple(x.clone() for x in case.additional_forward_args)
    return case._replace(inputs=case.inputs.clone(), additional_forward_args=args)


@pytest.mark.parametrize("mode", MODES)
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
    model = copied(pair).requires_grad_(False)
    assert_close(explain(pair.on(model), pair.case), explain(pair.on(), pair.case), "other order of sums")


def test_double_precision(pair):
    if draws(pair.on()):
        return
    found = explain(pair.on(copied(pair).double()), cast(pair.case, torch.float64))
    assert_close(found.float(), explain(pair.on(), pair.case), "float32 and float64")


def test_half_precision(pair):
    """Within rounding of the float32 map; inputs may be float32, as NoiseTunnel makes them."""
    with half_precision(pair.method):
        found = explain(pair.to_compare(copied(pair).bfloat16()), cast(pair.case, torch.bfloat16))
        wanted = explain(pair.to_compare(), pair.case)
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
    model = copied(pair)
    for module in model.modules():
        for switch in ("set_grad_checkpointing", "activation_checkpointing_enable"):
            getattr(module, switch, lambda: None)()
    flags = [getattr(module, "grad_checkpointing", None) for module in model.modules()]
    assert_close(explain(pair.on(model), pair.case), explain(pair.on(), pair.case), "other order of sums")
    assert [getattr(module, "grad_checkpointing", None) for module in model.modules()] == flags


@pytest.fixture(scope="module")
def compiled():
    """Models that were compiled and have run; each is made once."""
    made = {}

    def of(name: str) -> nn.Module:
        if name not in made:
            torch._dynamo.reset()
            case = CASES[name]()
            made[name] = torch.compile(copy.deepcopy(case.forward_func), backend="eager")
            with torch.no_grad():
                made[name](case.inputs, *case.additional_forward_args)
        return made[name]

    return of


def test_compiled_models(slice_pair, compiled):
    """Hooks do not fire in compiled code, so it runs uncompiled meanwhile; what was compiled stays so."""
    case, model = slice_pair.case, compiled(slice_pair.model)
    assert_close(explain(slice_pair.on(model), case), explain(slice_pair.on(), case), "other order of sums")
    assert model._orig_mod is not None


def test_compiled_in_place(slice_pair):
    model = copied(slice_pair)
    model.compile(backend="eager")
    wanted = explain(slice_pair.on(), slice_pair.case)
    assert_close(explain(slice_pair.on(model), slice_pair.case), wanted, "other order of sums")
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


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_hugging_face_attention_implementations(pair, implementation):
    """Eager and fused attention give the same map."""
    model = copied(pair)
    inner = [m for m in model.modules() if hasattr(m, "set_attn_implementation")]
    if not inner:
        return
    inner[0].set_attn_implementation(implementation)
    chosen = inner[0].config._attn_implementation  # some families have one alone
    assert_close(explain(pair.on(model), pair.case), explain(pair.on(), pair.case), "other order of sums")
    assert inner[0].config._attn_implementation == chosen


def test_training_mode_is_refused(pair):
    model = copied(pair).train()
    with pytest.raises(cv.ModelStateError, match="eval"):
        explain(pair.on(model), pair.case)
    assert all(module.training for module in model.modules())


def test_one_layer_in_training_mode_is_refused(slice_pair):
    model = copied(slice_pair)
    next(iter(cv.spec_of(model).blocks)).train()
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
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


@pytest.mark.parametrize("name", ["timm ViT", "timm SigLIP", "HF ViT", "HF BERT"])
def test_blocks_compiled_one_by_one(method, name):
    """Regional compilation, as libraries advise it: every block in a wrapper of its own."""
    case = CASES[name]()
    model = copy.deepcopy(case.forward_func)
    stack = cv.spec_of(model).blocks
    holder = next(m for m in model.modules() if isinstance(m, nn.Sequential | nn.ModuleList) and m[0] is stack[0])
    for i, block in enumerate(stack):
        holder[i] = torch.compile(block, backend="eager")
    wanted = explain(Pair(method, name).on(), case)
    assert_close(explain(cv.METHODS[method](model), case), wanted, "other order of sums")
    assert all(hasattr(block, "_orig_mod") for block in holder)
