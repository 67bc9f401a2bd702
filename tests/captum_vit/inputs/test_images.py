"""Pictures and texts reach a model as its own configuration says, and come back as it saw them."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torchvision import transforms as T
from torchvision.transforms import v2
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    DeiTConfig,
    DeiTForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

import captum_vit as cv
from captum_vit.errors import InputError, TargetError, UnsupportedModelError
from captum_vit.inputs.class_names import class_names, target_index
from captum_vit.inputs.images import display_image, image_tensor, mean_std
from captum_vit.inputs.preprocessing import IMAGENET
from captum_vit.models.library import is_text_model

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
CROP = {"image_size": 32, "patch_size": 8}
HALF = (0.5, 0.5, 0.5)


def photo(height: int = 60, width: int = 48) -> Image.Image:
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    return Image.fromarray(ramp.astype(np.uint8))


def timm_vit(**kwargs) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=16, num_heads=2, **kwargs).eval()


def hf_vit(**kwargs) -> ViTForImageClassification:
    return ViTForImageClassification(ViTConfig(**SMALL, **CROP, **kwargs)).eval()


def torchvision_vit(num_classes: int = 1000) -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 16, num_classes=num_classes).eval()


def clip() -> CLIPModel:
    text = CLIPTextConfig(**SMALL, vocab_size=20, bos_token_id=0, eos_token_id=1).to_dict()
    vision = CLIPVisionConfig(**SMALL, **CROP).to_dict()
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()


def test_timm_reads_its_own_config():
    model = timm_vit()
    expected = create_transform(**resolve_model_data_config(model), is_training=False)(photo())
    assert torch.equal(image_tensor(model, photo())[0], expected)
    assert mean_std(model) == (HALF, HALF)


def test_timm_at_another_size_is_read_at_that_size():
    assert image_tensor(timm_vit(img_size=(32, 64)), photo()).shape == (1, 3, 32, 64)


def test_the_size_of_a_hugging_face_model_comes_from_its_config():
    inputs = image_tensor(hf_vit(), photo())
    assert inputs.shape == (1, 3, 32, 32)
    assert torch.equal(inputs[0], ViTImageProcessor(size={"height": 32, "width": 32})(photo())["pixel_values"][0])


def test_a_stored_processor_wins(tmp_path):
    hf_vit().save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path)
    model = ViTForImageClassification.from_pretrained(tmp_path)
    assert mean_std(model)[0] == (0.1, 0.2, 0.3)


def test_a_missing_processor_is_told_of(tmp_path):
    hf_vit().save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="No ImageProcessor"):
        assert mean_std(ViTForImageClassification.from_pretrained(tmp_path)) == (HALF, HALF)


@pytest.mark.parametrize(
    "model",
    [
        DeiTForImageClassification(DeiTConfig(**SMALL, **CROP)),
        Dinov2WithRegistersForImageClassification(
            Dinov2WithRegistersConfig(
                image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
            )
        ),
        torchvision_vit(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_families_trained_with_imagenets_mean_take_it(model: nn.Module):
    assert mean_std(model) == IMAGENET
    assert image_tensor(model, photo()).shape == (1, 3, 32, 32)


def test_clip_reads_pictures():
    model = clip()
    assert not is_text_model(model)
    assert image_tensor(model, photo()).shape == (1, 3, 32, 32)
    assert mean_std(model)[0] == pytest.approx((0.48145466, 0.4578275, 0.40821073))


def test_wrappers_are_looked_through():
    wrapped = nn.Sequential(timm_vit(img_size=32))
    assert image_tensor(wrapped, photo()).shape == (1, 3, 32, 32)
    assert class_names(wrapped)[281].startswith("tabby")


def test_names_of_a_trunk_are_not_those_of_a_head_around_it():
    wrapped = nn.Sequential(timm_vit(img_size=32), nn.Linear(1000, 2)).eval()
    assert class_names(wrapped, 2) is None
    with pytest.raises(cv.TargetError, match="does not name its classes"):
        target_index(wrapped, "tabby", 2)
    assert cv.explain(wrapped, photo(), target=1).labels == ["class 1"]


def test_a_float_tensor_is_taken_as_preprocessed():
    ready = torch.randn(3, 32, 32) * 5
    assert torch.equal(image_tensor(hf_vit(), ready), ready[None])


@pytest.mark.parametrize("model", [timm_vit(img_size=32), hf_vit(), torchvision_vit()], ids=["timm", "hf", "tv"])
def test_bytes_in_a_tensor_are_read_like_a_picture(model: nn.Module):
    bytes_ = torch.from_numpy(np.asarray(photo()).copy()).permute(2, 0, 1)
    assert image_tensor(model, bytes_).sub(image_tensor(model, photo())).abs().max() < 0.02


def test_inputs_take_the_models_dtype():
    assert image_tensor(hf_vit().bfloat16(), photo()).dtype == torch.bfloat16


def test_a_grey_picture_becomes_three_channels():
    assert image_tensor(hf_vit(), photo().convert("L")).shape == (1, 3, 32, 32)


def test_the_picture_comes_back_as_the_model_saw_it():
    model = timm_vit(img_size=32)
    crop = create_transform(
        input_size=(3, 32, 32), mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic", crop_pct=0.9
    )(photo())
    shown = display_image(model, image_tensor(model, photo()))
    assert shown.shape == (1, 3, 32, 32)
    assert torch.allclose(shown[0], crop, atol=1e-6)


def test_a_given_processor_is_used_for_any_model():
    processor = ViTImageProcessor(size={"height": 16, "width": 16}, do_normalize=False)
    inputs = image_tensor(nn.Linear(1, 1), photo(), processor)
    assert inputs.shape == (1, 3, 16, 16)
    assert torch.allclose(display_image(nn.Linear(1, 1), inputs, processor), inputs)


STEPS = [T.Resize(32), T.CenterCrop(32)]
HALVES = {
    "numbers": T.Compose([*STEPS, T.ToTensor(), T.Normalize(0.5, 0.5)]),
    "tensors": T.Compose([*STEPS, T.ToTensor(), T.Normalize(torch.full((3,), 0.5), torch.tensor(0.5))]),
    "v2": v2.Compose(
        [v2.Resize(32), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, True), v2.Normalize([0.5], [0.5])]
    ),
    "nested": T.Compose([*STEPS, T.Compose([T.ToTensor(), T.Normalize(HALF, HALF)])]),
    "modules": nn.Sequential(*STEPS, v2.ToImage(), v2.ToDtype(torch.float32, True), T.Normalize(HALF, HALF)),
    "Hugging Face's": ViTImageProcessor(size={"height": 32, "width": 32}),
}


@pytest.mark.parametrize("name", HALVES)
def test_processors_in_many_forms(name: str):
    square, model = photo(60, 60), hf_vit()
    inputs = image_tensor(model, square, HALVES[name])
    assert inputs.shape == (1, 3, 32, 32) and inputs.min() < -0.9
    assert all(set(values) == {0.5} for values in mean_std(model, HALVES[name]))
    assert torch.allclose(display_image(model, inputs, HALVES[name]), inputs / 2 + 0.5, atol=1e-6)
    assert cv.explain(model, square, 0, processor=HALVES[name]).map.shape == (4, 4)


def test_the_image_side_of_a_processor_of_both():
    class Both:
        image_processor = HALVES["Hugging Face's"]

        def __call__(self, **inputs):
            raise NotImplementedError

    wanted = image_tensor(hf_vit(), photo(), Both.image_processor)
    assert torch.equal(image_tensor(hf_vit(), photo(), Both()), wanted)


@pytest.mark.parametrize("processor", [
    T.Resize(32), T.Compose([*STEPS, T.PILToTensor()]), lambda picture: torch.rand(2, 3, 32, 32),
    lambda picture: {"pixel_values": torch.rand(3, 32, 32)},
], ids=["a picture", "bytes", "several", "a dictionary"])  # fmt: skip
def test_a_processor_that_gives_no_tensor_of_floats_is_refused(processor):
    with pytest.raises(cv.OptionError, match="ToTensor"):
        image_tensor(hf_vit(), photo(), processor)


def test_a_model_of_grey_pictures():
    grey = T.Compose([T.Grayscale(), *STEPS, T.ToTensor(), T.Normalize(0.5, 0.5)])
    found = cv.explain(timm_vit(img_size=32, in_chans=1), photo(), 0, processor=grey)
    assert found.image.shape == (1, 32, 32)
    found.show()


def test_of_four_channels_three_are_shown():
    model = timm_vit(img_size=32, in_chans=4)
    found = cv.explain(model, torch.randn(4, 32, 32), 0)
    assert found.image.shape == (3, 32, 32)
    found.show()


def test_timm_inside_hugging_face_is_read_as_timm():
    config = TimmWrapperConfig(architecture="test_vit", num_labels=3)
    model = TimmWrapperForImageClassification(config).eval()
    assert torch.equal(image_tensor(model, photo()), image_tensor(model.timm_model, photo()))


def test_a_model_that_says_nothing_is_refused():
    with pytest.raises(UnsupportedModelError, match="processor"):
        image_tensor(nn.Linear(1, 1), photo())
    assert mean_std(nn.Linear(1, 1)) is None


def test_a_picture_of_unknown_normalisation_is_stretched_for_display():
    shown = display_image(nn.Linear(1, 1), torch.randn(2, 3, 4, 4))
    assert shown.amin() == 0 and shown.amax() == 1


@pytest.mark.parametrize("bad", ["photo.png", None, torch.zeros(3, 4, 4, dtype=torch.long), torch.rand(4, 4)])
def test_what_is_no_picture_is_refused(bad: object):
    with pytest.raises(InputError):
        image_tensor(hf_vit(), bad)


def test_names_of_imagenet():
    assert class_names(timm_vit())[281] == "tabby, tabby cat"
    assert class_names(torchvision_vit())[281] == "tabby"
    assert class_names(timm_vit(num_classes=7)) is class_names(torchvision_vit(7)) is None


def test_names_in_a_config():
    assert class_names(hf_vit(id2label={0: "cat", 1: "dog"})) == {0: "cat", 1: "dog"}
    assert class_names(hf_vit(num_labels=3)) is None
    model = timm_vit(num_classes=2)
    model.pretrained_cfg = {"label_names": ("ant", "bee")}
    assert class_names(model) == {0: "ant", 1: "bee"}


@pytest.mark.parametrize(
    ("name", "index"),
    [("tabby", 281), (" Tabby, Tabby CAT", 281), ("husky", 248), ("golden retr", 207), ("7", 7)],
)
def test_a_name_finds_its_class(name: str, index: int):
    assert target_index(timm_vit(), name) == index


def test_a_number_that_is_a_name_is_the_name():
    assert target_index(hf_vit(id2label={0: "1", 1: "0"}), "1") == 0


def test_an_unknown_name_brings_near_ones():
    with pytest.raises(TargetError, match="tabby"):
        target_index(timm_vit(), "tabbi")


@pytest.mark.parametrize("name", ["crane", "retriever"])
def test_an_ambiguous_name_brings_all_it_fits(name: str):
    with pytest.raises(TargetError, match=r"which fits \d+ \("):
        target_index(timm_vit(), name)


@pytest.mark.parametrize("name", ["tabby", ""])
def test_a_name_for_a_nameless_model_is_refused(name: str):
    with pytest.raises(TargetError, match="number"):
        target_index(hf_vit(num_labels=3), name)
