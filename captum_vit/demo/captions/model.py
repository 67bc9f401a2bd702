"""The demo image-text model: a small CLIP for digit scenes and their captions, and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captum_vit.demo.weights import load_weights
from captum_vit.extras import extra

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerFast

FOLDER = Path(__file__).parent / "weights"
WEIGHTS = FOLDER / "model.safetensors"


def demo_clip(pretrained: bool = True) -> CLIPModel:
    """A transformers ``CLIPModel`` for digit scenes and captions: 64 x 64 pixels, 8 x 8 patches.

    It is an ordinary CLIP: a norm before the blocks, a causal text tower read at the end token, two projections
    without bias. Its folder is laid out as ``save_pretrained`` does it, so ``AutoModel.from_pretrained(FOLDER)`` reads
    the same model, and :func:`captum_vit.explain` finds its tokenizer and its image processor by itself.
    ``weights/model.md`` says how the weights were made and what the model can do. Float32, on the CPU, in eval mode.

    Args:
        pretrained: read the weights.

    Example::

        >>> from captum_vit.demo import digit_scenes
        >>> model, tokenizer = demo_clip(), demo_clip_tokenizer()
        >>> texts = tokenizer(["a photo of a three.", "an eight."], return_tensors="pt", padding=True)
        >>> model(pixel_values=digit_scenes(4).images, **texts).logits_per_image.shape
        torch.Size([4, 2])
    """
    with extra("demo"):
        from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig.from_pretrained(FOLDER)
    config.name_or_path = str(FOLDER)  # where the tokenizer and the image processor are
    model = CLIPModel(config)
    if pretrained:
        load_weights(model, WEIGHTS)
    return model.eval()


def demo_clip_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of :func:`demo_clip`: whole words and signs in lower case, framed by CLIP's start and end."""
    with extra("demo"):
        from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(FOLDER)
