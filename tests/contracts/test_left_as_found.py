"""A model, its inputs and the process are left exactly as found, also after an exception at any point."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.models.transformer import Block, Transformer
from captum_vit.trace.run.describe import stream_of
from captum_vit.trace.run.state import undisturbed
from tests.contracts.fingerprint import fingerprint
from tests.contracts.pairs import Pair, draws, explain


class Injected(Exception):
    """Not of our family, so that nothing turns it into another."""


def state(pair: Pair):
    """What must not change; sampling methods may draw random numbers."""
    case = pair.case
    return fingerprint(case.forward_func, case.inputs, *case.additional_forward_args, rng=not draws(pair.on()))


def call(pair: Pair):
    """As a user calls, without setting a seed."""
    case = pair.case
    return pair.on().attribute(case.inputs, target=case.target, additional_forward_args=case.additional_forward_args)


def blocks_of(pair: Pair) -> Sequence[Block]:
    return described(pair).blocks


def described(pair: Pair) -> Transformer:
    model = pair.case.forward_func
    with undisturbed(model):
        return stream_of(model, (pair.case.inputs,), pair.case.additional_forward_args)


def sites(pair: Pair) -> list[nn.Module]:
    """The blocks, every norm, and every linear layer outside the blocks: pooling, projections, heads."""
    model = pair.case.forward_func
    transformer = described(pair)
    blocks = transformer.modules()
    inside = {module for block in blocks for module in block.modules()}
    norms = [m for m in transformer.tower.modules() if type(m).__name__.endswith("Norm")]
    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in inside]
    return [*blocks, *norms, *heads]


def raises_at(times: int) -> Callable[..., None]:
    """A hook that raises when its module runs for the n-th time: the first pass, a sub-network, a readout."""
    count = iter(range(1, 1000))

    def hook(*_) -> None:
        if next(count) == times:
            raise Injected

    return hook


def raises_in_backward(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
    def hook(grad: Tensor) -> None:
        raise Injected

    if isinstance(output, Tensor) and output.requires_grad:
        output.register_hook(hook)


def check_after_failure(pair: Pair, module: nn.Module, hook: Callable[..., None]) -> bool:
    """Whether the exception came; the state is compared while the raising hook is still there."""
    handle = module.register_forward_hook(hook)
    try:
        before = state(pair)
        try:
            call(pair)
            raised = False
        except Injected:
            raised = True
        assert state(pair) == before
    finally:
        handle.remove()
    return raised


def test_after_success(pair):
    before = state(pair)
    call(pair)
    assert state(pair) == before


@pytest.mark.slow
def test_after_an_exception_anywhere(pair, request):
    """At every third place, in its first pass or its second; at all of them, in both, with ``--full``."""
    places = [(module, times) for module in sites(pair) for times in (1, 2)]
    chosen = places if request.config.getoption("--full") else places[::3]
    raised = [check_after_failure(pair, module, raises_at(times)) for module, times in chosen]
    assert sum(raised) >= len(blocks_of(pair))


@pytest.mark.slow
def test_after_an_exception_on_the_way_back(pair, request):
    """At every third place; at all of them with ``--full``."""
    for module in sites(pair)[:: 1 if request.config.getoption("--full") else 3]:
        check_after_failure(pair, module, raises_in_backward)


@pytest.mark.slow
def test_a_loop_of_failures_and_successes_leaves_the_map_alone(slice_pair):
    wanted = explain(slice_pair.on(), slice_pair.case)
    for module in sites(slice_pair)[:4]:
        check_after_failure(slice_pair, module, raises_at(1))
    assert torch.equal(explain(slice_pair.on(), slice_pair.case), wanted)


@pytest.mark.along("failing", [False, True], ["success", "failure"])
def test_inputs_that_require_grad_and_gradients_that_exist(image_pair, failing):
    """A user in the middle of their own optimisation loses nothing."""
    case = image_pair.case
    inputs = case.inputs.clone().requires_grad_()
    parameter = next(case.forward_func.parameters())
    parameter.grad = torch.ones_like(parameter)
    try:
        before = fingerprint(case.forward_func, inputs, rng=False)
        target = 99 if failing else case.target
        try:
            explain(image_pair.on(), case, inputs=inputs, target=target)
        except cv.TargetError:
            assert failing
        assert fingerprint(case.forward_func, inputs, rng=False) == before
        assert inputs.grad is None and torch.equal(parameter.grad, torch.ones_like(parameter))
    finally:
        parameter.grad = None


def test_the_users_own_hooks_stay_and_run(slice_pair):
    case = slice_pair.case
    seen = []
    handle = cv.spec_of(case.forward_func).modules()[-1].register_forward_hook(lambda *_: seen.append(1))
    try:
        explain(slice_pair.on(), case)
        assert seen
        seen.clear()
        case.forward_func(case.inputs, *case.additional_forward_args)
        assert len(seen) == 1
    finally:
        handle.remove()


def test_the_fingerprint_sees():
    """The instrument itself: each thing left behind shows."""
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    x = torch.zeros(1, 2)

    def changed(spoil: Callable[[], object], restore: Callable[[], object]) -> bool:
        before = fingerprint(model, x)
        spoil()
        seen = fingerprint(model, x) != before
        restore()
        assert fingerprint(model, x) == before
        return seen

    model[0].register_full_backward_hook(print).remove()  # the first one leaves a flag of torch's own
    handles = []
    for kind in ("forward", "forward_pre", "full_backward", "full_backward_pre"):
        register = getattr(model[0], f"register_{kind}_hook")
        assert changed(lambda register=register: handles.append(register(print)), lambda: handles.pop().remove()), kind
    assert changed(lambda: setattr(model[0], "forward", print), lambda: delattr(model[0], "forward"))
    assert changed(model.eval, model.train)
    assert changed(lambda: model.requires_grad_(False), lambda: model.requires_grad_(True))
    assert changed(lambda: model[0].bias.data.mul_(2), lambda: model[0].bias.data.div_(2))
    assert changed(lambda: setattr(model[0].bias, "grad", torch.ones(2)), lambda: setattr(model[0].bias, "grad", None))
    assert changed(x.requires_grad_, lambda: x.requires_grad_(False))
    assert changed(lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True))
    rng = torch.get_rng_state()
    assert changed(lambda: torch.rand(1), lambda: torch.set_rng_state(rng))
