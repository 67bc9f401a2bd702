"""`explain`: names in, maps out, and what was asked in vain is said before the work."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from captum.attr import InputXGradient, LayerGradCam
from PIL import Image
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

import captum_vit as cv
from captum_vit.explain import Explanation, explain, open_picture
from captum_vit.inputs.images import image_tensor

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
ANIMALS = {0: "cat", 1: "dog", 2: "house cat"}


@pytest.fixture
def vit() -> nn.Module:
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=16, num_heads=2, num_classes=3)
    nn.init.normal_(model.head.weight)
    model.pretrained_cfg = {**model.pretrained_cfg, "label_names": tuple(ANIMALS.values())}
    return model.eval()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_prediction_is_explained_by_default(vit: nn.Module, photo: Path):
    found = explain(vit, photo)
    probabilities = vit(image_tensor(vit, open_picture(photo))).softmax(-1)[0]
    assert found.targets == [int(probabilities.argmax())]
    assert found.scores == pytest.approx([probabilities.max().item()])
    assert found.labels == [ANIMALS[found.targets[0]]]
    assert found.map.shape == (4, 4)


def test_the_map_is_the_methods_own(vit: nn.Module, photo: Path):
    inputs = image_tensor(vit, open_picture(photo))
    expected, usual = (cv.METHODS[name](vit).attribute(inputs, target=1)[0, 0] for name in ("GenAtt", "LayerCDAM"))
    for target in ("dog", 1, torch.tensor(1), np.int64(1)):
        assert torch.equal(explain(vit, photo, target, "GenAtt").map, expected)
    # the hook that compares the scores of two passes leaves CDAM its long way, which rounds otherwise
    torch.testing.assert_close(explain(vit, photo, 1).map, usual, rtol=1e-5, atol=1e-6)


def test_several_targets_are_stacked(vit: nn.Module, photo: Path):
    found = explain(vit, photo, ["cat", 1])
    assert found.map.shape == found.maps.shape == (2, 4, 4)
    assert torch.equal(found.maps[1], explain(vit, photo, 1).map)
    assert (found.targets, found.labels) == ([0, 1], ["cat", "dog"])
    assert explain(vit, photo, ["cat"]).map.shape == (1, 4, 4)


@pytest.mark.parametrize("form", [str, Path, Image.open, lambda path: np.asarray(Image.open(path))])
def test_a_picture_comes_in_many_forms(vit: nn.Module, photo: Path, form):
    assert torch.equal(explain(vit, form(photo), 0).map, explain(vit, photo, 0).map)


def test_a_float_tensor_is_taken_as_preprocessed(vit: nn.Module, photo: Path):
    inputs = image_tensor(vit, open_picture(photo))
    for ready in (inputs, inputs[0]):
        found = explain(vit, ready, 0)
        assert torch.equal(found.map, explain(vit, photo, 0).map)
        assert found.image.amin() >= 0 and found.image.amax() <= 1


@pytest.mark.parametrize("method", ["PredictionMap", cv.PredictionMap, lambda model: cv.PredictionMap(model)])
def test_a_method_is_a_name_or_makes_one(vit: nn.Module, photo: Path, method):
    inputs = image_tensor(vit, open_picture(photo))
    expected = cv.PredictionMap(vit).attribute(inputs, target=0)[0, 0]
    assert torch.equal(explain(vit, photo, 0, method).map, expected)


def test_an_instance_is_taken_for_its_own_model_only(vit: nn.Module, photo: Path):
    assert explain(vit, photo, 0, cv.LayerCDAM(vit, 0)).method == "LayerCDAM"
    with pytest.raises(cv.OptionError, match="another"):
        explain(vit, photo, 0, cv.LayerCDAM(timm.create_model("test_vit").eval()))


def test_captums_own_methods_are_welcome(vit: nn.Module, photo: Path):
    assert explain(vit, photo, 0, InputXGradient).map.shape == (64, 64)
    grad_cam = LayerGradCam(vit, vit.patch_embed.proj)
    assert explain(vit, photo, 0, grad_cam).map.shape == (4, 4)


def test_options_reach_the_method(vit: nn.Module, photo: Path):
    class Asked(InputXGradient):
        def attribute(self, inputs, target=None, *, loudness):
            return loudness * super().attribute(inputs, target)

    quiet, loud = (explain(vit, photo, 0, Asked, loudness=loudness).map for loudness in (1, 2))
    assert torch.equal(2 * quiet, loud)


def test_a_target_module_gives_names_and_raw_scores(vit: nn.Module, photo: Path):
    inputs = image_tensor(vit, open_picture(photo))
    concepts = cv.ConceptSimilarity.from_images(vit, {"stripes": inputs, "dots": -inputs})
    found = explain(concepts, photo, "dots")
    assert found.labels == ["dots"] and not found.probabilities
    assert found.scores == pytest.approx([concepts(inputs)[0, 1].item()])


def test_a_hugging_face_model_is_explained_as_loaded(photo: Path):
    model = ViTForImageClassification(ViTConfig(**SMALL, image_size=32, patch_size=8, id2label=ANIMALS)).eval()
    assert explain(model, photo, "dog").map.shape == (4, 4)


@pytest.mark.slow
def test_pictures_are_saved_and_shown(vit: nn.Module, photo: Path, tmp_path: Path):
    found = explain(vit, photo, ["cat", "dog"])
    for suffix in (".png", ".pdf", ".svg"):
        first, second = (found.save(tmp_path / f"{name}{suffix}") for name in ("one", "two"))
        assert first.stat().st_size > 1000
        if suffix != ".svg":  # its ids are random
            assert first.read_bytes() == second.read_bytes()
    assert Image.open(tmp_path / "one.png").size[0] > 200
    assert found._repr_png_().startswith(b"\x89PNG") and found._repr_html_() is None
    assert len(found.show(colour_bar=True).axes) == 6
    assert "dog" in repr(found)


def test_a_file_is_replaced_unless_that_is_refused(vit: nn.Module, photo: Path, tmp_path: Path):
    found, path = explain(vit, photo, 0), tmp_path / "map.npy"
    path.write_text("mine")
    with pytest.raises(cv.InputError, match="exists"):
        found.save(path, overwrite=False)
    assert path.read_text() == "mine"
    found.save(path)
    found.save(path)
    assert np.load(path).shape == (4, 4)


@pytest.mark.slow
def test_size_and_resolution_are_options(vit: nn.Module, photo: Path, tmp_path: Path):
    found, path = explain(vit, photo, 0), tmp_path / "map.png"
    width = lambda **style: Image.open(found.save(path, **style)).size[0]  # noqa: E731
    assert width(dpi=320) == pytest.approx(2 * width(), abs=4)
    assert width(width=8, dpi=100) == pytest.approx(800, rel=0.05)
    assert found.show(width=8).get_figwidth() == pytest.approx(8)
    assert found.show(dpi=300).dpi == 300 and found.show(rows=["mine"])
    for kind in (".pdf", ".svg"):
        found.save(tmp_path / f"map{kind}", dpi=300, width=4)


@pytest.mark.parametrize(("suffix", "style"), [
    (".png", {"dpi": 0}), (".png", {"dpi": 1e6}), (".png", {"dpi": "high"}), (".png", {"width": -1}),
    (".png", {"width": 1e4}), (".png", {"wide": 3}), (".npy", {"dpi": 300}), (".npy", {"colour_bar": True}),
    (".png", {"words": True}), (".png", {"overwrite": "yes"}),
])  # fmt: skip
def test_options_of_a_file_are_checked(vit: nn.Module, photo: Path, tmp_path: Path, suffix: str, style: dict):
    with pytest.raises(cv.OptionError):
        explain(vit, photo, 0).save(tmp_path / f"map{suffix}", **style)
    assert not list(tmp_path.glob("map*"))


def test_a_list_of_one_picture_is_that_picture(vit: nn.Module, photo: Path):
    assert torch.equal(explain(vit, [photo], 0).map, explain(vit, photo, 0).map)
    with pytest.raises(cv.InputError, match="batch of 2"):
        explain(vit, [photo, photo], 0)


def test_a_page_of_a_picture_is_refused(vit: nn.Module, photo: Path, tmp_path: Path):
    with pytest.raises(cv.InputError, match="png"):
        explain(vit, photo, 0).save(tmp_path / "map.html")


@pytest.mark.parametrize("content", [None, b"", b"not a picture", b"\x89PNG\r\n\x1a\n broken"])
def test_a_file_that_is_no_picture_is_refused(vit: nn.Module, tmp_path: Path, content: bytes | None):
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(cv.InputError, match=r"bad\.png"):
        explain(vit, path)


def test_a_picture_cut_short_is_refused(vit: nn.Module, photo: Path):
    photo.write_bytes(photo.read_bytes()[:-2000])
    with pytest.raises(cv.InputError, match="cut short"):
        explain(vit, photo)


def test_a_picture_is_turned_upright(tmp_path: Path):
    image, exif = Image.new("RGB", (20, 10)), Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").size == (10, 20)


def test_an_unknown_method_brings_near_ones(vit: nn.Module, photo: Path):
    with pytest.raises(cv.OptionError, match="LayerCDAM"):
        explain(vit, photo, 0, "layercdm")
    with pytest.raises(cv.OptionError):
        explain(vit, photo, 0, 7)


@pytest.mark.parametrize("target", ["mouse", 3, -4, [], [0, 3], (0, 1), 0.5])
def test_targets_that_the_model_does_not_have_are_refused(vit: nn.Module, photo: Path, target):
    with pytest.raises(cv.TargetError):
        explain(vit, photo, target)


def test_whole_numbers_are_no_picture(vit: nn.Module):
    pixels = torch.randint(0, 256, (3, 64, 64))
    with pytest.raises(cv.InputError, match="uint8") as refused:
        explain(vit, pixels, 0)
    assert "(3, 64, 64) of torch.int64" in refused.value.got
    assert explain(vit, pixels.to(torch.uint8), 0).map.shape == (4, 4)


def test_one_at_a_time(vit: nn.Module):
    with pytest.raises(cv.InputError, match="batch of 2"):
        explain(vit, torch.randn(2, 3, 64, 64), 0)


def test_a_wrong_size_and_training_mode_are_refused(vit: nn.Module):
    with pytest.raises(cv.InputError):
        explain(vit, torch.randn(3, 50, 50), 0)
    with pytest.raises(cv.ModelStateError):
        explain(vit.train(), torch.randn(3, 64, 64), 0)


def test_nothing_warns_and_the_model_stays(vit: nn.Module, photo: Path):
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(vit, photo).show().canvas.draw()
    assert all(torch.equal(before[name], value) for name, value in vit.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in vit.parameters())


def test_the_class_is_exported():
    assert Explanation.__doc__
