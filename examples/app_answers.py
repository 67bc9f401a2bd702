"""What models and methods answer, as HTML for the page of app.py: a card for each method, or why it refuses."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import captum_vit as cv
from captum_vit import viz
from captum_vit.demo import demo_bert, demo_clip, demo_clip_tokenizer, demo_lm, demo_vit, demo_vlm
from captum_vit.demo.captions import PROMPTS, TEMPLATES
from captum_vit.errors import CaptumVitError, InputError
from captum_vit.explain import Explanation, open_picture
from captum_vit.inputs.class_names import class_names
from captum_vit.inputs.images import image_tensor
from captum_vit.inputs.loading import load_model
from captum_vit.inputs.prompts import generates
from captum_vit.models.library import is_text_model
from captum_vit.viz import AnswerExplanation
from captum_vit.viz.blending import large

DIGITS, CAPTIONS, REVIEWS = "digit scenes: a ViT", "scenes and captions: a CLIP", "reviews: a BERT"
FACTS, QUESTIONS = "facts: a language model", "questions about scenes: a vision-language model"
EMBEDDED = {DIGITS: demo_vit, CAPTIONS: demo_clip, REVIEWS: demo_bert, FACTS: demo_lm, QUESTIONS: demo_vlm}
PROMPTED = {
    FACTS: "It is tart. It is huge. It is irate. It is ruby. Its taste is",
    QUESTIONS: "what digit is low ?",
}
CONCEPT = "like your pictures"
STYLE = """
.found { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)) }
.found.words { grid-template-columns: 1fr }
.found section { border: 1px solid var(--border-color-primary); border-radius: 10px; padding: 10px 12px 12px }
.found h3 { margin: 0 0 8px; font-size: 15px; display: flex; justify-content: space-between }
.found small, .found figcaption, .key { opacity: 0.7; font-size: 13px; font-weight: 400 }
.found .maps { display: grid; gap: 8px; grid-template-columns: repeat(auto-fit, minmax(110px, 1fr)) }
.found figure { margin: 0; max-width: 260px } .found img { width: 100%; border-radius: 6px; display: block }
.found pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; margin: 0 } .key { margin-top: 12px }
"""
KEY = "Orange is evidence for the target, blue against it; maps that cannot be negative go from violet to yellow."


@lru_cache(maxsize=4)
def loaded(name: str) -> nn.Module:
    return EMBEDDED[name]() if name in EMBEDDED else load_model(name.strip())


def names_of(name: str) -> list[str]:
    """The targets of a model; of a CLIP, any text."""
    return list(PROMPTS) if name == CAPTIONS else list((class_names(loaded(name)) or {}).values())


def asked(name: str, wanted: Sequence[str], concept: Sequence[str]) -> tuple[nn.Module, list[Any] | None]:
    """What is explained, and for which of its outputs: texts, a concept, or classes; None for what is predicted."""
    model = loaded(name)
    if concept and name == CAPTIONS:
        raise InputError("A classifier, for a concept shown by pictures.", name, "a text, or another model.")
    if concept:
        pictures = torch.cat([image_tensor(model, open_picture(path)) for path in concept])
        return cv.ConceptSimilarity.from_images(model, {CONCEPT: pictures}), [0]
    if name == CAPTIONS:
        texts = list(wanted or PROMPTS)
        found = cv.TextSimilarity.from_texts(model, demo_clip_tokenizer(), texts, templates=TEMPLATES)
        return found, list(range(len(texts))) if wanted else None
    return model, list(wanted) or None


def explain(
    name: str,
    picture: Image.Image | None,
    review: str,
    wanted: Sequence[str],
    concept: Sequence[str] | None,
    methods: Sequence[str],
    prompt: str = "",
    foil: str = "",
) -> str:
    """Every method's answer as HTML, with the time that it took; or the reason why there is none."""
    cards: list[str] = []
    refused: dict[str, list[str]] = {}  # by the reason, since many methods may have the same
    words = False
    for method in methods:
        try:
            start = time.perf_counter()
            words = is_text_model(loaded(name))
            if generates(loaded(name)):
                found = answered(name, picture, prompt, wanted, foil, method)
            else:
                found = classified(name, review if words else picture, wanted, () if words else concept or (), method)
            cards.append(card(method, f"{1000 * (time.perf_counter() - start):.0f} ms", answer(found)))
        except CaptumVitError as refusal:
            refused.setdefault(str(refusal), []).append(method)
    cards += [no(", ".join(those), reason) for reason, those in refused.items()]
    return sheet(cards, "words" if words else "") + f'<p class="key">{KEY if cards else "Choose a method."}</p>'


def classified(name: str, given: Any, wanted: Sequence[str], concept: Sequence[str], method: str) -> Any:
    """What a classifier, or a model of pictures and texts, bases its scores on."""
    if not given:
        raise InputError("A picture, or a review for a model of texts.", "none", "one of the examples.")
    function, targets = asked(name, wanted, concept)
    return cv.explain(function, given, targets, method, words=True, special=False)


def answered(name: str, picture: Image.Image | None, prompt: str, wanted: Sequence[str], foil: str, method: str) -> Any:
    """What a language model bases a word of its answer on: the word that is wanted, or else the first one."""
    model = loaded(name)
    if not is_text_model(model) and picture is None:
        raise InputError("A picture, which the question is about.", "none", "one of the scenes.")
    given = prompt if is_text_model(model) else (picture, prompt)
    return cv.explain(model, given, wanted[0] if wanted else None, method, foil=foil.strip() or None, words=True)


def sheet(cards: Sequence[str], kind: str = "") -> str:
    return f'<div class="found {kind}">{"".join(cards)}</div>'


def no(title: str, reason: str) -> str:
    return card(title, "refused", f"<pre>{escape(reason)}</pre>")


def card(title: str, aside: str, body: str) -> str:
    return f"<section><h3>{escape(title)} <small>{escape(aside)}</small></h3>{body}</section>"


def answer(found: Explanation | AnswerExplanation) -> str:
    """Words on coloured ground, or a picture for each target under its name and score."""
    if isinstance(found, AnswerExplanation):
        return found.html
    if found.image is None:
        return found.text().html
    sign = "p = " if found.probabilities else ""
    figures = (
        f'<figure><img src="{png(viz.blend(large(found.image), one))}" alt="{escape(label)}">'
        f"<figcaption>{escape(label)}, {sign}{score:.2g}</figcaption></figure>"
        for one, label, score in zip(found.maps, found.labels, found.scores, strict=True)
    )
    return f'<div class="maps">{"".join(figures)}</div>'


def png(rgb: np.ndarray) -> str:
    """A picture inside the page."""
    buffer = BytesIO()
    Image.fromarray((255 * rgb.clip(0, 1)).round().astype(np.uint8)).save(buffer, "png")
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"
