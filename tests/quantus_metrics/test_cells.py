"""Maps of patches that do not tile their image: each patch over the pixels that it reads, in every metric."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.errors import InputError
from captum_vit.tokens import placed
from quantus_metrics.benchmark.group import Group
from quantus_metrics.benchmark.measure import Maps, measure
from quantus_metrics.metrics import METRICS
from quantus_metrics.metrics.box_sensitivity import box_correlation
from quantus_metrics.perturb import Black, DropTokens, Fill, curves
from quantus_metrics.perturb.box import box_changes, draw_boxes
from tests.contracts.test_pixels import cut_off, padded
from tests.quantus_metrics.metrics.test_every_metric import FEW

Case = tuple[nn.Module, Tensor, Tensor, tuple[int, int, int, int]]


@cache
def divisible() -> Case:
    """Patches of 8 read 32 of 36 pixels, which 4 divides too: nothing but the model shows that cells are not of 9."""
    model, x, read = cut_off()
    x = torch.cat([x, x], -1)[..., :36, :36]
    return model, x, x[..., :32, :32], (0, 0, 32, 32)


@cache
def not_divisible() -> Case:
    return *cut_off(), (0, 0, 32, 32)


@cache
def beyond() -> Case:
    return *padded(), (0, 0, 32, 32)


class Cropped(nn.Module):
    """A model that cuts its picture before the tower is asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x[..., 2:34, 4:36])


@cache
def cropped() -> Case:
    x = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    return Cropped(padded()[0]).eval(), x, x[..., 2:34, 4:36], (2, 4, 34, 36)


CASES = pytest.mark.parametrize("case", [divisible, not_divisible, beyond, cropped])


def same(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def grids() -> Tensor:  # shape: (2, 1, 4, 4)
    return torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def options(metric: type[qm.metrics.TokenMetric]) -> dict[str, Any]:
    """Small, and by patches where maps are of pixels."""
    found = dict(FEW.get(metric.__name__, {}))
    if "remover" in metric.__init__.__kwdefaults__ or issubclass(metric, qm.metrics.CurveMetric):
        found |= {} if issubclass(metric, qm.Deletion | qm.Insertion) else {"remover": Fill(3.0)}
    return found


@CASES
@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.__name__)
def test_a_map_of_patches_is_the_map_of_its_pixels(metric: Any, case: Callable[[], Case]) -> None:
    model, x, _, box = case()
    if metric in (qm.Compactness, qm.MPRT):
        return  # they lay no map over an image
    size, mode = (x.shape[-2], x.shape[-1]), "bilinear" if metric is qm.Segmentation else "nearest-exact"
    masks = np.zeros((2, 1, *size))
    masks[..., 5:20, 9:] = 1
    call: dict[str, Any] = {"x_batch": x.numpy(), "y_batch": np.array([1, 4]), "s_batch": masks}
    inner = (
        {"metric": qm.Fidelity(patch_size=8, fractions=(0, 0.3))}
        if metric is qm.ClassDiscrimination
        else options(metric)
    )
    pixels = placed(grids(), box, size, mode)
    scores = []
    for maps in (grids(), pixels):
        custom = {"custom_batch": -(maps.numpy() ** 3)} if metric is qm.ClassDiscrimination else {}
        scores.append(metric(**inner)(model, **call, a_batch=maps.numpy(), **custom))
    same(*scores)


@CASES
@pytest.mark.parametrize("remover", [Fill(), DropTokens()])
def test_a_border_that_is_not_read_changes_no_curve(case: Callable[[], Case], remover: Any) -> None:
    """As of the picture that the patches do tile; what is filled with 0 is like padding."""
    model, x, read, _ = case()
    inner = model.model if isinstance(model, Cropped) else model
    half = {"remover": remover, "fractions": (0, 0.25, 0.5), "target": torch.tensor([1, 4]), "relevance": grids()}
    found, wanted = curves(model, x, **half), curves(inner, read, **half)
    for order in wanted:
        same(found[order].scores, wanted[order].scores)


@CASES
@pytest.mark.parametrize("remover", [Fill(), DropTokens()])
def test_boxes_of_whole_patches_lie_over_them(case: Callable[[], Case], remover: Any) -> None:
    model, x, read, _ = case()
    inner = model.model if isinstance(model, Cropped) else model
    metric = qm.BoxSensitivity(on_grid=True, n_boxes=6, sizes=(1, 2), remover=remover)
    found, wanted = (
        metric(net, images.numpy(), np.array([1, 4]), a_batch=grids().numpy())
        for net, images in ((model, x), (inner, read))
    )
    same(found, wanted)
    pixels = qm.BoxSensitivity(on_grid=True, n_boxes=6, sizes=(1, 2), remover=remover, patch_size=8)
    maps = torch.randn(2, 1, *x.shape[2:], dtype=torch.float64)
    assert np.isfinite(pixels(model, x.numpy(), np.array([1, 4]), a_batch=maps.numpy())).all()


def test_what_a_padded_patch_loses_is_what_it_says() -> None:
    """A map of what each patch changes is right, although half of the last patches is padding."""
    model, x, _, box = beyond()
    boxes = draw_boxes((32, 32), (8,), 40, step=8)
    changes = box_changes(model, x, torch.tensor([1, 4]), boxes, remover=DropTokens(), step=8, box=box)
    maps = torch.zeros(2, 4, 4, dtype=torch.float64)
    maps[:, boxes[0, :, 1] // 8, boxes[0, :, 2] // 8] = changes[:, 0].double()
    same(box_correlation(maps, boxes, changes, (28, 30), box), 1)


@pytest.mark.parametrize("size, message", [((36, 36), "own patch size"), ((6, 6), "4 x 4 patches"), ((2, 2), "4 x 4")])
def test_cells_that_are_no_patches_are_refused(size: tuple[int, int], message: str) -> None:
    model, x, _, _ = divisible()
    call = model, x.numpy(), np.array([1, 4])
    maps = torch.randn(2, *size).numpy()
    with pytest.raises(InputError, match=message):
        qm.Deletion(patch_size=9)(*call, a_batch=maps)
    if size != (36, 36):  # pixels may leave in cells of any size, tokens may not
        for metric in (qm.Fidelity(), qm.BoxSensitivity(n_boxes=4), qm.Segmentation(), qm.GridPointing()):
            with pytest.raises(InputError, match=message):
                metric(*call, a_batch=maps, s_batch=np.eye(36)[None].repeat(2, 0))
        with pytest.raises(InputError, match=message):
            curves(model, x, 0, torch.randn(2, *size))
        return
    assert np.isfinite(qm.Fidelity(patch_size=9)(*call, a_batch=maps)).all()
    assert np.isfinite(qm.Deletion(patch_size=8)(*call, a_batch=maps)).all()  # as the error says


def test_maps_of_pixels_and_of_patches_are_compared_over_their_pixels() -> None:
    model, x, _, box = not_divisible()
    call = model, x.numpy(), np.array([1, 4])
    metric = qm.ClassDiscrimination(qm.Fidelity(patch_size=8, fractions=(0, 0.3)))
    wrong = -(grids() ** 3)
    pixels = placed(wrong, box, (x.shape[-2], x.shape[-1]), "nearest-exact")
    found = [metric(*call, a_batch=grids().numpy(), custom_batch=maps.numpy()) for maps in (wrong, pixels)]
    same(*found)
    explain = lambda model, inputs, targets, **_: cv.GenAtt(model).attribute(torch.tensor(inputs), 1).numpy()  # noqa: E731
    tried = qm.self_test(qm.AOPC(remover=Black(0.5, 0.5), fractions=(0.5,)), explain, *call, verbose=False)
    assert len(tried.rivals) == 3


def test_a_call_embeds_one_image_for_it() -> None:
    model, x, _, _ = divisible()
    seen: list[int] = []
    (convolution,) = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    handle = convolution.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    masks = np.eye(36)[None].repeat(2, 0)
    call = model, x.numpy(), np.array([1, 4])
    qm.GridPointing()(*call, a_batch=grids().numpy(), s_batch=masks, batch_size=1)
    handle.remove()
    assert seen == 5 * [1]


def test_explanations_of_a_model_that_crops_lie_where_it_reads() -> None:
    model, x, read, (top, left, bottom, right) = cropped()
    explain = qm.explain_func(cv.GenAtt)
    found, inside = explain(model, x.numpy(), np.array([1, 4])), explain(model.model, read.numpy(), np.array([1, 4]))
    same(found[..., top:bottom, left:right], inside)
    assert np.isclose(np.abs(found).sum(), np.abs(inside).sum())


def test_a_benchmark_gives_the_metrics_of_quantus_the_same_pixels() -> None:
    model, x, _, _ = not_divisible()
    given: list[np.ndarray] = []

    class Kept(quantus.Sparseness):
        def __call__(self, *, a_batch: np.ndarray, **call: Any) -> list[float]:
            given.append(a_batch)
            return [0.0] * len(a_batch)

    group = Group(("a", "b"), x, np.array([1, 4]))
    method = cv.GenAtt(model)
    list(
        measure(
            lambda group: Maps(method, {}, group), group, {"kept": Kept(disable_warnings=True)}, qm.Passes(model), 0
        )
    )
    same(given[0], qm.explain_func(cv.GenAtt)(model, x.numpy(), group.labels))


def test_other_models_divide_their_images_evenly() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 7, stride=5), nn.Flatten(), nn.Linear(8 * 36, 5)).double().eval()
    x = torch.randn(2, 3, 36, 36, dtype=torch.float64)
    large = F.interpolate(grids(), (36, 36), mode="nearest-exact")
    half = {"remover": Fill(), "fractions": (0, 0.5)}
    found = curves(network, x, 1, grids(), **half)
    same(found["mif"].scores, curves(network, x, 1, large, patch_size=9, **half)["mif"].scores)
