"""What cannot be explained is refused in words that help, and the model is as before."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

import captum_vit as cv
from tests.contracts.fingerprint import fingerprint
from tests.contracts.pairs import REFUSED, Pair, draws, explain, knows_targets
from tests.models import CASES, OF_TOKENS, STRANGERS, TEXTS, Case


def refused(
    make: Callable[[nn.Module], object], case: Case, error: type[Exception], captums: type[Exception] | None = None
) -> cv.CaptumVitError:
    """The error, which says what was wanted, what was got and what to try."""
    model, inputs = case.forward_func, (case.inputs, *case.additional_forward_args)
    before = fingerprint(model, *inputs, rng=False) if isinstance(model, nn.Module) else None
    with pytest.raises(error) as caught:
        explain(make(model), case)
    assert isinstance(caught.value, cv.CaptumVitError)
    assert captums is None or isinstance(caught.value, captums)
    assert caught.value.wanted and caught.value.got and caught.value.hint
    if before is not None:
        assert fingerprint(model, *inputs, rng=False) == before
    return caught.value


def spoilt(case: Case, how: str) -> Case:
    """The batch of a case with one thing wrong."""
    x = case.inputs
    picture = x.is_floating_point()
    holes = x.clone()
    if picture:
        holes[1].view(-1)[0] = torch.nan
    changes = {
        "no samples": x[:0],
        "another size": torch.randn(3, 3, 40, 32) if picture else torch.randint(0, 50, (3, 40)),
        "another number of channels": torch.randn(3, 1, 32, 32) if picture else torch.full((3, 9), 77),
        "not a number": holes,
        "infinite": holes.nan_to_num(torch.inf) if picture else holes,
        "no batch": x[0],
        "a list": [x],
        "a dictionary": {"inputs": x},
        "an empty tuple": (),
        "an array": x.numpy(),
    }
    args = tuple(a[:0] if how == "no samples" else a for a in case.additional_forward_args)
    if how in ("another size", "no batch"):
        args = ()
    return case._replace(inputs=changes[how], additional_forward_args=args)


BATCHES = (
    "no samples", "another size", "another number of channels", "not a number", "infinite", "no batch",
    "a list", "a dictionary", "an empty tuple", "an array",
)  # fmt: skip
PICTURES_ONLY = {"not a number", "infinite"}


@pytest.mark.along("how", BATCHES)
def test_a_spoilt_batch(slice_pair, how):
    if slice_pair.model in TEXTS and how in PICTURES_ONLY:
        return
    refused(cv.METHODS[slice_pair.method], spoilt(slice_pair.case, how), cv.InputError, ValueError)


@pytest.mark.along("how", ["no samples", "another number of channels", "not a number"])
def test_a_spoilt_batch_in_every_family(image_pair, how):
    refused(cv.METHODS[image_pair.method], spoilt(image_pair.case, how), cv.InputError, AssertionError)


@pytest.mark.along("target", [99, None, [0, 1], -99])
def test_a_wrong_target(pair, target):
    """A method that knows no target needs none."""
    if target is None and not knows_targets(pair):
        return
    error = refused(cv.METHODS[pair.method], pair.case._replace(target=target), cv.TargetError, AssertionError)
    assert error.hint


def test_training_mode(pair):
    model = copy.deepcopy(pair.case.forward_func).train()
    error = refused(cv.METHODS[pair.method], pair.case._replace(forward_func=model), cv.ModelStateError, RuntimeError)
    assert "eval" in error.hint
    assert all(module.training for module in model.modules())


@pytest.mark.along("stranger", STRANGERS)
def test_a_model_that_is_no_plain_transformer(method, stranger):
    model, images = STRANGERS[stranger]().eval(), torch.randn(1, 3, 32, 32)
    case = CASES["timm ViT"]()._replace(forward_func=model, inputs=images)
    if method in OF_TOKENS:
        found = cv.METHODS[method](model).attribute(images, target=0)
        assert found.dim() == 4 and len(found) == 1 and torch.isfinite(found).all()
        return
    error = refused(cv.METHODS[method], case._replace(target=0), cv.UnsupportedModelError, TypeError)
    assert type(case.forward_func).__name__ in error.got and error.hint


class Hidden(nn.Module):
    """A model whose forward hides from gradients, or from us."""

    def __init__(self, model: nn.Module, how: str) -> None:
        super().__init__()
        self.model, self.how = model, how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "detached":
            return self.model(x).detach()
        if self.how == "called twice":
            return self.model(x) + self.model(x.flip(-1))
        with torch.inference_mode() if self.how == "in inference mode" else torch.no_grad():
            return self.model(x)


@cache
def hidden_vit(how: str) -> Case:
    case = CASES["timm ViT"]()
    return case._replace(forward_func=Hidden(case.forward_func, how).eval())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["detached", "without gradients", "in inference mode", "called twice"])
def test_a_forward_that_hides(method, how):
    """A method that needs no gradient, or one pass of several, may explain it as ever."""
    case = CASES["timm ViT"]()
    hidden = hidden_vit(how)
    made = cv.METHODS[method](hidden.forward_func)
    try:
        found = explain(made, hidden)
    except (cv.TraceError, cv.UnsupportedModelError) as error:
        assert error.got and error.hint
        assert how != "called twice" or "the first block ran again" in error.got
    else:
        assert how != "called twice" or draws(made)
        assert torch.equal(found, explain(cv.METHODS[method](case.forward_func), case))


def test_a_function_instead_of_a_model(method):
    model = CASES["timm ViT"]().forward_func
    case = CASES["timm ViT"]()._replace(forward_func=lambda x: model(x))
    assert "nn.Module" in refused(cv.METHODS[method], case, cv.UnsupportedModelError, TypeError).hint


@pytest.mark.parametrize("unfit", sorted(REFUSED), ids="-".join)
def test_pairs_that_are_refused(unfit):
    pair = Pair(*unfit)
    assert refused(cv.METHODS[pair.method], pair.case, cv.UnsupportedModelError).hint


WITH_LAYER = {name: cv.METHODS[name] for name in ("LayerCDAM", "PredictionMap", "PredicAtt", "TokenGradCAM")}
WRONG_LAYERS: dict[str, Callable[[], object]] = {
    "of another model": lambda: copy.deepcopy(CASES["timm ViT"]().forward_func).blocks[1],
    "unknown name": lambda: "blocks.7",
    "unknown block": lambda: 3,
    "unknown block from the end": lambda: -4,
    "no layer": lambda: 1.5,
    "a truth value": lambda: True,
    "not a sequence of tokens": lambda: "patch_embed.proj",
    "after the tokens are pooled": lambda: "head",
    "never run": lambda: "blocks.0.attn.attn_drop",
}


@pytest.mark.parametrize("layer", WRONG_LAYERS)
@pytest.mark.parametrize("make", WITH_LAYER.values(), ids=WITH_LAYER)
def test_a_wrong_layer(make, layer):
    refused(lambda model: make(model, WRONG_LAYERS[layer]()), CASES["timm ViT"](), cv.LayerError, ValueError)


@pytest.mark.parametrize("name", ["RawAttention", "AttentionRollout", "DecompX", "CAT", "AttCAT"])
def test_a_wrong_start(name):
    refused(lambda model: getattr(cv, name)(model, 3), CASES["timm ViT"](), cv.LayerError)


@pytest.mark.parametrize("layer", ["blocks.2", "norm"])
def test_a_layer_whose_patches_get_no_gradient(layer):
    """Behind it a CLS-pooled model reads the CLS token alone: the map would be a silent zero."""
    error = refused(lambda model: cv.LayerCDAM(model, layer), CASES["timm ViT"](), cv.LayerError)
    assert "layer=None" in error.hint


def test_a_layer_whose_patches_get_no_gradient_in_text():
    error = refused(lambda model: cv.LayerCDAM(model, "bert.encoder.layer.2"), CASES["HF BERT"](), cv.LayerError)
    assert "layer=None" in error.hint


@pytest.mark.parametrize("model", ["timm ViT mean", "HF CLIP classifier"])
def test_that_layer_carries_a_map_where_all_tokens_are_read(model):
    case = CASES[model]()
    last = cv.spec_of(case.forward_func).modules()[-1]
    assert explain(cv.LayerCDAM(case.forward_func, last), case).any()


def test_there_a_norm_of_single_tokens_leaves_nothing():
    """SigLIP's pooling attends to normalised tokens: along a token itself the score has no slope."""
    case = CASES["timm SigLIP"]()
    last = cv.spec_of(case.forward_func).modules()[-1]
    with pytest.warns(cv.ZeroMapWarning):
        assert not explain(cv.LayerCDAM(case.forward_func, last), case).any()


OPTIONS: dict[str, Callable[[nn.Module], object]] = {
    "score": lambda model: cv.PredictionMap(model, score="probability"),
    "similarity": lambda model: cv.PredicAtt(model, similarity="euclid"),
    "VTranM's score": lambda model: cv.VTranM(model, score="probs"),
    "output": lambda model: cv.LayerCDAM(model, output="map"),
    "PLUS over a class": lambda model: cv.PLUS(cv.DecompX),
    "PLUS over a method without layers": lambda model: cv.PLUS(cv.PredictionMap(model)),
    "no layers": lambda model: cv.PLUS(cv.DecompX(model), layers=[]),
    "concept similarity": lambda model: cv.ConceptSimilarity(model, torch.randn(2, 24), similarity="l1"),
    "softmax of what is no class logit": lambda model: cv.PredictionMap(cv.Margin(model, 0, 1), score="prob"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_wrong_option(option):
    refused(OPTIONS[option], CASES["timm ViT"]()._replace(target=0), cv.OptionError, ValueError)


def test_pixels_of_a_text():
    refused(lambda model: cv.LayerCDAM(model, output="pixels"), CASES["HF BERT"](), cv.OptionError)


def test_errors_survive_pickling_and_say_all_three():

    error = cv.TargetError("A target.", "nothing", "target=1")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "A target.\nGot: nothing\nTry: target=1"
