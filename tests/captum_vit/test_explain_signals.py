"""explain for videos, sounds and volumes, and for dense targets: the map, what is shown, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from captum.attr import Attribution, Saliency
from PIL import Image
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.viz import film, slices, spectrogram
from tests.captum_vit.targets.dense_models import SMALL, dpt, random_weights, volumes, yolos


def videomae() -> nn.Module:
    config = tf.VideoMAEConfig(image_size=32, num_frames=4, num_labels=3, decoder_num_hidden_layers=1, **SMALL)
    return random_weights(tf.VideoMAEForVideoClassification(config))


def ast() -> nn.Module:
    sizes = {"max_length": 64, "num_mel_bins": 32, "patch_size": 8, "frequency_stride": 8, "time_stride": 8}
    return random_weights(tf.ASTForAudioClassification(tf.ASTConfig(num_labels=3, **sizes, **SMALL)))


class OfSamples(nn.Module):
    """Scores of a sound as samples."""

    def __init__(self) -> None:
        super().__init__()
        self.frames, self.head = nn.Conv1d(1, 16, 10, 10), nn.Linear(16, 3)
        self.layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=True)

    def forward(self, sound: Tensor) -> Tensor:
        return self.head(self.layer(self.frames(sound.unsqueeze(1)).mT).mean(1))


def saliency(model: nn.Module) -> Attribution:
    return Saliency(cv.logits_of(model))


def video_processor() -> Any:
    return tf.VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


FRAMES = np.random.default_rng(0).integers(0, 255, (4, 40, 50, 3), dtype=np.uint8)
TONE = np.sin(np.arange(8000, dtype=np.float32))


def test_a_video_is_a_film() -> None:
    model, processor = videomae(), video_processor()
    given = processor(list(FRAMES), return_tensors="pt")["pixel_values"]
    twin = Saliency(cv.logits_of(model)).attribute(given, target=1).sum(2)[0]
    for frames in (FRAMES, list(FRAMES), [Image.fromarray(frame) for frame in FRAMES], torch.from_numpy(FRAMES)):
        found = cv.explain(model, frames, 1, saliency, processor=processor)
        torch.testing.assert_close(found.map, twin)
        assert found.drawing is film and found.signal is not None and found.signal.shape == (4, 3, 32, 32)
    shown = torch.from_numpy(FRAMES[1, 4:36, 9:41]).permute(2, 0, 1) / 255  # resizing is a matter of the processor
    assert (found.signal[1] - shown).abs().mean() < 0.35 and 0 <= found.signal.min() <= found.signal.max() <= 1
    figure = found.show(per_second=2, colour_bar=True)
    assert "class 1" in figure.get_suptitle() and "0.5 s" in [axes.get_title() for axes in figure.axes]
    torch.testing.assert_close(cv.explain(model, given, 1, saliency).map, twin)


def test_a_method_of_tokens_has_a_map_over_time_or_depth() -> None:
    model, x = videomae(), torch.randn(1, 4, 3, 32, 32)
    found = cv.explain(model, x, 1, "GenAtt")
    torch.testing.assert_close(found.map, cv.GenAtt(model).attribute(x, target=1)[0, 0])
    assert found.map.shape == (2, 2, 2) and "frame 3" in [axes.get_title() for axes in found.show().axes]
    voxel, volume = cv.Pixel(volumes(), (1, 6, 2)), torch.randn(1, 1, 8, 8, 8)
    found = cv.explain(voxel, volume, 1, "GenAtt")
    torch.testing.assert_close(found.map, cv.GenAtt(voxel).attribute(volume, target=1)[0, 0])


def test_a_sound_is_a_spectrogram_with_maps_of_time_and_frequency(tmp_path: Path) -> None:
    model, processor = ast(), tf.ASTFeatureExtractor(max_length=64, num_mel_bins=32)
    given = processor(TONE, sampling_rate=16000, return_tensors="pt")["input_values"]
    found = cv.explain(model, TONE, 1, "GenAtt", processor=processor)
    torch.testing.assert_close(found.map, cv.GenAtt(model).attribute(given, target=1)[0, 0])
    assert found.map.shape == (8, 4) and found.drawing is spectrogram
    torch.testing.assert_close(found.signal, given[0])
    assert found.save(tmp_path / "tone.png").stat().st_size > 5000
    assert found.save(tmp_path / "tone.npy").exists() and found._repr_png_() and found._repr_html_() is None
    torch.testing.assert_close(cv.explain(model, given, 1, "GenAtt").map, found.map)
    with pytest.raises(cv.InputError, match=r"\.html"):
        found.save(tmp_path / "tone.html")


def test_samples_are_a_wave_of_known_length() -> None:
    model, processor = random_weights(OfSamples()), tf.Wav2Vec2FeatureExtractor(sampling_rate=4000)
    found = cv.explain(model, TONE, 1, saliency, processor=processor)
    given = processor(TONE, sampling_rate=4000, return_tensors="pt")["input_values"]
    torch.testing.assert_close(found.map, Saliency(model).attribute(given, target=1)[0])
    axes = found.show().axes[0]
    assert axes.get_xlim() == (0, 2) and axes.get_xlabel() == "time (s)"


def test_a_volume_is_cut() -> None:
    model, x = cv.Pixel(volumes(), (1, 6, 2)), torch.randn(1, 1, 8, 8, 8)
    found = cv.explain(model, x, 1, Saliency)
    assert found.map.shape == (8, 8, 8) and found.drawing is slices
    assert torch.equal(found.signal, x[0, 0])
    found.show().canvas.draw()


def marks(target: Callable[[nn.Module], nn.Module], model: nn.Module) -> Any:
    return cv.explain(target(model), torch.randn(1, 3, 64, 64), 1, "GenAtt").mark


def test_what_a_dense_target_is_about_is_marked() -> None:
    model, mask = dpt(), torch.zeros(64, 64)
    mask[3:9, 4:5] = 1
    assert marks(lambda m: cv.Pixel(m, (5, 7)), model).point == (5.5 / 64, 7.5 / 64)
    assert marks(lambda m: cv.Pixel(m, (5, 7), size=(128, 128)), model).point == (5.5 / 128, 7.5 / 128)
    assert torch.equal(marks(lambda m: cv.Region(m, mask), model).mask > 0, mask > 0)
    assert marks(lambda m: cv.Scalar(m, lambda o: o.logits[:, :, 1, 2]), model) is None
    detector, x = yolos(), torch.randn(1, 3, 64, 64)
    centre, middle, width, height = detector(x).pred_boxes[0, 2].tolist()
    wanted = (middle - height / 2, centre - width / 2, middle + height / 2, centre + width / 2)
    for target in (cv.Query(detector, 2), cv.Box(detector, 2)):
        found = cv.explain(target, x, 1, "GenAtt")
        assert found.mark.box == pytest.approx(wanted, abs=1e-5)
        assert all(axes.lines for axes in found.show().axes)


def test_labels_of_a_box_are_its_numbers() -> None:
    assert cv.explain(cv.Box(yolos(), 2), torch.randn(1, 3, 64, 64), "height", "GenAtt").labels == ["height"]


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "several videos": (lambda: cv.explain(videomae(), torch.randn(2, 4, 3, 32, 32), 1), "a batch of 2"),
    "three frames in colour": (lambda: cv.explain(videomae(), torch.randn(1, 3, 3, 32, 32), 1), "differ in number"),
    "frames without a processor": (lambda: cv.explain(dpt(), list(FRAMES), 1), "a batch of 4"),
    "frames for a model of pictures": (
        lambda: cv.explain(dpt(), list(FRAMES), 1, processor=tf.ViTImageProcessor()),
        "a batch of 4",
    ),
    "a sound for a processor of pictures": (
        lambda: cv.explain(ast(), TONE, 1, processor=lambda sound, return_tensors: {"other": 1}),
        "input_values or input_features",
    ),
    "several targets in one film": (
        lambda: cv.explain(videomae(), torch.randn(1, 4, 3, 32, 32), [0, 1], saliency).show(),
        "2 targets",
    ),
    "an option of another picture": (
        lambda: cv.explain(videomae(), torch.randn(1, 4, 3, 32, 32), 0, saliency).show(rows=["a"]),
        "rows",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_explained_is_refused_by_name(what: str) -> None:
    make, words = WRONG[what]
    with pytest.raises(cv.CaptumVitError, match=words):
        make()
