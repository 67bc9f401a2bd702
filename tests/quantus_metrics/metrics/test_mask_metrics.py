"""Compactness, Segmentation, GridPointing and mosaics: no model is asked, and the truth is in the data."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib import pyplot as plt
from sklearn.metrics import accuracy_score, average_precision_score
from torchmetrics.functional.classification import (
    binary_average_precision,
    multiclass_accuracy,
    multiclass_jaccard_index,
)

import quantus_metrics as qm
from captum_vit.errors import InputError, OptionError
from quantus_metrics.metrics.compactness import compactness
from quantus_metrics.metrics.grid_pointing import positive_share
from quantus_metrics.metrics.pointing import pointing_accuracy
from quantus_metrics.metrics.segmentation import average_precision, foreground, mean_iou, two_class_ap
from tests.quantus_metrics import twins

SCORES = ("iou", "pixel_accuracy", "two_class_ap", "ap")
maps_of_patches = (
    arrays(float, (3, 4, 4), elements=st.integers(-500, 500))
    .map(lambda maps: maps / 100)
    .filter(lambda maps: (np.ptp(maps.reshape(3, -1), axis=1) > 0).all())
)


@pytest.fixture
def scene():
    """Six maps of 4 x 4 patches and masks of 8 x 8 pixels, some unknown."""
    rng = np.random.default_rng(0)
    masks = rng.integers(-1, 2, (6, 8, 8))
    return rng.standard_normal((6, 4, 4)), masks


@pytest.fixture
def call(additive):
    """A metric on maps and masks, with a model that must not be asked."""
    model = additive(torch.randn(1, 2, 2))

    def run(metric, maps, masks=None, **kwargs):
        y = np.zeros(len(maps), dtype=int)
        masks = {} if masks is None else {"s_batch": np.asarray(masks)[:, None]}
        scores = metric(model, model.ones(len(maps)), y, np.asarray(maps), **masks, **kwargs)
        assert model.passes <= 1  # one shows that it is no transformer
        return scores

    return run


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("threshold", [0.05, 0.3])
def test_compactness_is_its_twin(scene, call, threshold, absolute):
    slow = [twins.compactness(one, threshold, absolute) for one in scene[0]]
    metric = qm.Compactness(threshold=threshold, absolute=absolute)
    assert call(metric, scene[0], batch_size=4) == pytest.approx(slow, abs=1e-6)


def test_compactness_by_hand():
    one_hot = torch.zeros(1, 4, 4)
    one_hot[0, 1, 2] = 3.0
    assert compactness(one_hot).tolist() == [15 / 16]
    signed = torch.tensor([[[1.0, -10.0], [0.4, 0.04]]])
    assert compactness(signed).tolist() == [1 / 4]  # 0.04 is below 5 % of 1
    assert compactness(signed, absolute=True).tolist() == [2 / 4]  # 0.4 and 0.04 are below 5 % of 10
    assert compactness(-torch.rand(1, 3, 3) - 1).tolist() == [0]
    edge = torch.tensor([[[1.0, 0.5]]])
    assert compactness(edge, threshold=0.5).tolist() == [0]  # strict


@pytest.mark.slow
@given(maps_of_patches, st.integers(-3, 3))
@settings(deadline=None)
def test_compactness_knows_no_scale_and_no_size_of_patch(maps, power):
    found = compactness(torch.tensor(maps))
    assert torch.equal(compactness(torch.tensor(maps) * 2.0**power), found)
    assert torch.equal(compactness(torch.tensor(maps).repeat_interleave(3, 1).repeat_interleave(3, 2)), found)
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.slow
def test_segmentation_totals_are_their_twin(scene, call):
    slow = dict(zip(("pixel_accuracy", "iou"), twins.segmentation_totals(*scene), strict=True))
    singles = [twins.segmentation_totals(scene[0][i : i + 1], scene[1][i : i + 1]) for i in range(6)]
    for score, value in slow.items():
        assert call(qm.Segmentation(score=score, return_aggregate=True), *scene, batch_size=4) == pytest.approx([value])
        metric = qm.Segmentation(score=score)
        each = call(metric, *scene)
        assert metric.summary().mean == pytest.approx(value, abs=1e-6)
        assert metric.summary().low < value < metric.summary().high
        assert each == pytest.approx([one[score == "iou"] for one in singles], abs=1e-6)
        assert call(qm.Segmentation(score=score, return_aggregate=True, aggregate_func=np.mean), *scene) == (
            pytest.approx([np.mean(each)])
        )


def test_a_segmentation_of_the_predicted_class(additive):
    """Its map is made and cut; a map of the labels is not read, and the mask stays the label's."""
    weights = torch.rand(2, 4, 4) + torch.tensor([0.0, 1.0]).view(2, 1, 1)
    model = additive(weights)  # answers 1, always
    x, labels = model.ones(3), np.zeros(3, dtype=int)
    masks = np.repeat(np.tri(x.shape[-1])[None, None], 3, 0)

    def explain(model, inputs, targets, **kwargs):
        return model.weights.detach().numpy()[targets]

    found = qm.Segmentation(explained="predicted")(
        model, x, labels, np.random.rand(3, 4, 4), masks, explain_func=explain, batch_size=2
    )
    assert found == qm.Segmentation()(model, x, labels, weights[1:].repeat(3, 1, 1).numpy(), masks)
    assert found != qm.Segmentation()(model, x, labels, explain_func=explain, s_batch=masks)


@pytest.mark.parametrize(("score", "twin"), [("two_class_ap", twins.two_class_ap), ("ap", twins.object_ap)])
def test_average_precisions_are_their_twins(scene, call, score, twin):
    slow = [twin(*one) for one in zip(*scene, strict=True)]
    metric = qm.Segmentation(score=score)
    assert call(metric, *scene) == pytest.approx(slow, abs=1e-6)
    assert metric.summary().mean == pytest.approx(np.mean(slow))


def test_the_libraries_agree(scene):
    """torchmetrics and scikit-learn, where their definition is the protocol's."""
    maps, masks = torch.tensor(scene[0]), torch.tensor(scene[1] > 0)
    found = foreground(maps, (8, 8)).long()
    counts = qm.metrics.segmentation.confusion(maps, masks).sum(0)
    jaccard = multiclass_jaccard_index(found, masks.long(), num_classes=2, average="macro").item()
    assert mean_iou(maps, masks) == pytest.approx(jaccard, abs=1e-6)
    accuracy = qm.metrics.segmentation.pixel_accuracy(counts).item()
    assert accuracy == pytest.approx(accuracy_score(masks.flatten(), found.flatten()))
    micro = multiclass_accuracy(found, masks.long(), num_classes=2, average="micro").item()
    assert accuracy == pytest.approx(micro, abs=1e-6)
    for one, mask, ap, both in zip(maps, masks, average_precision(maps, masks), two_class_ap(maps, masks), strict=True):
        pixels = one.repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert ap.item() == pytest.approx(average_precision_score(mask.flatten(), pixels.flatten()))
        assert ap.item() == pytest.approx(binary_average_precision(pixels.sigmoid(), mask.long()).item(), abs=1e-5)
        large = torch.tensor(twins.bilinear(one.numpy(), 8, 8))
        scaled = ((large - large.min()) / (large.max() - large.min())).flatten()
        classes = torch.stack([~mask.flatten(), mask.flatten()], 1)
        micro = average_precision_score(classes, torch.stack([1 - scaled, scaled], 1), average="micro")
        assert both.item() == pytest.approx(micro, abs=1e-6)


def test_the_mask_itself_is_perfect(scene, call):
    masks = np.kron(scene[0] > 0, np.ones((2, 2))).astype(int)
    perfect = masks.astype(float)
    for score in SCORES:
        assert call(qm.Segmentation(score=score), perfect, masks) == [1] * 6
    assert call(qm.GridPointing(), perfect, masks) == [1] * 6
    assert pointing_accuracy(torch.tensor(perfect), torch.tensor(masks)) == 1


@pytest.mark.slow
@given(maps_of_patches, st.floats(0.01, 100))
@settings(deadline=None)
def test_positive_share_is_its_twin_and_knows_no_scale(maps, scale):
    cells = torch.zeros(3, 8, 8)
    cells[0, :4, :4] = cells[1, 4:, 3:] = cells[2, 1:3] = 1
    found = positive_share(torch.tensor(maps), cells)
    for one, cell, share in zip(maps, cells.numpy(), found, strict=True):
        assert share.item() == pytest.approx(twins.positive_share(one, cell) if (one > 0).any() else 0, abs=1e-6)
    torch.testing.assert_close(positive_share(scale * torch.tensor(maps), cells), found, atol=1e-6, rtol=1e-6)


def test_the_cells_of_a_mosaic_share_all_there_is(additive):
    rng = np.random.default_rng(0)
    tiles = qm.mosaics(rng.standard_normal((20, 3, 16, 16)), np.arange(20) % 6)
    assert tiles["x_batch"].shape == (20, 3, 16, 16)
    maps = np.abs(rng.standard_normal((5, 4, 4))).repeat(4, 0)
    model = additive(torch.randn(6, 4, 4))
    scores = qm.GridPointing()(model, **tiles, a_batch=maps)
    assert np.reshape(scores, (5, 4)).sum(1) == pytest.approx(np.ones(5))


@pytest.mark.parametrize("side", [2, 3])
def test_mosaics_by_hand(side):
    images = np.arange(10.0)[:, None, None, None] * np.ones((10, 2, 6, 6))  # each shows its number
    found = qm.mosaics(images, np.arange(10), n_mosaics=4, side=side, seed=1)
    assert {name: array.shape for name, array in found.items()} == {
        "x_batch": (4 * side**2, 2, 6, 6),
        "y_batch": (4 * side**2,),
        "s_batch": (4 * side**2, 1, 6, 6),
    }
    for x, y, s in zip(found["x_batch"], found["y_batch"], found["s_batch"], strict=True):
        assert s.sum() == 36 / side**2
        assert (x[:, s[0] == 1].round(5) == y).all()
        assert len(np.unique(x.round(5))) == side**2
    again = qm.mosaics(images, np.arange(10), n_mosaics=4, side=side, seed=1)
    assert all(np.array_equal(found[name], again[name]) for name in found)
    assert not np.array_equal(found["y_batch"], qm.mosaics(images, np.arange(10), 4, side, seed=2)["y_batch"])


def test_mosaics_of_full_size_hold_the_images_themselves():
    images = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    found = qm.mosaics(images, np.arange(4), size=(16, 16))
    first = found["x_batch"][0]
    for k, (row, column) in enumerate([(0, 0), (0, 8), (8, 0), (8, 8)]):
        assert np.array_equal(first[:, row : row + 8, column : column + 8], images[found["y_batch"][k]])


GOOD_MASK = np.kron(np.eye(4, dtype=int), np.ones((2, 2), dtype=int))[None, None].repeat(6, 0)


@pytest.mark.parametrize("metric", [qm.Segmentation(), qm.Segmentation(score="ap"), qm.GridPointing()])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"s_batch": None}, "Masks s_batch"),
        ({"s_batch": GOOD_MASK[..., :4]}, "Masks s_batch"),
        ({"s_batch": 255 * GOOD_MASK}, "other values"),
        ({"s_batch": 0 * GOOD_MASK}, "some background"),
        ({"s_batch": 0 * GOOD_MASK + 1}, "some background"),
        ({"s_batch": GOOD_MASK[:4]}, "s_batch per sample"),
        ({"a_batch": np.full((6, 4, 4), np.nan)}, "Finite"),
        ({"a_batch": np.ones((6, 4, 4))}, "varies"),
        ({"a_batch": np.ones((6, 1, 1))}, "varies"),
        ({"a_batch": np.random.rand(6, 16)}, "Maps"),
        ({"a_batch": np.random.rand(0, 4, 4)}, "per sample"),
        ({"a_batch": None}, "explain_func"),
        ({"y_batch": np.full(6, -1)}, "Classes from 0"),
        ({"x_batch": np.ones((0, 3, 8, 8))}, "At least one"),
    ],
)
def test_bad_input_is_refused_before_any_pass(additive, metric, change, complaint):
    model = additive(torch.randn(1, 2, 2))
    arrays = {
        "x_batch": model.ones(6),
        "y_batch": np.zeros(6, dtype=int),
        "a_batch": np.random.rand(6, 4, 4),
        "s_batch": GOOD_MASK,
    }
    with pytest.raises((InputError, qm.metrics.batch.TargetError), match=complaint):
        metric(model, **{**arrays, **change})
    assert model.passes == 0


def test_bad_options_and_mosaics():
    with pytest.raises(OptionError, match="iou"):
        qm.Segmentation(score="dice")
    with pytest.raises(OptionError, match="threshold"):
        qm.Compactness(threshold=5)
    images = np.zeros((8, 3, 8, 8))
    with pytest.raises(InputError, match="4 classes"):
        qm.mosaics(images, np.arange(8) % 3)
    with pytest.raises(InputError, match="label for each"):
        qm.mosaics(images, np.arange(7))
    with pytest.raises(OptionError, match="divides"):
        qm.mosaics(images, np.arange(8), side=3)
    with pytest.raises(InputError, match="4 classes"):
        qm.mosaics(images[:2], np.arange(2))


@pytest.mark.slow
@pytest.mark.parametrize("metric", [qm.Compactness(), qm.Segmentation(), qm.GridPointing()])
def test_plot(call, metric):
    with pytest.raises(InputError, match="call the metric first"):
        type(metric)().plot(show=False)
    call(metric, np.random.default_rng(0).standard_normal((6, 4, 4)), GOOD_MASK[:, 0])
    metric.plot(show=False)
    assert sum(bar.get_height() for bar in plt.gca().patches if hasattr(bar, "get_height")) >= 6
    assert f"n = {6}" in plt.gca().get_legend().get_texts()[0].get_text()
    plt.close("all")
