"""Pictures of every mode and depth reach a model as they look, or are refused."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageColumn
from PIL import Image, ImageCms
from torch import nn

import captum_vit as cv
from captum_vit.errors import InputError
from captum_vit.inputs.preprocessing import reader_of
from captum_vit.inputs.rgb import open_picture, picture_of, rgb
from captum_vit.viz.blending import pixels_of
from quantus_metrics.benchmark.data import Hub, ImageFolder

DRAW = np.random.default_rng(0)
GREY = DRAW.integers(0, 256, (40, 30), dtype=np.uint8)
COLOUR = DRAW.integers(0, 256, (40, 30, 3), dtype=np.uint8)
ALPHA = DRAW.integers(0, 256, (40, 30), dtype=np.uint8)


def same(image: Image.Image, wanted: np.ndarray, within: int = 0) -> None:
    found = rgb(image)
    assert found.mode == "RGB"
    wanted = wanted if wanted.ndim == 3 else np.repeat(wanted[..., None], 3, 2)
    assert np.abs(np.asarray(found).astype(int) - wanted).max() <= within


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    colour = colour if colour.ndim == 3 else np.repeat(colour[..., None], 3, 2)
    share = alpha[..., None] / 255
    return np.round(colour * share + 255 * (1 - share))


@pytest.fixture
def vit() -> nn.Module:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=16, num_heads=2, num_classes=3)
    nn.init.normal_(model.head.weight)
    return model.eval()


@pytest.mark.parametrize("mode", ["RGB", "RGBX", "CMYK", "YCbCr", "HSV", "RGBA", "RGBa", "LAB"])
def test_colour_of_every_mode(mode: str):
    image = Image.fromarray(COLOUR)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
        same(image, np.asarray(ImageCms.profileToProfile(image, *profiles[::-1], outputMode="RGB")), within=1)
    else:
        image = image.convert("RGBA").convert("RGBa") if mode == "RGBa" else image.convert(mode)
        same(image, COLOUR, within={"YCbCr": 4, "HSV": 8}.get(mode, 0))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "La", "PA"])
def test_grey_of_every_mode(mode: str):
    grey = 255 * (GREY > 127).astype(np.uint8) if mode == "1" else GREY
    image = Image.fromarray(grey)
    image = image.convert("LA").convert("La") if mode == "La" else image.convert(mode, dither=Image.Dither.NONE)
    same(image, grey)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N"])
@pytest.mark.parametrize("times", [256, 257])
def test_sixteen_bits_are_scaled_by_their_depth(mode: str, times: int):
    kind = {"I;16B": ">u2", "I;16L": "<u2", "I;16": "<u2", "I;16N": "=u2"}[mode]
    values = (GREY.astype(np.uint16) * times).astype(kind)
    same(Image.frombytes(mode, (30, 40), values.tobytes()), GREY)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_a_file_of_sixteen_bits_has_the_map_of_its_twin(vit: nn.Module, tmp_path: Path, suffix: str):
    path = tmp_path / f"deep{suffix}"
    deep = GREY.astype(np.uint16) * 257
    if suffix == ".pgm":
        path.write_bytes(b"P5\n30 40\n65535\n" + deep.astype(">u2").tobytes())
    else:
        Image.fromarray(deep).save(path)
    wanted = cv.explain(vit, Image.fromarray(GREY), 0).map
    for given in (path, Image.open(path), deep):
        assert torch.equal(cv.explain(vit, given, 0).map, wanted)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_scale_are_refused(vit: nn.Module, mode: str):
    with pytest.raises(InputError, match=f"mode '{mode}'") as refusal:
        cv.explain(vit, Image.fromarray(GREY).convert(mode), 0)
    assert 'PIL.Image.fromarray(array.astype("uint8"))' in refusal.value.hint
    array = np.asarray(Image.fromarray(GREY).convert(mode))
    same(Image.fromarray(array.astype("uint8")), GREY)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_composed_on_white(vit: nn.Module, mode: str):
    colour = COLOUR if mode == "RGBA" else GREY[..., None]
    image = Image.fromarray(np.concatenate([colour, ALPHA[..., None]], -1), mode)
    same(image, on_white(COLOUR if mode == "RGBA" else GREY, ALPHA), within=1)
    hidden = Image.fromarray(np.concatenate([colour, np.zeros_like(ALPHA)[..., None]], -1), mode)
    white = Image.new("RGB", hidden.size, "white")
    assert torch.equal(cv.explain(vit, hidden, 0).map, cv.explain(vit, white, 0).map)
    assert torch.equal(pixels_of(hidden), torch.ones(3, 40, 30))


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "I;16"])
def test_a_colour_that_a_file_declares_transparent_is_white(tmp_path: Path, mode: str):
    values = {"P": GREY, "L": GREY, "RGB": COLOUR, "I;16": GREY.astype(np.uint16) * 257}[mode]
    image, key = Image.fromarray(values), GREY[0, 0]
    image = image.convert("P") if mode == "P" else image
    hidden = (COLOUR[0, 0] == COLOUR).all(-1) if mode == "RGB" else key == GREY
    keys = {"RGB": tuple(map(int, COLOUR[0, 0])), "I;16": int(key) * 257}
    image.save(tmp_path / "keyed.png", transparency=keys.get(mode, int(key)))
    wanted = (COLOUR if mode == "RGB" else np.repeat(GREY[..., None], 3, 2)).copy()
    wanted[hidden] = 255
    same(Image.open(tmp_path / "keyed.png"), wanted)


def test_the_first_frame_and_the_first_page_are_read(tmp_path: Path):
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    for suffix in (".gif", ".tif"):
        pages[0].save(tmp_path / f"many{suffix}", save_all=True, append_images=pages[1:])
        assert np.array_equal(np.asarray(open_picture(tmp_path / f"many{suffix}"))[..., 0], GREY)


def test_a_picture_in_memory_is_turned_upright_too(vit: nn.Module, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save(tmp_path / "turned.png", exif=exif)
    given = Image.open(tmp_path / "turned.png")
    assert rgb(given).size == (40, 30)
    assert torch.equal(cv.explain(vit, given, 0).map, cv.explain(vit, tmp_path / "turned.png", 0).map)


ARRAYS = {
    "grey": GREY, "one channel": GREY[..., None], "grey and alpha": np.stack([GREY, ALPHA], -1), "colour": COLOUR,
    "colour and alpha": np.dstack([COLOUR, ALPHA]), "16 bits": COLOUR.astype(np.uint16) * 257,
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_pixels(name: str):
    array = ARRAYS[name]
    eight = (array >> 8).astype(np.uint8) if array.dtype == np.uint16 else array
    colour = eight if eight.ndim == 2 else eight[..., : 1 if eight.shape[-1] < 3 else 3]
    alpha = eight[..., -1] if eight.ndim == 3 and eight.shape[-1] in (2, 4) else np.full_like(GREY, 255)
    wanted = on_white(colour if colour.shape[-1] == 3 else colour.reshape(40, 30), alpha)
    found = np.asarray(picture_of(array)).astype(int)
    assert np.abs(found - wanted).max() <= 1
    if array.dtype == np.uint8:
        tensor = torch.from_numpy(array if array.ndim == 2 else array.transpose(2, 0, 1).copy())
        assert np.array_equal(np.asarray(picture_of(tensor)), found)


def test_an_array_of_truths_is_black_and_white():
    assert np.array_equal(np.asarray(picture_of(GREY > 99))[..., 0], 255 * (GREY > 99))


@pytest.mark.parametrize("array", [
    COLOUR.transpose(2, 0, 1), COLOUR / 255.0, COLOUR.astype(np.int64), COLOUR[None], COLOUR[:0], GREY[0],
], ids=lambda array: f"{array.shape} {array.dtype}")  # fmt: skip
def test_arrays_that_are_no_picture_are_refused(vit: nn.Module, array: np.ndarray):
    with pytest.raises(InputError, match=r"shape \("):
        cv.explain(vit, array, 0)


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (65535, 1), (101, 1)])
def test_an_elongated_picture_is_refused_before_it_is_enlarged(vit: nn.Module, tmp_path: Path, size, monkeypatch):
    """One of 1 x 4,000 pixels would become 248 x 992,000."""
    Image.new("RGB", size).save(tmp_path / "long.png")
    monkeypatch.setattr(Image.Image, "resize", None)
    for given in (tmp_path / "long.png", Image.new("L", size), np.zeros(size, np.uint8)):
        with pytest.raises(InputError, match="100 times"):
            cv.explain(vit, given, 0)
    with pytest.raises(InputError, match="100 times"):
        reader_of(vit).prepare(torch.zeros(3, *size, dtype=torch.uint8))


def test_a_wide_picture_is_read(vit: nn.Module):
    assert cv.explain(vit, Image.new("RGB", (100, 1)), 0).map.shape == (2, 2)


def test_data_sets_read_the_same(tmp_path: Path):
    clear = Image.fromarray(np.dstack([COLOUR, np.zeros_like(ALPHA)]))
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    for name, image in (("a", clear), ("b", deep)):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "one.png")
    found = [np.asarray(sample.picture) for sample in ImageFolder(str(tmp_path))]
    assert (found[0] == 255).all() and np.array_equal(found[1][..., 0], GREY)
    rows = {"image": [clear, deep], "label": [0, 1]}
    data = Dataset.from_dict(rows, Features({"image": ImageColumn(), "label": Value("int64")}))
    data.save_to_disk(tmp_path / "hub")
    stored = [np.asarray(sample.picture) for sample in Hub(str(tmp_path / "hub"))]
    assert all(np.array_equal(one, two) for one, two in zip(found, stored, strict=True))
