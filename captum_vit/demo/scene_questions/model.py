"""The demo vision-language model: a small LLaVA that answers questions about digit scenes, and its processor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from captum_vit.demo.weights import load_weights
from captum_vit.extras import extra

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

FOLDER = Path(__file__).parent / "weights"
WEIGHTS = FOLDER / "model.safetensors"


def demo_vlm(pretrained: bool = True) -> LlavaForConditionalGeneration:
    """A transformers ``LlavaForConditionalGeneration`` that reads a digit scene and ``What digit is low?``.

    It is an ordinary LLaVA: a ViT of six layers for 64 x 64 pixels in patches of 8 x 8, a projector of two layers, and
    a Llama of two layers, which reads the 64 patches as 64 tokens before the question. A full stop ends its answer.
    Its folder is laid out as ``save_pretrained`` does it, so ``AutoModelForImageTextToText.from_pretrained(FOLDER)``
    reads the same model, and ``AutoProcessor`` its processor. ``weights/model.md`` says how the weights were made and
    what the model can do. Float32, on the CPU, in eval mode.

    Args:
        pretrained: read the weights.

    Example::

        >>> found = digit_questions(1, seed=3)
        >>> model, processor = demo_vlm(), demo_vlm_processor()
        >>> inputs = processor(text=found.prompts, images=list(found.pixels), return_tensors="pt", do_rescale=False)
        >>> processor.decode(model.generate(**inputs)[0, inputs["input_ids"].shape[1] :])
        'eight.'
    """
    with extra("demo"):
        from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig.from_pretrained(FOLDER)
    config.name_or_path = str(FOLDER)  # where its processor is
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig.from_pretrained(FOLDER)
    if pretrained:
        load_weights(model, WEIGHTS)
    return model.eval()


def demo_vlm_processor() -> LlavaProcessor:
    """The processor of :func:`demo_vlm`: pictures and prompts to pixels and tokens, as on the hub.

    Pictures are resized to 64 x 64 pixels and normalised. ``<image>`` in a prompt becomes 64 tokens. Whole words and
    signs in lower case, behind a start token; pads left.
    """
    with extra("demo"):
        from transformers import LlavaProcessor

    return LlavaProcessor.from_pretrained(FOLDER)


def tokens_read(
    model: LlavaForConditionalGeneration,
    ids: Tensor,  # shape: (K, N), or (B, K, N), K prompts of the same length
    pixels: Tensor,  # shape: (B, 3, 64, 64)
) -> Tensor:  # shape: (B, K, N, D)
    """What the language model of a LLaVA reads of each scene with each prompt; the tower runs once."""
    patches = torch.stack(model.model.get_image_features(pixels).pooler_output)
    words = model.get_input_embeddings()(ids).expand(len(pixels), -1, -1, -1)
    places = (ids == model.config.image_token_id)[..., None].expand_as(words)
    return words.masked_scatter(places, patches[:, None].expand(-1, len(ids), -1, -1))
