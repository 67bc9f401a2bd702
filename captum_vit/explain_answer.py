"""One call for a question to a language model: which words, and which patches, made this word of its answer."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple

import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_vit.attr.base import EntranceProducts
from captum_vit.inputs.images import display_image
from captum_vit.inputs.prompts import Prompt, answer_ids, foil_ids, read_prompt, span_of
from captum_vit.options import boolean, known
from captum_vit.targets.answer import Answer, Span
from captum_vit.trace.layout.image_tokens import image_tokens
from captum_vit.trace.modes.completeness import COMPLETE
from captum_vit.trace.run.state import undisturbed
from captum_vit.trace.run.watch import model_errors_as_ours
from captum_vit.viz.answer import ASKING, IMAGE, SO_FAR, SPECIAL, TEXT, AnswerExplanation
from captum_vit.viz.blending import pixels_of


def explain_answer(
    model: nn.Module,
    given: Any,
    target: Any,
    method: Callable[[nn.Module], tuple[Attribution, str]],
    *,
    answer: Any = None,
    foil: Any = None,
    processor: Any = None,
    tokenizer: Any = None,
    words: bool = False,
    special: bool = True,
    options: dict[str, Any],
) -> AnswerExplanation:
    """See :func:`captum_vit.explain`; ``method`` makes the method and its name from a target module."""
    boolean("words", words), boolean("special", special)
    with undisturbed(model):
        prompt = read_prompt(model, given, processor, tokenizer)
        with model_errors_as_ours(model, prompt.ids):
            answered = answer_ids(model, prompt, answer)
    start, stop = span_of(prompt, answered, target)
    chosen = answered[0, start:stop].tolist()
    foils = foil_ids(prompt, chosen, foil)
    of_each = None if foils is None else [foils[0]] * start + foils
    scores = Answer(model, prompt.length, foil=of_each, inputs=prompt.rest).span(start, stop)
    ids = torch.cat([prompt.ids, answered[:, :stop]], 1)  # what was generated later has no part in it
    seen = prompt.length + stop - 1
    attribution, name = method(scores)
    found = _explained(attribution, scores, ids, prompt.pixels, options)
    return AnswerExplanation(
        relevance=found.words[:seen],
        tokens=_tokens(prompt, ids[0, :seen].tolist()),
        roles=_roles(prompt, ids[0, :seen].tolist(), prompt.length + start - 1, found.of_picture),
        label=_label(prompt, chosen, foils),
        score=found.score,
        method=name,
        pictures=_pictures(model, prompt, len(found.images), processor),
        images=found.images,
        constants=found.constants,
        complete=found.complete,
        whole_words=words,
        special=special,
    )


class _Found(NamedTuple):
    """Relevance of the tokens (N,) and of the patches of each picture, and what the score is made of beside them."""

    words: Tensor
    score: float
    images: list[Tensor]
    of_picture: Tensor  # shape: (N,), bool, the tokens that pictures take the place of
    constants: dict[str, float]
    complete: bool


def _explained(
    attribution: Attribution, scores: Span, ids: Tensor, pixels: Tensor | None, options: dict[str, Any]
) -> _Found:
    """The sum that a score is by a complete rule, or the map of any other method of the language model's tokens."""
    of_picture = None if pixels is None else image_tokens(scores, (ids, pixels))
    rows = torch.zeros_like(ids[0], dtype=torch.bool) if of_picture is None else of_picture.rows[0].to(ids.device)
    if isinstance(attribution, EntranceProducts):
        known(f"{type(attribution).__name__}, of an answer", options, ())
        found = attribution.decompose(ids if pixels is None else (ids, pixels))
        images = [] if found.pictures is None else found.images
        beside = {"constants": found.constants[0].item()}
        if found.pictures is not None and (special := float(found.tower.sum() - sum(one.sum() for one in images))):
            beside["class token"] = special
        return _Found(found.words[0], found.score[0].item(), images, rows, beside, attribution.rule in COMPLETE)
    taken = [name for name in signature(attribution.attribute).parameters if name not in ("inputs", "target")]
    known(f"{type(attribution).__name__}.attribute", options, taken)
    with undisturbed(scores.model):
        score = scores(ids).item()
    relevance = attribution.attribute(ids, **options)
    images = [] if of_picture is None else of_picture.images(relevance * rows)
    return _Found(relevance[0] * ~rows, score, images, rows, {}, False)


def _roles(prompt: Prompt, ids: list[int], position: int, of_picture: Tensor) -> list[str]:
    """What each token is: part of a picture, special, the one that the word is read at, or of the prompt's words."""
    added = getattr(prompt.tokenizer, "added_tokens_decoder", {})  # those of a chat need no name of their own
    special = {number for number, token in added.items() if token.special}
    special |= set(getattr(prompt.tokenizer, "all_special_ids", ()))
    roles = [SPECIAL if number in special else TEXT for number in ids]
    for place in range(len(roles)):
        if of_picture[place]:
            roles[place] = IMAGE
        elif place == position:
            roles[place] = ASKING
        elif place >= prompt.length:
            roles[place] = SO_FAR
    return roles


def _tokens(prompt: Prompt, ids: list[int]) -> list[str]:
    if prompt.tokenizer is None:
        return [str(number) for number in ids]
    tokens: list[str] = prompt.tokenizer.convert_ids_to_tokens(ids)
    return tokens


def _label(prompt: Prompt, target: list[int], foils: list[int] | None) -> str:
    def spelt(ids: list[int]) -> str:
        text = str(ids) if prompt.tokenizer is None else prompt.tokenizer.decode(ids)
        return text.strip().replace("\n", "⏎") or repr(text)

    return spelt(target) if foils is None else f"{spelt(target)} rather than {spelt(foils)}"


def _pictures(model: nn.Module, prompt: Prompt, n: int, processor: Any) -> list[Tensor]:  # shape of each: (3, H, W)
    """What the model saw of each picture: its pixels where they are whole, else the picture as it was given."""
    pixels = prompt.pixels
    if pixels is None:
        return []
    if pixels.dim() >= 4 and pixels.shape[-3] == 3 and pixels.flatten(0, -4).shape[0] == n:
        return list(display_image(model, pixels.flatten(0, -4), processor))
    if len(prompt.pictures) == n:
        return [pixels_of(picture) for picture in prompt.pictures]
    blank = torch.full((3, 64, 64), 0.5)
    return [blank] * n
