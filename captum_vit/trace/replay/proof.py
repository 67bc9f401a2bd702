"""Completeness proved by a run: gradient x input at a place, and every bias behind it, sum to the score."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from captum_vit.errors import UnsupportedModelError
from captum_vit.options import one_of
from captum_vit.sites.site import Place
from captum_vit.trace.modes.biases import BiasTap
from captum_vit.trace.modes.completeness import COMPLETE, custom_functions
from captum_vit.trace.modes.frozen import Outside
from captum_vit.trace.modes.rules import noting_mode
from captum_vit.trace.replay.ends import refuse_probability
from captum_vit.trace.replay.gradient import gradient_of, leaf_at, refuse_several
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.score import mixed


class Proof(NamedTuple):
    """What tokens and biases are found to be, and the score that they should sum to; all summed over the batch."""

    rule: str
    score: float
    tokens: float
    """Gradient x input."""
    biases: float
    """Bias x gradient, of every constant that was added to a stream behind the place."""
    size: float
    """The sum of the absolute values of all that is added, and of the score."""
    eps: float
    """The rounding of the least precise sum."""
    outside: tuple[str, ...]
    """Operations that no rule covers and that a gradient reached, in the order of the pass, with their modules."""
    hint: str
    """What to try where it does not close."""

    @property
    def residual(self) -> float:
        """By how much the sum misses the score, as a share of all that is added."""
        return abs(self.tokens + self.biases - self.score) / self.size if self.size else 0.0

    @property
    def closes(self) -> bool:
        """Whether no operation is outside the rule, and the residual is at most half the digits."""
        return not self.outside and self.residual <= self.eps**0.5

    def refuse(self) -> None:
        """Refuse a model for which it does not close.

        Raises:
            UnsupportedModelError: the first operation that no rule covers, or the two sums.
        """
        if self.closes:
            return
        sums = f"{self.tokens + self.biases:.4g} for a score of {self.score:.4g}"
        raise UnsupportedModelError(
            f'A model in which tokens and biases sum to the score under rule="{self.rule}".',
            self.outside[0] if self.outside else sums,
            self.hint,
        )


def proof(
    call: Pass,
    leaf: Place,
    rule: str,
    score: Callable[[Tensor], Tensor] = mixed,
) -> Proof:
    """Run once, and go back once, to see whether a rule is complete behind a place.

    What is at the place counts as the tokens, whatever its shape; what runs before has no graph, and counts as a
    constant where it joins the stream behind. Call it inside :func:`captum_vit.trace.run.state.undisturbed`.

    Args:
        call: what runs.
        leaf: the place.
        rule: ``"frozen"`` or ``"libra"``.
        score: from the model's scores to one number; a fixed mixture of all of them if it is not given.

    Raises:
        OptionError: the rule does not say that tokens and biases sum to the score.
        LayerError, TraceError: nothing runs at the place, or several times.
        UnsupportedModelError: an operation that no rule covers writes over a stream, or the scores are probabilities.
    """
    one_of("rule", rule, COMPLETE)
    refuse_probability(call)
    outside: Outside = {}
    parts: list[Tensor] = []
    tap = BiasTap(lambda y, axis: 0)
    with noting_mode(rule, outside), tap:
        at = leaf_at(call.without_transformer(), leaf)
        value = score(at.output)
    refuse_several(at.times, leaf.label)
    tap.told.append(lambda place, part: parts.append(part.detach().double()))
    products = at.tokens.detach().double() * gradient_of(value, at.tokens).double()
    found = value.detach().double().sum().item()
    biases = sum(part.sum().item() for part in parts)
    size = sum((part.abs().sum().item() for part in parts), products.abs().sum().item() + abs(found))
    noted = [outside[number] for number in sorted(outside)]
    hint = noted[0].hint if noted else 'rule="grad", which does not say that they do.'
    proved = Proof(rule, found, products.sum().item(), biases, size, tap.eps, tuple(e.got for e in noted), hint)
    unknown = tuple(f"a derivative of its own in {name}" for name in sorted(set(custom_functions(value.grad_fn))))
    return proved if proved.closes or noted else proved._replace(outside=unknown)
