"""The demo sound model: a small AST for clips of tones in noise, and its feature extractor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captum_vit.demo.weights import load_weights
from captum_vit.extras import extra

if TYPE_CHECKING:
    from transformers import ASTFeatureExtractor, ASTForAudioClassification

FOLDER = Path(__file__).parent / "weights"
WEIGHTS = FOLDER / "model.safetensors"
KINDS = ("steady", "rising", "falling", "trill", "pulses", "chord")
RATE = 16_000  # samples a second
FRAMES, BANDS = 96, 64  # of a spectrogram: 10 ms each, and mel bands from 20 to 8,000 Hz


def demo_ast(pretrained: bool = True) -> ASTForAudioClassification:
    """A transformers ``ASTForAudioClassification`` for ``tone_clips``: (B, 96, 64) spectrograms, six kinds.

    It is an ordinary Audio Spectrogram Transformer: patches of 8 frames x 8 bands, numbered band by band and along time
    within a band, behind two prefix tokens, whose mean the classifier reads. Patches do not overlap. Its folder is laid
    out as ``save_pretrained`` does it, so ``AutoModelForAudioClassification.from_pretrained(FOLDER)`` reads the same
    model. ``weights/model.md`` says how the weights were made and what the model can do. Float32, on the CPU, in eval
    mode.

    Args:
        pretrained: read the weights.

    Example::

        >>> from captum_vit.demo import tone_clips
        >>> demo_ast()(tone_clips(2).inputs).logits.shape
        torch.Size([2, 6])
    """
    with extra("demo"):
        from transformers import ASTConfig, ASTForAudioClassification

    config = ASTConfig.from_pretrained(FOLDER)
    config.name_or_path = str(FOLDER)  # where the feature extractor is
    model = ASTForAudioClassification(config)
    if pretrained:
        load_weights(model, WEIGHTS)
    return model.eval()


def demo_ast_extractor() -> ASTFeatureExtractor:
    """The feature extractor of :func:`demo_ast`: waves at 16 kHz to normalised log-mel spectrograms."""
    with extra("demo"):
        from transformers import ASTFeatureExtractor

    return ASTFeatureExtractor.from_pretrained(FOLDER)
