"""Pixels, regions, queries, boxes and frames, against the numbers of the model's own output and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DPTForDepthEstimation

import captum_vit as cv
from tests.captum_vit.targets.dense_models import detr, dpt, segformer, volumes, wav2vec2, yolos

FULL_ATTENTION = ["DecompX", "LayerCDAM", "GenAtt", "FullGrad", "CAT", "AttentionRollout"]
MASK = torch.zeros(16, 16, dtype=torch.bool)
MASK[3:7, 2:9] = True


def pictures() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def sounds() -> Tensor:
    return torch.randn(2, 400, generator=torch.Generator().manual_seed(1))


def cubes() -> Tensor:
    return torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))


def logit(p: Tensor) -> Tensor:
    return torch.logit(p)


Case = tuple[Callable[[], nn.Module], Callable[[], Tensor], Callable[[nn.Module], nn.Module], Callable[[Any], Tensor]]
CASES: dict[str, Case] = {
    "a pixel of Segformer": (segformer, pictures, lambda m: cv.Pixel(m, (5, 7)), lambda o: o.logits[:, :, 5, 7]),
    "a pixel of the picture": (
        segformer,
        pictures,
        lambda m: cv.Pixel(m, (40, 9), size=(64, 64)),
        lambda o: F.interpolate(o.logits, (64, 64), mode="bilinear")[:, :, 40, 9],
    ),
    "a region of Segformer": (
        segformer,
        pictures,
        lambda m: cv.Region(m, MASK),
        lambda o: o.logits.flatten(2)[..., MASK.flatten()].mean(-1),
    ),
    "a pixel of DPT": (dpt, pictures, lambda m: cv.Pixel(m, (5, 7)), lambda o: o.logits[:, :, 5, 7]),
    "the depth of a pixel": (
        lambda: dpt(DPTForDepthEstimation),
        pictures,
        lambda m: cv.Pixel(m, (5, 7), output="predicted_depth"),
        lambda o: o.predicted_depth[:, 5, 7, None],
    ),
    "a query of YOLOS": (yolos, pictures, lambda m: cv.Query(m, 2), lambda o: o.logits[:, 2]),
    "a query of DETR": (detr, pictures, lambda m: cv.Query(m, 4), lambda o: o.logits[:, 4]),
    "a box of YOLOS": (yolos, pictures, lambda m: cv.Box(m, 2), lambda o: logit(o.pred_boxes[:, 2])),
    "a box of DETR": (detr, pictures, lambda m: cv.Box(m, 4), lambda o: logit(o.pred_boxes[:, 4])),
    "a named box": (detr, pictures, lambda m: cv.Box(m, 4, output="pred_boxes"), lambda o: logit(o.pred_boxes[:, 4])),
    "a frame of Wav2Vec2": (wav2vec2, sounds, lambda m: cv.Frame(m, 3), lambda o: o.logits[:, 3]),
    "a voxel": (volumes, cubes, lambda m: cv.Pixel(m, (1, 6, 2)), lambda o: o[:, :, 1, 6, 2]),
    "a region of a volume": (
        volumes,
        cubes,
        lambda m: cv.Region(m, torch.arange(512).view(8, 8, 8) % 3 == 1),
        lambda o: o.flatten(2)[..., torch.arange(512) % 3 == 1].mean(-1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_scores_and_gradients_are_those_of_the_output(name: str) -> None:
    make, given, target, read = CASES[name]
    model, x = make().double(), given().double().requires_grad_()
    scores, wanted = target(model)(x), read(model(x))
    torch.testing.assert_close(scores, wanted, rtol=1e-6, atol=1e-9)
    last = wanted.shape[1] - 1
    twin = torch.autograd.grad(wanted[:, last].sum(), x)[0]
    assert twin.abs().max() > 0
    found = Saliency(target(model)).attribute(x.detach(), last, abs=False)
    torch.testing.assert_close(found, twin, rtol=1e-6, atol=1e-9 * twin.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize("method", FULL_ATTENTION)
@pytest.mark.parametrize("name", ["a pixel of DPT", "a query of YOLOS", "a box of YOLOS", "the depth of a pixel"])
def test_methods_that_read_tokens_explain_them(name: str, method: str) -> None:
    """As they explain any other function of the output."""
    make, given, target, read = CASES[name]
    model = make()
    found = cv.METHODS[method](target(model)).attribute(given(), target=0)
    assert found.shape == (2, 1, 4, 4) and found.abs().max() > 0
    if (
        name != "a box of YOLOS"
    ):  # behind its sigmoid and the inverse, rules would see two functions that are not linear
        wanted = cv.METHODS[method](cv.Scalar(model, read)).attribute(given(), target=0)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a pixel of Segformer", "a region of Segformer", "a query of DETR", "a box of DETR"])
def test_networks_without_one_grid_are_explained_under_the_frozen_rule(name: str) -> None:
    """Windows, pooled keys, a convolutional backbone and cross-attention, whose tokens and biases sum to the score."""
    make, given, target, read = CASES[name]
    model = make()
    found = cv.DecompX(target(model)).attribute(given(), target=1)
    assert found.shape[:2] == (2, 1) and found.abs().max() > 0
    if name != "a box of DETR":
        wanted = cv.DecompX(cv.Scalar(model, read)).attribute(given(), target=1)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


class WithSigmoid(nn.Module):
    """A segmentation model that ends in probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.end = model, nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.model(x).logits)


def test_what_goes_into_a_final_sigmoid_has_the_map_of_the_logit() -> None:
    model, x = dpt(), pictures()
    ends = WithSigmoid(model).eval()
    found = cv.DecompX(cv.Pixel(cv.BeforeActivation(ends), (5, 7))).attribute(x, target=1)
    wanted = cv.DecompX(cv.Pixel(model, (5, 7))).attribute(x, target=1)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


def test_each_sample_has_its_own_place() -> None:
    model, x = segformer(), pictures()
    pixels, masks = torch.tensor([[5, 7], [0, 15]]), torch.stack([MASK, MASK.T])
    logits = model(x).logits
    own = torch.stack([logits[0, :, 5, 7], logits[1, :, 0, 15]])
    torch.testing.assert_close(cv.Pixel(model)(x, pixels), own)
    means = torch.stack([(one[:, mask]).mean(-1) for one, mask in zip(logits, masks, strict=True)])
    torch.testing.assert_close(cv.Region(model)(x, masks), means)
    torch.testing.assert_close(cv.Region(model)(x, masks.float()), means)
    detector = yolos()
    queries = torch.tensor([4, 1])
    torch.testing.assert_close(cv.Query(detector)(x, queries), detector(x).logits[[0, 1], queries])
    boxes = logit(detector(x).pred_boxes[[0, 1], queries])
    torch.testing.assert_close(cv.Box(detector)(x, queries), boxes, rtol=1e-4, atol=1e-4)
    sound = wav2vec2()
    torch.testing.assert_close(cv.Frame(sound)(sounds(), queries), sound(sounds()).logits[[0, 1], queries])


@pytest.mark.parametrize("method", ["DecompX", "LayerSmoothCDAM", "GenAtt"])
def test_places_stay_with_their_samples(method: str) -> None:
    """Also in methods that repeat samples: a batch is explained as its samples alone."""
    model, x, pixels = dpt(), pictures(), torch.tensor([[5, 7], [30, 15]])
    options = {"n_samples": 3, "stdev": 1e-7} if method == "LayerSmoothCDAM" else {}
    found = cv.METHODS[method](cv.Pixel(model)).attribute(x, 1, additional_forward_args=pixels, **options)
    for row, at in enumerate(pixels.tolist()):
        alone = cv.METHODS[method](cv.Pixel(model, at)).attribute(x[row : row + 1], 1, **options)
        torch.testing.assert_close(found[row : row + 1], alone, rtol=1e-3, atol=1e-4 * alone.abs().max().item())


def test_captum_repeats_places_with_their_samples() -> None:
    model, x, pixels = segformer(), pictures(), torch.tensor([[5, 7], [0, 15]])
    found = IntegratedGradients(cv.Pixel(model)).attribute(x, target=2, additional_forward_args=pixels, n_steps=5)
    alone = IntegratedGradients(cv.Pixel(model, (0, 15))).attribute(x[1:], target=2, n_steps=5)
    torch.testing.assert_close(found[1:], alone, rtol=1e-3, atol=1e-5)


class Ends(nn.Module):
    """A model that ends as it is wished to."""

    def __init__(self, end: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.scores, self.end = nn.Conv2d(3, 4, 8, 8), end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.scores(x))


KINDS: dict[str, Callable[[Tensor], Any]] = {
    "a tensor": lambda x: x,
    "a dictionary": lambda x: {"logits": x, "loss": x.mean()},
    "a tuple of one": lambda x: (x,),
    "a tuple with more": lambda x: (x, [x, x], None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_model_returns(kind: str) -> None:
    model = Ends(KINDS[kind])
    torch.testing.assert_close(cv.Pixel(model, (1, 2))(pictures()), model.scores(pictures())[:, :, 1, 2])


def test_several_outputs_go_by_name_or_place() -> None:
    model = Ends(lambda x: (x, -x))
    torch.testing.assert_close(cv.Pixel(model, (1, 2), output=1)(pictures()), -model.scores(pictures())[:, :, 1, 2])
    named = Ends(lambda x: {"out": x, "aux": -x})
    torch.testing.assert_close(cv.Pixel(named, (1, 2), output="aux")(pictures()), -named.scores(pictures())[:, :, 1, 2])
    with pytest.raises(cv.TraceError, match=r"'out' of shape.*'aux' of shape"):
        cv.Pixel(named, (1, 2))(pictures())
    with pytest.raises(cv.TraceError, match="holds 'main'"):
        cv.Pixel(named, (1, 2), output="main")(pictures())


SIGMOIDS: dict[str, Callable[[Tensor], Any]] = {
    "a method": lambda x: x.sigmoid(),
    "a module": nn.Sigmoid(),
    "in place": lambda x: x.sigmoid_(),
    "a softmax": lambda x: x.softmax(1),
    "its logarithm": lambda x: F.log_softmax(x, 1),
    "stacked and taken": lambda x: torch.stack([x, x.sigmoid()])[-1],
}


@pytest.mark.parametrize("end", SIGMOIDS)
def test_what_goes_into_a_final_sigmoid_is_found(end: str) -> None:
    model = Ends(SIGMOIDS[end])
    before = cv.BeforeActivation(model)
    torch.testing.assert_close(before(pictures()), model.scores(pictures()))
    x = pictures().requires_grad_()
    twin = torch.autograd.grad(model.scores(x)[:, 2, 1, 5].sum(), x)[0]
    found = InputXGradient(cv.Pixel(before, (1, 5))).attribute(x.detach(), target=2)
    torch.testing.assert_close(found, twin * x.detach())


@pytest.mark.parametrize("end", [lambda x: x, lambda x: 10 * x.sigmoid(), lambda x: x.sigmoid() + x.mean()])
def test_an_output_that_no_sigmoid_gives_is_refused(end: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(cv.UnsupportedModelError, match="result of a sigmoid or a softmax"):
        cv.BeforeActivation(Ends(end))(pictures())


WRONG: dict[str, tuple[Callable[[], nn.Module], type[Exception], str]] = {
    "a pixel outside": (lambda: cv.Pixel(segformer(), (16, 0)), cv.TargetError, r"\(16, 0\).*\n.*\(15, 15\) at most"),
    "a pixel of a class": (lambda: cv.Pixel(Ends(lambda x: x[..., 0, 0]), (1, 2)), cv.UnsupportedModelError, "2 dim"),
    "a mask of another size": (
        lambda: cv.Region(segformer(), torch.ones(64, 64)),
        cv.TargetError,
        r"\(64, 64\)\nTry: size=\(64, 64\)",
    ),
    "a query that is none": (lambda: cv.Query(yolos(), 5), cv.TargetError, "query 5\nTry: 4 at most"),
    "a query of a picture": (lambda: cv.Query(segformer(), 5), cv.UnsupportedModelError, "a query in each row"),
    "boxes that are none": (lambda: cv.Box(segformer(), 0), cv.UnsupportedModelError, "result of a sigmoid"),
    "no place": (lambda: cv.Pixel(segformer()), cv.TargetError, "none in the constructor"),
    "an output that is none": (
        lambda: cv.Pixel(segformer(), (1, 2), output="depth"),
        cv.TraceError,
        "'logits' of shape",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused(what: str) -> None:
    make, error, words = WRONG[what]
    with pytest.raises(error, match=words):
        make()(pictures())


def test_a_class_out_of_range_is_refused() -> None:
    with pytest.raises(cv.TargetError):
        cv.LayerCDAM(cv.Pixel(dpt(), (1, 2))).attribute(pictures(), target=4)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: cv.Pixel(m, (-1, 2)),
        lambda m: cv.Pixel(m, (1.5, 2)),
        lambda m: cv.Pixel(m, "ab"),
        lambda m: cv.Pixel(m, (1, 2), size=(8, 8, 8)),
        lambda m: cv.Pixel(m, 7),
        lambda m: cv.Query(m, -1),
        lambda m: cv.Region(m, torch.zeros(4, 4)),
        lambda m: cv.Region(m, torch.full((4, 4), 0.5)),
        lambda m: cv.Region(m, [[1]]),
    ],
)
def test_a_place_that_is_none_is_refused_before_the_work(make: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises((cv.OptionError, cv.InputError), match="Try: "):
        make(nn.Identity())
