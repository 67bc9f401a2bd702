"""Scenes of parts are what they say, an intervention changes nothing else, and the model is what its card says."""

from itertools import combinations

import pytest
import timm
import torch

from captum_vit.demo import demo_parts, part_scenes
from captum_vit.demo.parts.evaluation import evaluate, losses_of
from captum_vit.demo.parts.model import WEIGHTS
from captum_vit.demo.parts.scenes import CLASSES
from captum_vit.demo.parts.train import RECIPE
from captum_vit.demo.weights import load_weights
from captum_vit.errors import OptionError


def test_scenes_are_drawn_alike_for_the_same_arguments_and_differ_between_splits():
    one, again, train = part_scenes(4, seed=3), part_scenes(4, seed=3), part_scenes(4, "train", seed=3)
    assert torch.equal(one.pixels, again.pixels) and not torch.equal(one.pixels, train.pixels)
    assert one.images.shape == (4, 3, 64, 64) and one.images.min() >= -1 and one.images.max() <= 1
    assert one.part_masks.shape == (4, 5, 64, 64) and one.object_masks.shape == (4, 3, 64, 64)
    assert torch.equal(one.kinds, CLASSES[one.label])
    assert part_scenes(200).label.bincount(minlength=10).min() > 5


def test_things_do_not_overlap_and_are_seen():
    scenes = part_scenes(50, seed=1)
    masks = torch.cat([scenes.part_masks, scenes.object_masks], 1)
    assert masks.sum(1).max() == 1 and masks.sum((2, 3)).min() > 15


def test_two_classes_have_two_parts_in_common_at_most():
    assert max((a == b).sum() for a, b in combinations(CLASSES, 2)) == 2


def test_an_intervention_takes_away_what_it_names_and_nothing_else():
    scenes = part_scenes(6, seed=2)
    parts, objects = torch.tensor([True, False, False, True, False]), torch.tensor([False, True, False])
    less = scenes.without(parts, objects)
    gone = scenes.part_masks[:, parts].any(1) | scenes.object_masks[:, objects].any(1)
    changed = (less.pixels != scenes.pixels).any(1)
    assert changed[gone].float().mean() > 0.99
    near = torch.nn.functional.max_pool2d(gone.float()[:, None], 5, 1, 2)[:, 0] > 0  # its outline is soft
    assert not changed[~near].any()
    assert torch.equal(scenes.without().pixels, scenes.pixels) and torch.equal(less.label, scenes.label)
    each = scenes.without(parts=torch.eye(6, 5).bool())  # of each scene another one
    assert torch.equal(each.pixels[2], scenes.without(parts=torch.eye(5)[2].bool()).pixels[2])


def test_it_is_an_ordinary_timm_model_and_small():
    model = demo_parts()
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 64, 64) and config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    assert not model.training and model(part_scenes(2).images).shape == (2, 10)
    assert WEIGHTS.stat().st_size < 400_000 and "98 %" in WEIGHTS.with_suffix(".md").read_text()


@pytest.mark.parametrize("options", [{"n_scenes": 0}, {"n_scenes": 2, "split": "val"}, {"n_scenes": 2, "seed": -1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(OptionError):
        part_scenes(**options)


@pytest.mark.slow
def test_it_names_held_out_figures_whole_and_with_parts_missing():
    named = evaluate(demo_parts(), seed=1, n=300)
    assert named[0].accuracy > 0.96 and named[0].best == 1
    assert named[1].accuracy > 0.85 and [row.left for row in named] == [5, 4, 3, 2, 1]


@pytest.mark.slow
def test_its_logits_are_about_parts():
    part, thing, _ = losses_of(demo_parts(), seed=1, n=100)
    assert part > 0.4 and abs(thing) < 0.1 * part


@pytest.mark.slow
def test_the_script_trains_it(monkeypatch, tmp_path):
    out = tmp_path / "new.safetensors"
    options = ["--batch=2", "--test=20", "--every=1", "--steps=2"]
    monkeypatch.setattr("sys.argv", ["train", f"--out={out}", *options])
    RECIPE.main()
    load_weights(demo_parts(pretrained=False), out)
    assert "--steps=2" in out.with_suffix(".md").read_text()
