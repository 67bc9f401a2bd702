"""Prompts of language models, with pictures or without, and the answers that they got."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn

from captum_vit.errors import InputError, OptionError, TargetError, UnsupportedModelError
from captum_vit.inputs.preprocessing import stored
from captum_vit.inputs.rgb import open_picture, picture_of
from captum_vit.models.modules import module_of
from captum_vit.models.positions import most_tokens, refuse_too_long
from captum_vit.options import function, kind_of, shown

IDS, PIXELS = "input_ids", "pixel_values"
MOST = 20  # tokens of an answer that is generated here
_GREEDY = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1, "return_dict_in_generate": False}


@dataclass(frozen=True)
class Prompt:
    """A prompt as a model reads it.

    Args:
        ids: (1, n), on the model's device.
        rest: what else a processor gave, by name.
        tokenizer: what gave the ids.
        pictures: as they were given; none where a processor had been called before.
    """

    ids: Tensor
    rest: dict[str, Any]
    tokenizer: Any
    pictures: tuple[Image, ...] = ()

    @property
    def length(self) -> int:
        return self.ids.shape[1]

    @property
    def pixels(self) -> Tensor | None:
        found = self.rest.get(PIXELS)
        return found if isinstance(found, Tensor) else None


def generates(model: nn.Module) -> bool:
    """Whether a model writes text: it has ``generate``, and says that it can."""
    can = getattr(module_of(model), "can_generate", None)
    return callable(can) and bool(can())


def read_prompt(model: nn.Module, given: Any, processor: Any = None, tokenizer: Any = None) -> Prompt:
    """A prompt in any form, as this model's input.

    Args:
        model: a language model of Hugging Face, or one that reads pictures too.
        given: a text; a picture or its path, or a list of them, and a text, as a tuple; a chat, as a list of messages;
            what a processor or tokenizer gave; or ids (n,) or (1, n). The text of a picture that does not hold the
            processor's image token becomes a chat of one message, where the processor has a template for chats, and
            else the image token is put in front of it.
        processor: of texts and pictures; the one stored beside the model by default.
        tokenizer: for a model that reads no pictures.

    Raises:
        InputError: an empty text, several prompts, one that is padded behind its words, or pictures whose
            number does not fit.
        UnsupportedModelError: neither tokenizer nor processor is known.
    """
    maker = processor or tokenizer or stored("AutoProcessor" if _needs_processor(given) else "AutoTokenizer", model)
    if maker is not None:
        function("processor", maker, hint="AutoProcessor.from_pretrained(...), or AutoTokenizer of a text model.")
    device = next(model.parameters()).device
    if isinstance(given, Tensor):
        given = {IDS: given[None] if given.dim() == 1 else given}
    pictures, text = _parts(given)
    if not isinstance(given, Mapping):
        if maker is None:
            wanted, got = "A tokenizer, or a processor.", f"{type(model).__name__}, beside which none is stored"
            raise UnsupportedModelError(wanted, got, "processor=..., or the ids that a tokenizer gave.")
        given = _encoded(maker, pictures, text)
    ids = given.get(IDS)
    if not _are_ids(ids) or ids.dim() != 2 or len(ids) != 1 or not ids.shape[1]:
        got = kind_of(ids) if isinstance(ids, Tensor) else shown(ids)
        raise InputError("Ids (1, n) of one prompt.", got, 'processor(..., return_tensors="pt") with one text.')
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2 and not mask[0, -1]:
        hint = 'tokenizer.padding_side = "left", or the prompt without padding.'
        raise InputError("A prompt that ends with a word.", "padding behind the prompt", hint)
    rest = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in given.items() if name != IDS}
    return Prompt(ids.to(device), rest, getattr(maker, "tokenizer", maker), pictures)


def _are_ids(given: Any) -> TypeGuard[Tensor]:
    return isinstance(given, Tensor) and given.dtype in (torch.int32, torch.int64)


def _needs_processor(given: Any) -> bool:
    """Pictures and a text, or a chat whose messages have parts, which may be pictures."""
    chat = given if isinstance(given, list) else []
    parts = [message.get("content") for message in chat if isinstance(message, Mapping)]
    return _has_pictures(given) or any(isinstance(part, list) for part in parts)


def _has_pictures(given: Any) -> bool:
    return isinstance(given, tuple) and len(given) == 2


def _parts(given: Any) -> tuple[tuple[Image, ...], Any]:
    """Pictures and text."""
    if _has_pictures(given):
        first, text = given
        if not isinstance(text, str) or not text.strip():
            raise InputError("Pictures and a question.", f"a question that is {shown(text)}", '"What is this?".')
        pictures = tuple(map(_picture, first if isinstance(first, list | tuple) else [first]))
        if not pictures:
            raise InputError("Pictures and a question.", "no picture", "the question as a text, without a tuple.")
        return pictures, text
    is_chat = isinstance(given, list) and given and all(isinstance(message, Mapping) for message in given)
    if not is_chat and not isinstance(given, Mapping) and not (isinstance(given, str) and given.strip()):
        hint = '"The capital of France is", (picture, "What is this?"), or [{"role": "user", "content": "Hello"}].'
        raise InputError("A text, a picture and a question, or a chat.", shown(given), hint)
    return (), given


def _picture(given: Any) -> Image:
    return open_picture(given) if isinstance(given, str | PathLike) else picture_of(given)


def _encoded(maker: Any, pictures: tuple[Image, ...], text: Any) -> Mapping[str, Any]:
    as_chat = {"tokenize": True, "add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    if not isinstance(text, str):
        if getattr(maker, "chat_template", None) is None:
            raise InputError("A text, since there is no template for chats.", "a chat", 'chat[-1]["content"].')
        chat: Mapping[str, Any] = maker.apply_chat_template(text, **as_chat)
        return chat
    if not pictures:
        plain: Mapping[str, Any] = maker(text=text, return_tensors="pt")
        return plain
    token = getattr(maker, "image_token", None)
    if not hasattr(maker, "image_processor") or token is None:
        hint = "processor=AutoProcessor.from_pretrained(...)."
        raise OptionError("A processor of texts and pictures.", type(maker).__name__, hint)
    if token not in text:
        if getattr(maker, "chat_template", None):
            content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": text}]
            text = maker.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        else:
            text = token * len(pictures) + text
    elif text.count(token) != len(pictures):
        got = f"{text.count(token)} in the text, {len(pictures)} pictures"
        raise InputError(f"{token!r} once for each picture.", got, "a text without it, or as many pictures.")
    encoded: Mapping[str, Any] = maker(text=text, images=list(pictures), return_tensors="pt")
    return encoded


def answer_ids(model: Any, prompt: Prompt, answer: Any = None) -> Tensor:  # shape: (1, T)
    """The ids of an answer.

    Args:
        model: the language model.
        prompt: what it answers.
        answer: its text, its ids (T,) or (1, T), or what ``generate`` returned, with the prompt in front. None lets the
            model generate up to 20 tokens, each the likeliest one. Of a text it is not known whether a space stands
            in front of it: the reading whose first token is likelier is taken, at the cost of a forward pass.

    Raises:
        InputError: an answer without tokens, or several.
    """
    if answer is None:
        lm: Any = module_of(model)
        refuse_too_long(lm, F.pad(prompt.ids, (0, 1)))  # the prompt and one token of an answer
        most = min(MOST, (most_tokens(lm) or math.inf) - prompt.length)
        found = lm.generate(prompt.ids, **prompt.rest, max_new_tokens=most, **_GREEDY)[:, prompt.length :]
    elif isinstance(answer, str):
        found = _likelier(model, prompt, answer)
    elif _are_ids(answer) and 1 <= answer.dim() <= 2:
        found = (answer[None] if answer.dim() == 1 else answer).to(prompt.ids)
        if torch.equal(found[:1, : prompt.length], prompt.ids):
            found = found[:, prompt.length :]
    else:
        raise InputError("An answer: a text, or ids.", shown(answer), "what generate returned, or answer=None.")
    if len(found) != 1 or not found.shape[1]:
        raise InputError("One answer of at least one token.", f"ids of shape {tuple(found.shape)}", "answer=None.")
    return found


def readings(prompt: Prompt, text: str) -> tuple[list[int], list[int]]:
    """The ids of a text that goes on behind another one: as it stands, and with a space in front.

    Raises:
        InputError: no tokenizer is known, or it has no tokens for the text.
    """
    tokenizer = _tokenizer(prompt, text)
    both = (text, text if text[:1].isspace() else f" {text}")
    plain, spaced = (list(tokenizer(one, add_special_tokens=False)[IDS]) for one in both)
    unknown = getattr(tokenizer, "unk_token", None)
    if unknown and unknown not in text and tokenizer.unk_token_id in plain:
        got = f"{text!r}, which holds a word that it does not"
        raise InputError("A text that the tokenizer has tokens for.", got, "other words, or ids.")
    return plain, spaced


def _tokenizer(prompt: Prompt, text: str) -> Any:
    if prompt.tokenizer is None:
        raise InputError("Ids, since no tokenizer is known.", repr(text), "tokenizer=..., or ids.")
    return prompt.tokenizer


def _likelier(model: nn.Module, prompt: Prompt, text: str) -> Tensor:  # shape: (1, T)
    """A text's reading whose first token is the likelier one behind the prompt."""
    plain, spaced = readings(prompt, text)
    if plain and spaced and plain[0] != spaced[0]:
        with torch.no_grad():
            logits = model(prompt.ids, **prompt.rest).logits[0, -1]
        plain = max(plain, spaced, key=lambda ids: float(logits[ids[0]]))
    return torch.tensor([plain], dtype=torch.long, device=prompt.ids.device)


def span_of(prompt: Prompt, answer: Tensor, target: Any) -> tuple[int, int]:
    """The tokens of an answer that a target names, as start and stop.

    Args:
        prompt: what the answer goes on with.
        answer: (1, T).
        target: a place in the answer, a pair (start, stop), or words; None for the first token.

    Raises:
        TargetError: words that were not generated, or no such place.
    """
    n = answer.shape[1]
    if target is None:
        return 0, 1
    if isinstance(target, str):
        return _words(prompt, answer[0].tolist(), target)
    start, stop = target if isinstance(target, tuple) and len(target) == 2 else (target, None)
    if isinstance(start, bool) or not isinstance(start, int) or not isinstance(stop, int | None):
        hint = "target=0 for the first token, or a word of the answer."
        raise TargetError("A place in the answer, two of them, or words of it.", shown(target), hint)
    start = start + n if start < 0 else start
    stop = start + 1 if stop is None else stop
    if not 0 <= start < stop <= n:
        raise TargetError(f"A place in an answer of {n} tokens.", shown(target), "target=0 for the first one.")
    return start, stop


def _words(prompt: Prompt, ids: list[int], wanted: str) -> tuple[int, int]:
    """The first, shortest run of tokens that spells these words."""
    spelt = _tokenizer(prompt, wanted).decode
    for length in range(1, len(ids) + 1):
        for start in range(len(ids) - length + 1):
            found = spelt(ids[start : start + length])
            if found == wanted != "" or found.strip() == wanted.strip() != "":
                return start, start + length
    raise TargetError(
        "Words of the answer, from the begin of a token to the end of one.",
        f"{wanted!r}, where the answer is {spelt(ids)!r}",
        "answer=... with a text that holds them, to explain an answer that was not generated.",
    )


def foil_ids(prompt: Prompt, target: list[int], foil: Any) -> list[int] | None:
    """A foil for each of the target's tokens, by id.

    A word is read as the target was, with a space in front or without one.

    Args:
        prompt: what was answered.
        target: the ids of the target.
        foil: an id or a word; None for none.

    Raises:
        OptionError: a word of another number of tokens than the target, or the target itself.
    """
    if foil is None:
        return None
    if isinstance(foil, bool) or not isinstance(foil, str | int):
        raise OptionError("`foil` must be a word, or the id of a token.", shown(foil), 'foil="nine".')
    found = [foil] * len(target) if isinstance(foil, int) else _read_as(prompt, target, foil)
    if found == target:
        raise OptionError("A foil that is another word than the target.", repr(foil), "foil=None, or another word.")
    return found


def _read_as(prompt: Prompt, target: list[int], foil: str) -> list[int]:
    """The ids of a foil, with a space in front where the target has one."""
    plain, spaced = readings(prompt, foil)
    tokenizer = _tokenizer(prompt, foil)
    as_it_stands = target == list(tokenizer(tokenizer.decode(target).strip(), add_special_tokens=False)[IDS])
    found = plain if as_it_stands else spaced
    if len(found) != len(target):
        pieces = tokenizer.convert_ids_to_tokens(found)
        wanted = f"A foil of {len(target)} tokens, as many as the target has."
        raise OptionError(wanted, f"{foil!r}, which is {pieces}", "another word, or the id of one token.")
    return found
