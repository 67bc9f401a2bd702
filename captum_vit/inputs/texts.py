"""How models want their texts: ids, further arguments, and the tokens one-to-one with the ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError, UnsupportedModelError
from captum_vit.inputs.preprocessing import stored
from captum_vit.models.library import host_of, text_config
from captum_vit.models.positions import refuse_too_long
from captum_vit.models.towers import text_tower
from captum_vit.options import shown

_JOINT = ("get_text_features", "encode_text")  # what image-text models have
_SHORTER = "shorter texts, or functools.partial(tokenizer, truncation=True, max_length=...) in the tokenizer's place."


@dataclass(frozen=True)
class Words:
    """A text, or a pair of texts, as a model reads it.

    Args:
        ids: (1, T), on the model's device.
        args: the further positional arguments that the model needs for it: none for a single text.
        tokens: T tokens, special ones included.
        segments: which of the two texts each token belongs to; None for a single text.
        word_ids: which word each token is a piece of, None for special tokens; None where that is not known.
    """

    ids: Tensor
    args: tuple[Any, ...]
    tokens: list[str]
    segments: list[int] | None = None
    word_ids: list[int | None] | None = None


def read_text(model: nn.Module, text: str | Sequence[str], tokenizer: Any = None) -> Words:
    """A text, or a pair of texts, as this model's input.

    Args:
        model: a text model of Hugging Face, or a target module around one or around an image-text model.
        text: to be read; a **tuple** of two is a pair, read as the tokenizer joins pairs (question and context,
            premise and hypothesis). A list is a batch, as everywhere in Hugging Face, and may hold one text.
        tokenizer: the one stored beside the model by default.

    Raises:
        InputError: an empty text, several, or one longer than the model reads.
        UnsupportedModelError: no tokenizer is known.
    """
    text = text[0] if isinstance(text, list) and len(text) == 1 else text
    if isinstance(text, list):
        hint = "one text at a time; (text, other) as a tuple for a pair."
        raise InputError("One text, or a tuple of two for a pair.", f"a list of {len(text)}", hint)
    texts = [text] if isinstance(text, str) else list(text)
    if len(texts) not in (1, 2) or not all(isinstance(one, str) and one.strip() for one in texts):
        raise InputError("A text, or a pair of texts.", shown(text), 'a string with words, or ("one", "another").')
    tokenizer = tokenizer or stored("AutoTokenizer", model)
    if tokenizer is None:
        raise UnsupportedModelError(
            "A tokenizer.", f"{type(model).__name__}, beside which none is stored", "tokenizer=..."
        )
    joint = next((m for m in model.modules() if any(hasattr(m, name) for name in _JOINT)), None)
    found = _plain(model, texts, tokenizer) if joint is None else _joint(joint, texts, tokenizer)
    most = getattr(tokenizer, "model_max_length", None) or found.ids.shape[1]
    if found.ids.shape[1] > most:
        hint = "a shorter text, or a larger tokenizer.model_max_length where the model reads more."
        raise InputError(f"At most {most} tokens, as the tokenizer has it.", f"{found.ids.shape[1]}", hint)
    return found


def _plain(model: nn.Module, texts: list[str], tokenizer: Any) -> Words:
    encoded = tokenizer(*texts, return_tensors="pt").to(next(model.parameters()).device)
    ids = encoded["input_ids"]
    refuse_too_long(getattr(model, "tower", model), ids)
    tokens, of_words = tokenizer.convert_ids_to_tokens(ids[0].tolist()), _word_ids(encoded)
    if len(texts) == 1:
        return Words(ids, (), tokens, None, of_words)
    return Words(ids, _further(model, encoded), tokens, _segments(encoded), of_words)


def _word_ids(encoded: Any) -> list[int | None] | None:
    """Which word of its text each token is a piece of; None where the tokenizer does not know."""
    try:
        return list(encoded.word_ids(0))
    except ValueError:  # tokenizers in pure Python have no such list
        return None


def _further(model: nn.Module, encoded: Any) -> tuple[Any, ...]:
    """Which text each token belongs to, at its place among the arguments; none where separators are enough."""
    return arguments_with_types(model, encoded) if "token_type_ids" in encoded else ()


def arguments_with_types(model: nn.Module, given: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a model behind its ids, up to ``token_type_ids``; none where it takes no such ids."""
    host = host_of(model)
    names = list(signature((model if host is None else host[1]).forward).parameters)[1:]
    if "token_type_ids" not in names:
        return ()
    return tuple(given.get(name) for name in names[: names.index("token_type_ids") + 1])


def has_token_types(model: nn.Module) -> bool:
    """Whether a model has embeddings for the first text of a pair and for the second."""
    return (getattr(text_config(model), "type_vocab_size", 0) or 0) > 1


def second_text(ids: Tensor, separator: int) -> Tensor:  # shape: (B, T), bool
    """Tokens behind the first separator, which ends the first text."""
    ends = (ids == separator).long()
    return ends.cumsum(1) > ends


def _segments(encoded: Any) -> list[int] | None:
    """0 or 1 for each token; a separator belongs to the text before it."""
    try:
        numbers = encoded.sequence_ids(0)
    except ValueError:  # tokenizers in pure Python have no such list
        kinds = encoded.get("token_type_ids")
        return None if kinds is None else kinds[0].tolist()
    found: list[int] = []
    for number in numbers:
        found.append(number if number is not None else found[-1] if found else 0)
    return found


def _joint(model: nn.Module, texts: list[str], tokenizer: Any) -> Words:
    if len(texts) == 2:
        raise InputError("One text, since image-text models read no pairs.", "a pair", "both in one string.")
    ids = tokenized(model, tokenizer, texts)[0]
    names = getattr(tokenizer, "tokenizer", tokenizer)  # a processor, or open_clip's wrapper, holds the tokenizer
    if hasattr(names, "convert_ids_to_tokens"):
        return Words(ids, (), names.convert_ids_to_tokens(ids[0].tolist()))
    known = getattr(names, "decoder", {})  # open_clip's own
    return Words(ids, (), ["[PAD]" if i == 0 else known.get(i, str(i)) for i in ids[0].tolist()])


def tokenized(model: Any, tokenizer: Callable[..., Any], texts: Sequence[str]) -> tuple[Tensor, ...]:
    """Ids (B, T), and a mask where the model wants one, as these models were trained.

    CLIP reads texts as long as its positions, SigLIP only such as are filled up to the length that it was trained
    with, where padding counts as text; open_clip's tokenizers fill up, and cut, by themselves.

    Raises:
        InputError: a text of more tokens than the model has positions.
    """
    device = next(model.parameters()).device
    if not hasattr(model, "get_text_features"):
        return (tokenizer(list(texts)).to(device),)
    encoded = tokenizer(text=list(texts), return_tensors="pt", padding=True)
    refuse_too_long(text_tower(model), encoded["input_ids"], _SHORTER)
    if model.config.model_type.startswith("siglip"):
        length = model.config.text_config.max_position_embeddings
        fill: dict[str, Any] = {"padding": "max_length", "max_length": length, "truncation": True}
        return (tokenizer(text=list(texts), return_tensors="pt", **fill)["input_ids"].to(device),)
    return tuple(encoded[name].to(device) for name in ("input_ids", "attention_mask") if name in encoded)


def words_of(model: Any, ids: Tensor) -> Tensor | None:  # shape: (B, T)
    """Where open_clip's texts end: True up to the end token, which has the highest number. None elsewhere."""
    pooled = getattr(model, "text_pool_type", getattr(getattr(model, "text", None), "pool_type", None))
    if hasattr(model, "get_text_features") or pooled != "argmax":
        return None
    return torch.arange(ids.shape[1], device=ids.device) <= ids.argmax(1, keepdim=True)
