"""A spec of one's own is held to a pass."""

import dataclasses

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import captum_vit as cv
from captum_vit.description.measured import held_to_pass
from captum_vit.models import registry
from captum_vit.trace.run.state import undisturbed
from tests.models import CASES, redrawn
from tests.models.specs import BERT, SPECS
from tests.models.timm import TIMM


class Mine(VisionTransformer):
    """A class of its own."""


IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
WRONG = {
    "mid": ({"mid": "mlp"}, "`mid` of block 0 at the input of Mlp"),
    "attention": ({"attn": "norm1"}, "`attn_in` of block 0 at the input of LayerNorm"),
    "a norm where there is none": ({"first_norm": "norm2"}, "block 0 with `before_mid`"),
    "an end where there is none": ({"last_norm": "norm2"}, "block 0 with `before_norm`"),
    "entry": ({"entry": "patch_embed"}, "`entrance` of block 0 at the input of PatchEmbed"),
}


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("method", ["LayerCDAM", "GenAtt"])
def test_a_spec_that_contradicts_the_pass_is_refused_with_both_sides(wrong: str, method: str):
    change, words = WRONG[wrong]
    cv.register_spec(Mine, spec=dataclasses.replace(cv.Spec(family="mine"), **change))
    with pytest.raises(cv.UnsupportedModelError) as caught:
        cv.METHODS[method](redrawn(Mine(**TIMM))).attribute(IMAGE, target=0)
    assert words in caught.value.wanted and caught.value.got


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("norms", [{"first_norm": None, "last_norm": None}, {"first_norm": "output.LayerNorm"}])
def test_a_post_norm_block_described_wrongly(norms: dict[str, str | None]):
    model, ids, args, target = CASES["HF BERT"]()
    cv.register_spec(type(model.bert), spec=dataclasses.replace(BERT, **norms))
    with pytest.raises(cv.UnsupportedModelError, match="description that fits"):
        cv.LayerCDAM(model).attribute(ids, target=target, additional_forward_args=args)


@pytest.mark.usefixtures("own_registry")
def test_a_spec_that_fits_is_taken():
    cv.register_spec(Mine, spec=cv.Spec(family="mine"))
    model = redrawn(Mine(**TIMM))
    plain = redrawn(VisionTransformer(**TIMM))
    plain.load_state_dict(model.state_dict())
    found, wanted = (cv.GenAtt(m).attribute(IMAGE, target=0) for m in (model, plain))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", CASES)
def test_specs_that_fit_are_not_refused(name: str, monkeypatch: pytest.MonkeyPatch):
    case = CASES[name]()
    monkeypatch.setattr(registry, "_REGISTRY", SPECS)
    inputs = case.inputs if isinstance(case.inputs, tuple) else (case.inputs,)
    with undisturbed(case.forward_func):
        (described,) = registry.all_known(case.forward_func)
        held_to_pass(case.forward_func, described, inputs, case.additional_forward_args or ())
