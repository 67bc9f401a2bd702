"""However a model is wrapped, its maps are those of the bare model, or it is refused; and the doctor says which."""

import copy
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.doctor import DEFECT
from tests.contracts.arrangements import REFUSED_OR_SAME, SAME, At, Autocast, Returns, Unnamed, arranged, quantised
from tests.contracts.closeness import BF16_CORRELATION, assert_close, correlation
from tests.contracts.pairs import IN_FULL_PRECISION, SLICE_METHODS, Pair, explain, in_float64
from tests.models import CASES, TIMM, Case, redrawn, timm_vit

BARE = "timm ViT"


def outcomes(model: nn.Module, case: Case, methods: Iterable[str] = tuple(cv.METHODS)) -> dict[str, Any]:
    """By method the map, or the refusal; any other error is a failure."""
    found: dict[str, Tensor | cv.CaptumVitError] = {}
    for method in methods:
        try:
            found[method] = explain(cv.METHODS[method](model), case)
        except cv.CaptumVitError as error:
            found[method] = error
    return found


def a_part(place: int, parts: int, full: bool) -> list[str]:
    """Methods that differ from place to place, so that all have their turn, beside those of the quick loop; or all."""
    return [name for i, name in enumerate(cv.METHODS) if full or name in SLICE_METHODS or i % parts == place % parts]


@cache
def bare(exact: bool = True) -> dict[str, Tensor | cv.CaptumVitError]:
    """In double precision, where another order of sums hides nothing; or as it is."""
    case = in_float64(BARE) if exact else CASES[BARE]()
    return outcomes(case.forward_func, case)


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for method, relevance in found.items():
        assert isinstance(relevance, Tensor), f"{method}: {relevance}"
        assert_close(relevance, wanted[method], Pair(method, BARE).rounding)


def assert_honest(model: nn.Module, case: Case, found: dict[str, Any]) -> str:
    """The doctor's table is what happens; it is returned for a closer look."""
    report = cv.doctor(model, case.inputs, case.additional_forward_args or None)
    works = {method for method, relevance in found.items() if isinstance(relevance, Tensor)}
    assert {method for method in found if report.methods[method] is None} == works
    assert DEFECT not in str(report)
    assert max(map(len, str(report).splitlines())) < 120
    return str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
def test_the_map_is_that_of_the_bare_model(name: str, request: pytest.FixtureRequest):
    """Under a part of the methods, each of which meets every fourth arrangement; under all with ``--full``.

    The report of the doctor, which runs every method, is read for every fifth arrangement; for all with ``--full``.
    """
    case, place, full = in_float64(BARE), list(SAME).index(name), request.config.getoption("--full")
    model = arranged(SAME[name], case.forward_func)
    found = outcomes(model, case, a_part(place, 4, full))
    assert_same(found, bare())
    if full or place % 5 == 0:
        assert "problem" not in assert_honest(model, case, found)


@pytest.mark.slow
def test_distributed_data_parallel():
    """Its own passes count gradients, and would wait for them in the next step of a training."""
    case = in_float64(BARE)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(copy.deepcopy(case.forward_func))
        found = outcomes(model.eval(), case)
        assert_same(found, bare())
        assert_honest(model, case, found)
        for _ in range(2):
            model(case.inputs).sum().backward()
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("arrange", REFUSED_OR_SAME.values(), ids=REFUSED_OR_SAME)
def test_the_map_is_that_of_the_bare_model_or_refused(arrange: Callable[[nn.Module], nn.Module]):
    case = in_float64(BARE)
    model = arranged(arrange, case.forward_func)
    found = outcomes(model, case)
    refusals = {method: error for method, error in found.items() if isinstance(error, cv.CaptumVitError)}
    assert refusals and all(error.wanted and error.got and error.hint for error in refusals.values())
    assert_same({method: relevance for method, relevance in found.items() if method not in refusals}, bare())
    assert_honest(model, case, found)


@pytest.mark.slow
def test_autocast_of_its_own():
    """Half precision inside float32 weights: the bare model's map up to rounding, or a refusal."""
    case = CASES[BARE]()
    model = arranged(lambda model: Autocast("model", model), case.forward_func)
    found = outcomes(model, case)
    for method, relevance in found.items():
        if isinstance(relevance, Tensor):
            assert correlation(relevance, bare(exact=False)[method]) > BF16_CORRELATION, method
        else:
            assert method in IN_FULL_PRECISION and relevance.hint
    assert_honest(model, case, found)


WITHOUT_GRADIENTS = {"PredictionMap", "CAAP", "TokenEigenCAM", "RandomAttribution"}


@pytest.mark.slow
def test_linears_in_eight_bits():
    """They hand no gradient back, but the stream beside them does: a map of that would be silently wrong."""
    case = CASES[BARE]()
    model = arranged(quantised, case.forward_func)
    found = outcomes(model, case)
    assert {method for method, relevance in found.items() if isinstance(relevance, Tensor)} == WITHOUT_GRADIENTS
    for method, relevance in found.items():
        if method in WITHOUT_GRADIENTS:
            assert correlation(relevance, bare(exact=False)[method]) > BF16_CORRELATION
        elif method == "TokenAblation":  # one range for all tokens: what is left notices what is gone
            assert isinstance(relevance, cv.UnsupportedModelError)
        else:
            assert isinstance(relevance, cv.ModelStateError) and "quantized.dynamic" in relevance.got
    assert_honest(model, case, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision ViT", "open_clip"])
def test_fast_paths_change_nothing(name: str):
    """PyTorch's own kernel for a whole attention, where no graph is needed, hides everything inside."""
    case = in_float64(name)
    assert torch.backends.mha.get_fastpath_enabled()
    found = outcomes(case.forward_func, case)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert_same(found, outcomes(case.forward_func, case))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


# Layer-wise propagation divides a sum among its summands by their sign, and an adapter is a summand of its own.
BY_SUMMAND = {"LRP", "PartialLRP", "TransAttr"}
ADAPTED = {"timm ViT": ["qkv", "proj", "fc1"], "HF ViT": ["q_proj", "v_proj", "o_proj"], "HF BERT": ["query", "dense"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTED)
def test_an_adapted_model_is_explained_as_its_merger(name: str, request: pytest.FixtureRequest):
    """Each method on one of the three models; on all with ``--full``."""
    peft = pytest.importorskip("peft")
    case, place, full = in_float64(name), list(ADAPTED).index(name), request.config.getoption("--full")
    methods = a_part(place, len(ADAPTED), full)
    config = peft.LoraConfig(r=2, target_modules=ADAPTED[name], init_lora_weights=False)
    adapted = peft.get_peft_model(copy.deepcopy(case.forward_func), config).eval()
    found = outcomes(adapted, case, methods)
    merged = outcomes(copy.deepcopy(adapted).merge_and_unload(), case, methods)
    assert_same({method: relevance for method, relevance in found.items() if method not in BY_SUMMAND}, merged)
    if full or name == BARE:
        assert_honest(adapted, case, found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig"])
@pytest.mark.parametrize("masked", [True, False], ids=["mask", "no mask"])
def test_learned_prompts_are_no_words(kind: str, masked: bool):
    """A map has one number for each word; what reads no attention may pass over learned keys."""
    peft = pytest.importorskip("peft")
    case = CASES["HF BERT"]()
    case = case if masked else case._replace(additional_forward_args=())
    config = getattr(peft, kind)(task_type="SEQ_CLS", num_virtual_tokens=4)
    model = peft.get_peft_model(copy.deepcopy(case.forward_func), config).eval()
    found = outcomes(model, case)
    for relevance in found.values():
        if isinstance(relevance, Tensor):
            assert kind == "PrefixTuningConfig" and not masked and relevance.shape == case.inputs.shape
        else:
            assert relevance.wanted and relevance.got and relevance.hint
    assert_honest(model, case, found)


class Bag(At):
    """A slide of several tiles: the transformer reads them all, the output is their mean."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1)


@pytest.mark.slow
def test_a_bag_of_images_is_refused():
    case = CASES[BARE]()
    model = Bag("encoder", case.forward_func).eval()
    bags = case._replace(inputs=case.inputs.unsqueeze(1).repeat(1, 2, 1, 1, 1))
    found = outcomes(model, bags)
    assert all(isinstance(error, cv.UnsupportedModelError) and "2 sequences" in error.got for error in found.values())
    assert "2 sequences for 1 samples" in assert_honest(model, bags, found)


@pytest.mark.slow
def test_scores_without_a_name_are_refused():
    case = in_float64(BARE)
    model = Returns(case.forward_func, lambda y: Unnamed(y, y)).eval()
    found = outcomes(model, case)
    assert all(isinstance(error, cv.TraceError) and "Scalar" in error.hint for error in found.values())
    assert "Unnamed" in assert_honest(model, case, found)
    wanted = explain(cv.CAT(case.forward_func), case, target=1)
    taken_out = cv.Scalar(model, lambda output: output.first[:, 1])
    assert_close(explain(cv.CAT(taken_out), case, target=0), wanted, "float64")


class Both(nn.Module):
    """Two transformers whose scores are added."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def forward(self, x: Tensor) -> Tensor:
        return self.student(x) + self.teacher(x)


def test_of_two_transformers_that_run_both_are_named():
    model = Both(redrawn(timm_vit(**TIMM)), redrawn(timm_vit(**TIMM))).eval()
    with pytest.raises(cv.UnsupportedModelError, match="2 transformers") as refusal:
        explain(cv.LayerCDAM(model), CASES[BARE]())
    assert "tower" in refusal.value.hint
    report = cv.doctor(model)
    assert "2 transformers" in report.problems[0]
    assert not any(reason is None for reason in report.methods.values())


class BySize(Both):
    """Which of two transformers runs depends on the size of the image."""

    def forward(self, x: Tensor) -> Tensor:
        return (self.student if x.shape[-1] == 32 else self.teacher)(x)


def test_the_tower_that_runs_is_found_for_each_kind_of_inputs():
    sizes = (32, 64)
    towers = [redrawn(timm_vit(**TIMM | {"img_size": size})).eval() for size in sizes]
    model = BySize(*towers).eval()
    for size, tower in [*zip(sizes, towers, strict=True)] * 2:
        x = torch.randn(2, 3, size, size)
        for method in (cv.LayerCDAM, cv.GenAtt):
            assert torch.equal(method(model).attribute(x, target=1), method(tower).attribute(x, target=1))


def test_of_two_transformers_one_that_does_not_run_is_no_matter():
    case = CASES[BARE]()
    model = At("student", case.forward_func)
    model.teacher = redrawn(timm_vit(**TIMM))
    for method in (cv.LayerCDAM, cv.GenAtt, cv.PredictionMap):
        found, wanted = explain(method(model.eval()), case), explain(method(case.forward_func), case)
        assert torch.equal(found, wanted)


# -- the doctor, wherever he is asked ----------------------------------------------------------------------------

PLACES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
}


@cache
def report_on_the_bare_model() -> str:
    return str(cv.doctor(CASES[BARE]().forward_func))


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_the_doctor_says_the_same_in_any_mode(place: Callable[[], AbstractContextManager[Any]]):
    wanted = report_on_the_bare_model()
    with place():
        assert str(cv.doctor(CASES[BARE]().forward_func)) == wanted


@pytest.mark.slow
def test_the_doctor_says_the_same_in_another_thread():
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(str(cv.doctor(CASES[BARE]().forward_func))))
    thread.start()
    thread.join()
    assert said == [report_on_the_bare_model()]
