"""Frames of a sound: in the order of time, however they overlap, or refused."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor, nn

import captum_vit as cv
from tests.models import redrawn

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
WAVES = {"conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2}
WAVES |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8}
WAVES |= {"vocab_size": 7, "num_labels": 3}


def built(of: str, config: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return redrawn(getattr(tf, of)(getattr(tf, config)(**options)))


wav2vec2 = partial(built, "Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", **SIZES, **WAVES)
hubert = partial(built, "HubertForSequenceClassification", "HubertConfig", **SIZES, **WAVES)
ctc = partial(built, "Wav2Vec2ForCTC", "Wav2Vec2Config", **SIZES, **WAVES)
whisper = partial(
    built, "WhisperForAudioClassification", "WhisperConfig", d_model=16, encoder_layers=1, encoder_attention_heads=2,
    encoder_ffn_dim=16, num_mel_bins=8, max_source_positions=20, classifier_proj_size=8, num_labels=3,
    vocab_size=96, decoder_start_token_id=1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
SAMPLES = torch.randn(2, 400, generator=torch.Generator().manual_seed(0))
BANDS = torch.randn(2, 8, 40, generator=torch.Generator().manual_seed(0))


def by_hand(model: nn.Module, block: nn.Module, sound: Tensor, target: int) -> Tensor:
    """Frames times the gradient where they enter a block."""
    seen: list[Tensor] = []

    def leaf(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(args[0].detach().requires_grad_())
        return (seen[0], *args[1:])

    handle = block.register_forward_pre_hook(leaf)
    score = model(sound).logits[:, target].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, seen[0])
    return (seen[0] * gradient).sum(-1).detach()


@pytest.mark.parametrize(
    ("make", "block", "sound"),
    [(wav2vec2, "wav2vec2.encoder.layers.0", SAMPLES), (hubert, "hubert.encoder.layers.0", SAMPLES),
     (whisper, "encoder.layers.0", BANDS)],
)  # fmt: skip
def test_frames_are_in_the_order_of_time(make: Callable[[], nn.Module], block: str, sound: Tensor) -> None:
    model = make()
    wanted = by_hand(model, model.get_submodule(block), sound, 1)
    torch.testing.assert_close(cv.CAT(model).attribute(sound, target=1), wanted, rtol=1e-4, atol=1e-6)
    for method in ("GenAtt", "InputXGradient", "TokenAblation"):
        assert cv.METHODS[method](model).attribute(sound, target=1).shape == wanted.shape


def test_one_frame_of_speech() -> None:
    assert cv.DecompX(cv.Frame(ctc(), 4)).attribute(SAMPLES, target=2).shape == (2, 18)


def test_another_order_is_refused() -> None:
    model = wav2vec2()
    model.wav2vec2.feature_projection.register_forward_pre_hook(lambda _, args: (args[0].flip(1),))
    with pytest.raises(cv.UnsupportedModelError, match="frame 0 of 18 that moves token 17 most"):
        cv.DecompX(model).attribute(SAMPLES, target=1)


def test_a_mask_of_samples_may_hide_none() -> None:
    model, mask = wav2vec2(), torch.ones(2, 400).long()
    found = cv.DecompX(model).attribute(SAMPLES, target=1, additional_forward_args=(mask,))
    torch.testing.assert_close(found, cv.DecompX(model).attribute(SAMPLES, target=1))
    mask[1, 300:] = 0
    with pytest.raises(cv.InputError, match="one sound at a time"):
        cv.DecompX(model).attribute(SAMPLES, target=1, additional_forward_args=(mask,))


def test_explain_shows_frames_along_the_sound() -> None:
    found = cv.explain(wav2vec2(), SAMPLES[:1], target=1, method="DecompX")
    assert found.map.shape == (18,) and found.signal is not None and found.signal.shape == (400,)
    assert found.show().axes[0].get_xlabel() == "sample"
    turned = cv.explain(whisper(), BANDS[:1], target=1, method="DecompX")
    assert turned.map.shape == (20, 1) and turned.signal is not None
    torch.testing.assert_close(turned.signal, BANDS[0].mT)
    assert turned.show().axes[1].get_xlabel() == "frame"
