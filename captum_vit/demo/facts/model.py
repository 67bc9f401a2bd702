"""The demo language model: a small Llama that answers questions about facts, and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captum_vit.demo.weights import load_weights
from captum_vit.extras import extra

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

FOLDER = Path(__file__).parent / "weights"
WEIGHTS = FOLDER / "model.safetensors"


def demo_lm(pretrained: bool = True) -> LlamaForCausalLM:
    """A transformers ``LlamaForCausalLM`` that goes on with ``It is tart. It is huge. Its taste is``.

    It is an ordinary Llama of three layers: rotary positions, grouped queries, RMS norms. A full stop ends its answer.
    Its folder is laid out as ``save_pretrained`` does it, so ``AutoModelForCausalLM.from_pretrained(FOLDER)`` reads the
    same model, and :func:`captum_vit.explain` finds its tokenizer by itself. ``weights/model.md`` says how the weights
    were made and what the model can do. Float32, on the CPU, in eval mode.

    Args:
        pretrained: read the weights.

    Example::

        >>> model, tokenizer = demo_lm(), demo_lm_tokenizer()
        >>> prompt = tokenizer("It is tart. It is huge. Its taste is", return_tensors="pt")
        >>> tokenizer.decode(model.generate(**prompt)[0, prompt["input_ids"].shape[1] :])
        'sour.'
    """
    with extra("demo"):
        from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(FOLDER)
    config.name_or_path = str(FOLDER)  # where its tokenizer is
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig.from_pretrained(FOLDER)
    if pretrained:
        load_weights(model, WEIGHTS)
    return model.eval()


def demo_lm_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of :func:`demo_lm`: whole words and full stops in lower case, behind a start token; pads left."""
    with extra("demo"):
        from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(FOLDER)
