"""Identities of scores: passes that must give the same numbers by another way."""

from __future__ import annotations

from collections.abc import Callable
from inspect import BoundArguments, signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.doctor.subject import Residual, Subject
from captum_vit.errors import InputError
from captum_vit.models.output import scores_of
from captum_vit.trace.removal.without import Without
from captum_vit.trace.run.state import undisturbed
from captum_vit.trace.run.watch import model_errors_as_ours

PADDING = 3


def twice(subject: Subject) -> Residual:
    """The same pass once more."""
    return subject.against_scores(subject.run(subject.sample, subject.args))


def beside_another(subject: Subject) -> Residual:
    """The sample with another one behind it in the batch: its own mirror image, or the words backwards."""
    both, args = subject.copies(2)
    return subject.against_scores(subject.run(tuple(map(_and_mirrored, both)), args)[0])


def _and_mirrored(x: Tensor) -> Tensor:
    return torch.cat([x[:1], x[1:].flip(-1)])


def dropped(subject: Subject) -> Residual:
    """The sample without half of its tokens: they are taken out of the sequence, or their keys are hidden."""
    gone = _half(subject)
    row = torch.zeros(1, dtype=torch.long, device=gone.device)

    def without(way: str) -> Tensor:
        return Without(subject.model, subject.sample, subject.args, way)(row, gone)[0]

    with undisturbed(subject.model):
        return subject.against_scores(without("drop"), without("mask"))


def _half(subject: Subject) -> Tensor:  # shape: (1, P)
    """Every second patch; of a text every second word between the first and the last."""
    with undisturbed(subject.model):
        layout = Without(subject.model, subject.sample, subject.args).whole()[1]
    places = layout.n_places
    gone = torch.arange(places, device=subject.sample[0].device)[None] % 2 == 1
    if layout.grid is None:
        gone[:, -1] = False
        gone = gone if layout.keep is None else gone & layout.keep
    if not gone.any():
        hint = "a larger picture, or a longer text."
        raise InputError("Tokens of which half can be taken away.", f"{places} in all", hint)
    return gone


def padded(subject: Subject) -> Residual | None:
    """The text with padding behind it; None where the model takes no attention mask."""
    call = _call(subject)
    if call is None:
        return None
    ids = subject.sample[0]
    pad = getattr(getattr(subject.transformer.tower, "config", None), "pad_token_id", None)
    if call.arguments.get("attention_mask") is None:
        call.arguments["attention_mask"] = torch.ones_like(ids)
    name = next(iter(call.arguments))
    for key, x in call.arguments.items():
        if isinstance(x, Tensor) and x.shape == ids.shape:
            call.arguments[key] = F.pad(x, (0, PADDING), value=(pad or 0) if key == name else 0)
    model: Callable[..., Any] = subject.model
    with undisturbed(subject.model), model_errors_as_ours(subject.model, call.arguments[name]):
        found = scores_of(model(*call.args, **call.kwargs)).detach()[0]
    same = found.shape == subject.scores.shape
    return subject.against_scores(found if same else found[: ids.shape[1]])  # a head that scores every word


def _call(subject: Subject) -> BoundArguments | None:
    """The arguments of the model by name, if it is a text model that takes an attention mask."""
    ids, forward = subject.sample[0], signature(subject.model.forward)
    if ids.is_floating_point() or ids.dim() != 2 or "attention_mask" not in forward.parameters:
        return None
    return forward.bind(*subject.sample, *subject.args)
