"""What must hold on any model, tried on this one, and judged by how much rounding would change."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from captum_vit.attr import METHODS
from captum_vit.doctor.order import order
from captum_vit.doctor.report import Identity, reason_of
from captum_vit.doctor.rounding import FACTOR
from captum_vit.doctor.score_identities import beside_another, dropped, padded, twice
from captum_vit.doctor.subject import Residual, Subject
from captum_vit.doctor.sums import completeness, heads


class Check(NamedTuple):
    """How an identity is tried, which methods rest on it, and what is wrong where it fails."""

    residual: Callable[[Subject], Residual | None]  # None: there is no such thing on this model
    methods: tuple[str, ...] | None  # None: all of them
    otherwise: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(METHODS) if self.methods is None else self.methods


CHECKS: dict[str, Check] = {
    "two passes agree": Check(twice, None, "The model is random, or keeps a state: no map can be repeated."),
    "rows of a batch are independent": Check(
        beside_another, None, "Samples of a batch change each other; explain one at a time."
    ),
    "tokens lie in reading order": Check(
        order, None, "Maps show relevance at wrong places: tokens are arranged otherwise, or `entry` is wrong."
    ),
    "frozen: tokens + biases = score": Check(
        completeness("frozen"),
        (
            "DecompX",
            "PLUS(DecompX)",
            "SkipPLUS(DecompX)",
            "DAVE",
            'FullGrad(rule="frozen")',
            'FullGradPlus(rule="frozen")',
        ),
        "Something that the rule does not cover lies between the tokens and the score.",
    ),
    "libra: tokens + biases = score": Check(
        completeness("libra"),
        ('FullGrad(rule="libra")', 'FullGradPlus(rule="libra")', 'CAT(rule="libra")'),
        "Something that the rule does not cover lies between the tokens and the score.",
    ),
    "heads write what the stream gains": Check(
        heads,
        ("VTranM", "AttIN", "GlobEnc", "ALTI", "PLUS(GlobEnc)", "PLUS(ALTI)"),
        "`out_proj`, `mid`, `attn_scale`, `attn_extra` or a norm in the spec is wrong, or a hook changes the branch.",
    ),
    "dropped tokens = hidden tokens": Check(dropped, ("TokenAblation",), "A token whose keys are hidden is not gone."),
    "padding changes nothing": Check(
        padded, None, "Words behind the attention mask take part; explain without padding."
    ),
}


def identities(subject: Subject) -> list[Identity]:
    """Every identity that applies to the model; none of them raises.

    Where two passes differ, nothing else can be compared.
    """
    (first, check), *others = CHECKS.items()
    twice = _tried(first, check, subject)
    if twice is not None and twice.holds is False:
        return [twice, *(Identity(name, other.names, reason=f"It needs {first!r}.") for name, other in others)]
    tried = [twice, *(_tried(name, other, subject) for name, other in others)]
    return [identity for identity in tried if identity is not None]


def _tried(name: str, check: Check, subject: Subject) -> Identity | None:
    try:
        residual = check.residual(subject)
    except Exception as error:
        return Identity(name, check.names, reason=reason_of(error))
    if residual is None:
        return None
    size = residual.size or 1.0
    found = Identity(name, check.names, residual.off / size, FACTOR * residual.rounding / size)
    if not found.holds:
        found.reason = f"{residual.where} {check.otherwise}".lstrip()
    return found
