"""A method by name takes all its options, in Python, TOML and a shell by one reader; a wrong one is refused first."""

from typing import Any

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients

import captum_vit as cv
from captum_vit.attr.input_gradient import smooth_grad
from captum_vit.models.smallest import smallest
from captum_vit.named_method import method_named, options_of
from quantus_metrics.benchmark.factories import make_method
from quantus_metrics.benchmark.toml_spec import MethodSpec

MODEL, IMAGE = smallest()


def map_of(text: str, **options: Any) -> torch.Tensor:
    torch.manual_seed(3)
    method = method_named(text, options)
    return method.make(MODEL).attribute(IMAGE, target=1, **method.options)


@pytest.mark.slow
def test_every_name_is_a_method_of_the_smallest_model() -> None:
    """So what is refused there is refused for the options."""
    for name in cv.METHODS:
        assert cv.METHODS[name](MODEL).attribute(IMAGE, target=1).shape == (1, 1, 2, 2), name
        assert options_of(name) or name.startswith("PLUS("), name


def test_a_text_a_table_and_keywords_are_the_same() -> None:
    torch.manual_seed(3)
    direct = cv.InputGradient(MODEL, smooth_grad, nt_samples=2, stdevs=0.3, abs=False).attribute(IMAGE, target=1)
    assert torch.equal(map_of("SmoothGrad(nt_samples=2, stdevs=0.3, abs=False)"), direct)
    assert torch.equal(map_of("SmoothGrad(nt_samples=2)", stdevs=0.3, abs=False), direct)
    torch.manual_seed(3)
    made = cv.METHODS["SmoothGrad"](MODEL, nt_samples=2, stdevs=0.3, abs=False)
    assert torch.equal(made.attribute(IMAGE, target=1), direct)
    in_toml = make_method(MethodSpec("SG", "SmoothGrad(nt_samples=2)", {"stdevs": 0.3, "abs": False}))
    torch.manual_seed(3)
    assert torch.equal(in_toml.make(MODEL).attribute(IMAGE, target=1), direct)


def test_options_of_both_kinds_go_where_they_belong() -> None:
    found = method_named("LayerSmoothCDAM(stdev=0.2, rule='frozen', n_samples=3)")
    assert found.make(MODEL).rule == "frozen" and found.options == {"stdev": 0.2, "n_samples": 3}  # type: ignore[attr-defined]


def test_inside_a_sum() -> None:
    plain = cv.PLUS(InputXGradient(MODEL)).attribute(IMAGE, target=1)
    assert torch.allclose(map_of("PLUS(InputXGradient(output='grid'))"), plain)
    few = cv.PLUS(cv.InputGradient(MODEL, IntegratedGradients, n_steps=3), layers=[1]).attribute(IMAGE, target=1)
    assert torch.equal(map_of("PLUS(IntegratedGradients(n_steps=3), layers=[1])"), few)
    assert not torch.allclose(map_of("PLUS(IntegratedGradients(n_steps=9), layers=[1])"), few)
    assert torch.equal(map_of("SkipPLUS(DecompX(rule='libra'), start_layer=0)"), map_of("PLUS(DecompX(rule='libra'))"))
    assert torch.equal(map_of("PLUS(DecompX)", layers=[0]), map_of("DecompX"))


def test_explain_takes_them_in_the_name_and_beside_it() -> None:
    model = torch.nn.Sequential(MODEL).eval()
    named = cv.explain(model, IMAGE, 1, "DecompX(rule='libra')").map
    assert torch.equal(cv.explain(model, IMAGE, 1, "DecompX", rule="libra").map, named)
    assert torch.equal(named, cv.DecompX(MODEL, rule="libra").attribute(IMAGE, target=1)[0, 0])
    draws = torch.Generator().manual_seed(7)
    state = draws.get_state()
    method_named("LayerSmoothCDAM", {"generator": draws})
    assert torch.equal(draws.get_state(), state)  # an object is not tried


REFUSED = {
    "SmoothGrad(stdevs=0.15, n_samples=20)": ["nt_samples", "stdevs, draw", "'n_samples'"],
    "SmoothGrad(stdevs='a')": ["finite number", "stdevs=1.0"],
    "SmoothGrad(stdevs=-1)": ["at least 0"],
    "SmoothGrad(abs='no')": ["True or False"],
    "SmoothGrad(nt_type='mean')": ["smoothgrad_sq"],
    "IntegratedGradients(n_steps=0)": ["at least 1", "n_steps=50"],
    "IntegratedGradients(baselines='black')": ["number"],
    "LayerSmoothCDAM(stdev=-1)": ["`stdev`", "stdev=0.5"],
    "GenAtt(rule='frozen')": ["An option of GenAtt: output."],
    "GenAtt(output='map')": ["'pixels'"],
    "DecompX(rule=libra)": ["rule='libra'"],
    "SmoothGrad(abs=false)": ["abs=False"],
    "LayerSmoothCDAM(stdev=1, stdev=2)": ["each once"],
    "PLUS(LayerCDAM)": ["PLUS(DecompX)"],
    "PLUS(AttCAM(relu_attributions=True))": ["of the constructor", "relu_attributions"],
    "PLUS(GenAtt, layers=[])": ["At least one layer"],
    "GenAtt(GenAtt)": ["SkipPLUS"],
    "Smothgrad(stdevs=1)": ["SmoothGrad"],
    "GenAtt(": ["GenAtt"],
    "open('file', 'w')": ["by its name"],
    "GenAtt(output=open('file', 'w'))": ["in quotes"],
    "(" * 500: ["METHODS"],
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:40])
def test_what_is_wrong_is_refused_with_what_works(text: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no model there, and nothing of the text executed."""
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    with pytest.raises(cv.OptionError) as error:
        method_named(text)
    assert all(word in str(error.value) for word in REFUSED[text]), str(error.value)
    assert not list(tmp_path.iterdir()) and torch.equal(torch.get_rng_state(), before)


def test_an_option_twice_is_refused_and_a_layer_is_left_to_the_model() -> None:
    with pytest.raises(cv.OptionError, match="Each option once"):
        method_named("SmoothGrad(stdevs=0.1)", {"stdevs": 0.2})
    assert method_named("LayerCDAM(layer=11)").make(MODEL).layer == 11  # type: ignore[attr-defined]
    assert method_named("RawAttention(head=70)")


def test_arguments_of_a_method_that_hands_them_on_are_its_own_affair() -> None:
    class Open(IntegratedGradients):
        def attribute(self, inputs: Any, target: Any = None, factor: float = 1.0, **more: Any) -> Any:
            return factor * inputs + more["any"]

    assert cv.InputGradient(MODEL, Open, factor=2.0, any=1).attribute(IMAGE, target=1).any()
    with pytest.raises(cv.OptionError, match="factor"):
        cv.InputGradient(MODEL, Open, factor="two")
