"""The shipped sound model is what its card says."""

import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import (
    ASTForAudioClassification,
)

import captum_vit as cv
from captum_vit.demo import demo_ast, demo_ast_extractor, tone_clips
from captum_vit.demo.sounds.evaluation import effect, evaluate
from captum_vit.demo.sounds.model import FOLDER, KINDS, RATE, WEIGHTS
from captum_vit.demo.sounds.train import shifted
from quantus_metrics.metrics.pointing import pointing_accuracy


def test_it_is_an_ordinary_ast() -> None:
    model = demo_ast()
    assert type(model) is ASTForAudioClassification and not model.training
    assert model(tone_clips(2).inputs).logits.shape == (2, 6)
    assert tuple(model.config.id2label.values()) == KINDS
    assert WEIGHTS.stat().st_size < 1_500_000 and WEIGHTS.with_suffix(".md").exists()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_transformers_reads_its_folder() -> None:
    clips = tone_clips(2)
    model = AutoModelForAudioClassification.from_pretrained(FOLDER, local_files_only=True).float().eval()
    with torch.no_grad():
        torch.testing.assert_close(model(clips.inputs).logits, demo_ast()(clips.inputs).logits)
    extractor = AutoFeatureExtractor.from_pretrained(FOLDER, local_files_only=True)
    assert extractor.to_dict() == demo_ast_extractor().to_dict()
    found = extractor(list(clips.waves.numpy()), sampling_rate=RATE, return_tensors="pt")["input_values"]
    torch.testing.assert_close(found, clips.inputs)


@pytest.mark.slow
def test_it_names_tones_of_held_out_pitches() -> None:
    accuracy = evaluate(demo_ast(), seed=1, n=100)
    assert accuracy.single > 0.9 and accuracy.both > 0.75


@pytest.mark.slow
def test_a_logit_is_about_its_tone() -> None:
    own, other, share, _ = effect(demo_ast(), seed=1, n=50)
    assert own > 5 > abs(other) and share < 0.3


def test_a_map_has_an_axis_for_time_and_one_for_pitch() -> None:
    """A cell for every patch of 8 frames x 8 bands."""
    clips = tone_clips(2)
    assert cv.DecompX(demo_ast()).attribute(clips.inputs, target=clips.kinds[:, 0]).shape == (2, 1, 12, 8)


@pytest.mark.slow
def test_maps_point_at_the_tone_that_is_named() -> None:
    """In time and in pitch."""
    clips = tone_clips(25, 2, seed=1)
    inputs, target = clips.inputs.repeat_interleave(2, 0), clips.kinds.flatten()
    maps = cv.DecompX(demo_ast()).attribute(inputs, target=target)
    assert pointing_accuracy(maps, clips.masks.flatten(0, 1), 4) >= 0.85


def test_a_moved_spectrogram_holds_the_same_patterns_elsewhere() -> None:
    """No further than allowed; along time round the end, and the outermost band is repeated."""
    spectrograms = torch.arange(5 * 96.0 * 64).view(5, 96, 64)
    moved = shifted(spectrograms, 8, torch.Generator().manual_seed(0))
    found = set()
    for before, after in zip(spectrograms, moved, strict=True):
        (by,) = [
            (t, f)
            for t in range(-8, 9)
            for f in range(-8, 9)
            if torch.equal(after[:, 8:-8], before.roll((-t, -f), (0, 1))[:, 8:-8])
        ]
        found.add(by)
    assert len(found) > 1
    assert torch.equal(shifted(spectrograms, 0, torch.Generator()), spectrograms)
