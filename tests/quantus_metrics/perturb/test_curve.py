import math

import pytest
import torch

from captum_vit.errors import InputError, OptionError, TargetError, TraceError
from quantus_metrics.perturb import FRACTIONS, Blur, Curve, Fill, curves, rank

W = torch.tensor([[[4.0, 1.0], [2.0, 3.0]]])  # (classes, h, w)
QUARTERS = (0, 0.25, 0.5, 0.75, 1)


def test_curves_by_hand(additive):
    found = curves(additive(W), torch.ones(1, 3, 8, 8), 0, W, remover=Fill(), fractions=QUARTERS)
    assert found["mif"].scores.tolist() == [[10, 6, 3, 1, 0]]
    assert found["lif"].scores.tolist() == [[10, 9, 7, 4, 0]]
    assert found["mif"].area().tolist() == [(5 + 6 + 3 + 1) / 4]
    assert found["lif"].area().tolist() == [(5 + 9 + 7 + 4) / 4]


def test_each_image_has_its_target(additive):
    model = additive(torch.cat([W, -W]))
    found = curves(
        model,
        torch.ones(2, 3, 8, 8),
        torch.tensor([1, 0]),
        W.repeat(2, 1, 1),
        remover=Fill(),
        fractions=QUARTERS,
    )
    assert found["mif"].scores.tolist() == [[-10, -6, -3, -1, 0], [10, 6, 3, 1, 0]]


def test_a_slow_twin(timm_vit):
    """The loops as one would write them: one image, one step, one forward."""
    images, relevance = torch.randn(2, 3, 32, 32), torch.randn(2, 4, 4)
    target = torch.tensor([1, 4])
    found = curves(timm_vit, images, target, relevance, ("mif", "lif"), fractions=(0, 0.2, 0.5, 1))
    for order, sign in (("mif", -1), ("lif", 1)):
        for b in range(2):
            blurred, x = Blur().background(images[b : b + 1])[0], images[b].clone()
            leaving = (sign * relevance[b].flatten()).argsort().tolist()
            for k, n in enumerate((0, 3, 8, 16)):
                for p in leaving[:n]:
                    rows, cols = slice(p // 4 * 8, p // 4 * 8 + 8), slice(p % 4 * 8, p % 4 * 8 + 8)
                    x[:, rows, cols] = blurred[:, rows, cols]
                with torch.no_grad():
                    score = timm_vit(x[None])[0, target[b]]
                torch.testing.assert_close(found[order].scores[b, k], score, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("internal", "passes"), [(None, 40), (1, 120), (7, math.ceil(120 / 7)), (1000, 1)])
def test_passes_and_memory_are_as_documented(additive, internal, passes):
    model, relevance = additive(torch.randn(1, 7, 7)), torch.randn(3, 7, 7)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    curves(model, torch.randn(3, 3, 28, 28), 0, relevance, internal_batch_size=internal)
    assert (model.images, model.passes) == (3 * (2 * (len(FRACTIONS) - 2) + 2), passes)
    assert max(seen) <= (internal or 3)


def test_few_patches_are_not_asked_twice(additive):
    model = additive(W)
    found = curves(model, torch.ones(1, 3, 8, 8), 0, W, remover=Fill())  # 21 fractions of 4 patches
    assert model.images == 2 * (5 - 2) + 2
    assert found["mif"].scores.shape == (1, 21)


def test_every_curve_begins_at_the_model_itself(timm_vit):
    images, target = torch.randn(3, 3, 32, 32), torch.tensor([0, 4, 2])
    found = curves(timm_vit, images, target, torch.randn(3, 4, 4), ("mif", "lif", "random"))
    with torch.no_grad():
        intact = timm_vit(images)[[0, 1, 2], target]
    for curve in found.values():
        torch.testing.assert_close(curve.scores[:, 0], intact)
        assert torch.equal(curve.scores[:, -1], found["mif"].scores[:, -1])


def test_three_orders_share_both_ends(additive):
    model, relevance = additive(torch.randn(1, 7, 7)), torch.randn(1, 7, 7)
    curves(model, torch.randn(1, 3, 28, 28), 0, relevance, ("mif", "lif", "random"))
    assert model.images == 3 * 19 + 2


def test_pixels_leave_one_by_one_without_a_patch_size(additive):
    grid = torch.tensor([[[1.0, 0.0], [0.5, 0.2]]])
    pixels = grid.repeat_interleave(4, 1).repeat_interleave(4, 2)
    images = torch.ones(1, 3, 8, 8)
    args = dict(remover=Fill(), fractions=(0, 1 / 8, 1 / 4, 1), orders=("mif",))
    by_pixel = curves(additive(W), images, 0, pixels, **args)["mif"].scores
    by_patch = curves(additive(W), images, 0, pixels, patch_size=4, **args)["mif"].scores
    assert by_pixel.tolist() == [[10, 8, 6, 0]]  # half of the first patch is gone at 1/8
    assert by_patch.tolist() == [[10, 6, 6, 0]]  # the nearest whole patch to 1/2 of one: one


def test_random_order_takes_a_generator(additive):
    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        args = (additive(W), torch.ones(1, 3, 8, 8), 0, W, ("random",))
        return curves(*args, remover=Fill(), fractions=QUARTERS, generator=generator)["random"].scores

    assert torch.equal(run(3), run(3))
    assert rank(W, "random", torch.Generator().manual_seed(3)).shape == W.shape


def test_inputs_and_gradients_are_left_alone(additive):
    model, images, relevance = additive(W), torch.ones(1, 3, 8, 8, requires_grad=True), W.clone()
    found = curves(model, images, 0, relevance)
    assert not found["mif"].scores.requires_grad
    assert model.weights.grad is None
    assert torch.equal(images, torch.ones(1, 3, 8, 8))
    assert torch.equal(relevance, W)


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        ({"inputs": torch.ones(0, 3, 8, 8)}, InputError, "At least one image"),
        ({"inputs": torch.ones(1, 8, 8)}, InputError, "image"),
        ({"inputs": torch.full((1, 3, 8, 8), float("nan"))}, InputError, "NaN"),
        ({"relevance": W.repeat(2, 1, 1)}, InputError, "2 maps for 1 images"),
        ({"target": 1}, TargetError, "from 0 to 0"),
        ({"target": torch.tensor([0, 0])}, TargetError, "shape"),
        ({"target": 0.5}, TargetError, "float"),
        ({"fractions": (0, 0.5, 0.5)}, OptionError, "increase"),
        ({"fractions": (0, 50, 100)}, OptionError, "at most 1"),
        ({"internal_batch_size": 0}, OptionError, "internal_batch_size"),
        ({"model": lambda x: "a cat"}, TraceError, "captum_vit.Scalar"),
        ({"model": lambda x: x}, InputError, "n_classes"),
    ],
)
def test_errors(additive, change, error, complaint):
    args = {"model": additive(W), "inputs": torch.ones(1, 3, 8, 8), "target": 0, "relevance": W}
    with pytest.raises(error, match=complaint):
        curves(**{**args, **change})


def test_area_is_the_trapezoids():
    curve = Curve(torch.tensor([0, 0.2, 1]), torch.tensor([[1.0, 3.0, 5.0], [0.0, 0.0, 1.0]]))
    torch.testing.assert_close(curve.area(), torch.tensor([0.4 + 3.2, 0.4]))
