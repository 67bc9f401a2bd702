"""Passes that several metrics need alike: each picture without the same parts is run once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_vit.errors import InputError
from captum_vit.options import integer
from quantus_metrics.bridge import wrap
from quantus_metrics.perturb import Black, Blur, DropTokens, Fill, MaskKeys, Mean, Remover, ReplaceTokens
from quantus_metrics.perturb.remove import Answer, Model

WRITTEN_OUT = (Black, Blur, DropTokens, Fill, MaskKeys, Mean, ReplaceTokens)
"""Removers that do the same where they are written the same; any other is only itself."""


class Passes:
    """The outputs of a model for inputs without some of their parts, each computed once.

    Hand the same object to the calls of several metrics on the same samples. What two of them need alike is run once:
    the same input, without the same parts, by the same remover, whatever the metrics read of the outputs (scores,
    probabilities or answers), for whichever class, in whichever order. So two metrics that remove the same shares in
    the same order share a curve, the intact and the empty image are shared by all, and boxes by the maps of all
    methods. Scores are those of metrics called without it. What is run is run in the batches that a metric asks for, so
    metrics share most where their `internal_batch_size` is None: a batch then is one step of a curve.

    Outputs are kept as long as the object is. When they take more memory than allowed, all are forgotten; likewise
    where the model has changed: each call of a metric runs one intact image again, the first there was, and compares.

    Args:
        model: the one that the metrics are called with, or inside its `wrap`.
        most_mib: the memory that is kept at most, in MiB.

    Example:
        >>> passes = Passes(model)
        >>> for metric in (Fidelity(), ClassDiscrimination(Fidelity())):
        ...     metric(model, x_batch, y_batch, explain_func=explain, passes=passes)
    """

    def __init__(self, model: nn.Module, most_mib: int = 256) -> None:
        self.model = wrap(model)
        self.most = integer("most_mib", most_mib, hint="most_mib=256.") * 2**20
        self._example: tuple[Tensor, Tensor] | None = None
        self._forget()

    def check(self, model: nn.Module, predict_kwargs: dict[str, Any] | None) -> None:
        """Refuse a call whose outputs would be other ones."""
        mine, theirs = self.model.model, wrap(model).model
        if mine is not theirs:
            raise InputError(
                "Passes of the model that the metric is called with.",
                f"passes of {type(mine).__name__}, and {type(theirs).__name__}",
                "the same model for both; captum_vit.TwoClasses(model) for a classifier with one logit.",
            )
        if predict_kwargs:
            hint = "passes=None, or a model that holds these keywords."
            raise InputError("No model_predict_kwargs beside passes.", ", ".join(predict_kwargs), hint)

    def whole(
        self,
        inputs: Tensor,  # shape: (n, C, H, W), or (n, T)
    ) -> Tensor:  # shape: (n, n_classes)
        """The outputs for inputs of which nothing is gone."""
        self._compare(inputs[:1])
        return self._once([(False, name) for name in _digests(inputs)], lambda: self.model(inputs))

    def answer(self, remover: Remover, inputs: Tensor) -> Answer:
        """As `Remover.bind` gives it, for the model that is known here."""
        self._compare(inputs[:1])
        kind = repr(remover) if type(remover) in WRITTEN_OUT else remover
        names = _digests(inputs)

        def answer(rows: Tensor, gone: Tensor) -> Tensor:
            parts = zip(rows.tolist(), _digests(gone), gone.flatten(1).any(1).tolist(), strict=True)
            keys = [(kind, names[row], mask) if some else (remover.of_tokens, names[row]) for row, mask, some in parts]
            return self._once(keys, lambda: self._bound(kind, remover, names, inputs)(rows, gone))

        return answer

    def _bound(self, kind: Hashable, remover: Remover, names: Sequence[bytes], inputs: Tensor) -> Answer:
        """The remover bound to these inputs, once for all metrics."""
        key = (kind, *names)
        if key not in self._answers:
            self._answers[key] = remover.bind(self.model, inputs)
            self._bytes += 2 * inputs.nbytes  # with what stands in for them
        return self._answers[key]

    def _once(self, keys: Sequence[Hashable], run: Callable[[], Tensor]) -> Tensor:  # shape: (n, n_classes)
        """One row of outputs for each key, known or run.

        Where one is missing all are run, so that no score depends, by rounding, on what else is known.
        """
        if all(key in self._outputs for key in keys):
            return torch.stack([self._outputs[key] for key in keys])
        found = run()
        if self._bytes + found.nbytes > self.most:
            self._forget()
        self._bytes += found.nbytes
        self._outputs |= zip(keys, found, strict=True)
        return found

    def _compare(self, inputs: Tensor) -> None:
        """Forget what another model has said, or this one before it was changed."""
        if self._example is None or not torch.equal(self.model(self._example[0]), self._example[1]):
            self._forget()
            self._example = inputs, self.model(inputs)

    def _forget(self) -> None:
        self._outputs: dict[Hashable, Tensor] = {}
        self._answers: dict[Hashable, Answer] = {}
        self._bytes = 0


class Shared(Remover):
    """A remover whose answers are looked up among those that are known, for metrics that call `Answers`."""

    def __init__(self, remover: Remover, passes: Passes, read: Callable[[Tensor], Tensor]) -> None:
        self.remover, self.passes, self.read = remover, passes, read
        self.of_tokens = remover.of_tokens

    def bind(self, model: Model, inputs: Tensor, args: tuple[Any, ...] = ()) -> Answer:
        answer = self.passes.answer(self.remover, inputs)
        return lambda rows, gone: self.read(answer(rows, gone))


def _digests(
    rows: Tensor,  # shape: (n, ...)
) -> list[bytes]:
    """What each row holds, in sixteen bytes."""
    arrays = rows.detach().cpu().contiguous().flatten(1).view(torch.uint8).numpy()
    if rows.dtype == torch.bool:
        arrays = np.packbits(arrays, axis=1)
    about = f"{rows.dtype} {tuple(rows.shape[1:])}".encode()
    return [hashlib.blake2b(about + row.tobytes(), digest_size=16).digest() for row in arrays]
