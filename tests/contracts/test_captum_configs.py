"""Our CDAM in the place of Captum's LayerGradientXActivation, over the models that ship in captum.testing."""

import copy
from typing import Any

import pytest
import torch
from captum.attr import LayerGradientXActivation
from captum.testing.attr.helpers.test_config import config
from torch import Tensor, nn

import captum_vit as cv
from tests.contracts.closeness import assert_close
from tests.contracts.fingerprint import fingerprint

# A list of layers is not offered: METHODS explain one place at a time.
CONFIGS = {
    entry["name"]: entry
    for entry in config
    if LayerGradientXActivation in entry["algorithms"] and isinstance(entry["layer"], str)
}
TARGETED = [name for name, entry in CONFIGS.items() if isinstance(entry["attribute_args"]["target"], list | Tensor)]


class Arrangement:
    """A fresh copy of one configuration, in double precision."""

    def __init__(self, name: str) -> None:
        entry = CONFIGS[name]
        self.model: nn.Module = copy.deepcopy(entry["model"]).double().eval()
        self.layer: str = entry["layer"]
        self.arguments: dict[str, Any] = {key: doubled(value) for key, value in entry["attribute_args"].items()}

    @property
    def module(self) -> nn.Module:
        return self.model.get_submodule(self.layer)

    def ours(self, **changes: Any) -> Tensor:
        cdam = cv.LayerCDAM(self.model, self.module, output="channels")
        return first(cdam.attribute(**self.arguments | changes))

    def captums(self, **changes: Any) -> Tensor:
        return first(LayerGradientXActivation(self.model, self.module).attribute(**self.arguments | changes)).detach()

    def state(self) -> dict[str, Any]:
        inputs = self.arguments["inputs"]
        return fingerprint(self.model, *(inputs if isinstance(inputs, tuple) else (inputs,)))


def doubled(value: Any) -> Any:
    """Every tensor of float32, also in a tuple, as float64; a copy."""
    if isinstance(value, tuple):
        return tuple(map(doubled, value))
    return value.double() if isinstance(value, Tensor) and value.dtype == torch.float32 else copy.deepcopy(value)


def first(found: Any) -> Tensor:
    """Of a layer with several outputs, ours reads the first."""
    return found[0] if isinstance(found, tuple) else found


def test_there_are_configurations():
    assert len(CONFIGS) >= 6 and TARGETED


@pytest.mark.parametrize("name", CONFIGS)
def test_values_are_captums(name):
    at = Arrangement(name)
    assert_close(at.ours(), at.captums(), "float64")


@pytest.mark.parametrize("name", TARGETED)
def test_targets_for_each_sample_equal_runs_on_each(name):
    at = Arrangement(name)
    together = at.ours()
    for i, target in enumerate(at.arguments["target"]):
        alone = at.ours(inputs=at.arguments["inputs"][i : i + 1], target=target)
        assert_close(together[i : i + 1], alone, "float64")


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_stays_behind(name):
    at = Arrangement(name)
    before = at.state()
    at.ours()
    assert at.state() == before


@pytest.mark.parametrize("target", [99, None, (0, 0, 0, 0)])
@pytest.mark.parametrize("name", CONFIGS)
def test_wrong_targets_are_assertion_errors_and_leave_nothing(name, target):
    at = Arrangement(name)
    before = at.state()
    with pytest.raises(AssertionError):
        at.ours(target=target)
    assert at.state() == before


@pytest.mark.parametrize("name", CONFIGS)
def test_a_layer_that_raises_leaves_nothing(name):
    at = Arrangement(name)

    def fail(*_: Any) -> None:
        raise ArithmeticError

    at.module.register_forward_hook(fail)
    before = at.state()
    with pytest.raises(ArithmeticError):
        at.ours()
    assert at.state() == before


@pytest.mark.parametrize("name", CONFIGS)
def test_without_gradients_on_parameters_or_mode(name):
    at = Arrangement(name)
    wanted = at.captums()
    at.model.requires_grad_(False)
    with torch.no_grad():
        assert_close(at.ours(), wanted, "float64")


def test_a_list_of_layers_is_refused():
    at = Arrangement("basic_layer_in_place")
    with pytest.raises(cv.LayerError):
        cv.LayerCDAM(at.model, [at.module], output="channels").attribute(**at.arguments)
