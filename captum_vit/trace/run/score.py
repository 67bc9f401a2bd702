"""The number that is explained: one score for each sample, from the model's output and a target."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from captum._utils.common import ExpansionTypes, _expand_target, _select_targets
from captum._utils.typing import TargetType
from torch import Tensor, nn

from captum_vit.errors import OptionError, TargetError
from captum_vit.models.output import probabilities, probability_of
from captum_vit.options import one_of, shown
from captum_vit.trace.run.state import without_inference_mode

SCORES = ("auto", "prob", "logit")


def transform(
    output: Tensor,  # shape: (..., K)
    kind: str,
    model: nn.Module,
) -> Tensor:
    """Outputs as probabilities (``"prob"``) or as they are (``"logit"``).

    ``"auto"`` means probabilities for the logits of a classifier: through a softmax, or each through a sigmoid where
    the model is multi-label (see `probability_of`). It means the raw value for target modules, single outputs and
    regression heads.
    """
    one_of("score", kind, SCORES)
    if kind == "logit":
        return output
    single, made_by = output.dim() < 2 or output.shape[-1] == 1, probability_of(model)
    if made_by is not None and not single:
        return probabilities(output, made_by)
    if kind == "prob":
        two = ", or captum_vit.TwoClasses(model) for the logit of a classifier" if single and made_by else ""
        raise OptionError(
            'Class logits, for score="prob".',
            f"{type(model).__name__}, whose outputs of shape {tuple(output.shape)} are not logits of classes",
            f'score="auto" or score="logit"{two}.',
        )
    return output


def select(
    output: Tensor,  # shape: (B, K) or (B, ..., K)
    target: TargetType,
) -> Tensor:  # shape: (B,)
    """The target's score for each sample, by Captum's own rules for targets.

    Raises:
        TargetError: it does not index the output, or several numbers of a sample at once.
    """
    target = plain_target(target)
    if target is None and output.dim() > 1 and output[0].numel() > 1:
        raise TargetError(
            "A target, since the model gives several scores for each sample.",
            f"target None and output of shape {tuple(output.shape)}",
            "target=k, a list or tensor with one index for each sample, or a tuple for outputs of more dimensions.",
        )
    try:
        chosen = _select_targets(output, target)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise TargetError(
            f"A target that indexes an output of shape {tuple(output.shape)}.",
            f"{target!r} ({error})",
            "an int, a tuple of ints, or a list or tensor of as many targets as samples.",
        ) from error
    if chosen.numel() != len(output):
        places = output.dim() - 1
        raise TargetError(
            f"A target that picks one number for each sample of an output of shape {tuple(output.shape)}.",
            f"{shown(target)}, which picks {chosen[0].numel()}",
            f"a tuple of {places} ints, one for each dimension behind the batch, or a list of such tuples.",
        )
    return chosen.reshape(len(output))


def mixed(output: Tensor, target: TargetType = None) -> Tensor:
    """A scalar that depends on every output, or, of a head that scores every token, on those at the target's place."""
    places = [_place(one, output.dim() - 2) for one in (target if isinstance(target, list) else [target])]
    if all(places):
        at_each = (output * _mixture(output.shape[-1], output)).sum(-1)
        return select(at_each, places if isinstance(target, list) else places[0]).sum()
    return (output.reshape(len(output), -1) * _mixture(output[0].numel(), output)).sum()


def _mixture(n: int, like: Tensor) -> Tensor:  # shape: (n,)
    """Fixed weights, none of them zero."""
    return torch.cos(torch.arange(1, n + 1, device=like.device, dtype=like.dtype))


def _place(target: TargetType, depth: int) -> tuple[int, ...]:
    """Of (position, class) the position; nothing where there is only a class."""
    return (target if isinstance(target, tuple) else (target,) if isinstance(target, int) else ())[: max(depth, 0)]


def repeat_target(target: TargetType, steps: int, times: int = 1) -> TargetType:
    """Targets for a batch in which every sample stands ``steps`` times in a row, and all that ``times`` times."""
    from_captum: Any = _expand_target(plain_target(target), steps, expansion_type=ExpansionTypes.repeat_interleave)
    from_captum = _expand_target(from_captum, times, expansion_type=ExpansionTypes.repeat)
    return from_captum


def target_of_rows(target: TargetType, rows: Tensor) -> TargetType:
    """Targets of some samples: each its own, or the one that all share."""
    target = plain_target(target)
    if isinstance(target, list):
        return [target[row] for row in rows.tolist()]
    return target[rows.to(target.device)] if isinstance(target, Tensor) and target.numel() > 1 else target


def checked_target(target: Any, batch: int, n_outputs: int | None) -> None:
    """Refuse, before the model runs, what cannot index the scores of so many samples.

    Args:
        target: as the caller gave it.
        batch: how many samples there are.
        n_outputs: how many outputs the model has, where that is known.
    """
    plain = plain_target(target)
    if isinstance(plain, Tensor):
        plain = plain.item() if plain.numel() == 1 else plain.tolist()
    each = plain if isinstance(plain, list) else [plain] * batch
    if plain is not None and not (len(each) == batch and all(_indexes(one, n_outputs) for one in each)):
        outputs = "the outputs" if n_outputs is None else f"{n_outputs} outputs"
        raise TargetError(
            f"A target that indexes {outputs} for each of {batch} samples.",
            shown(target),
            "an int, a tuple of ints, or a list or tensor of as many targets as samples.",
        )


def _indexes(one: Any, n_outputs: int | None) -> bool:
    if isinstance(one, tuple):
        return len(one) > 0 and all(_indexes(index, None) for index in one)
    number = isinstance(one, int) and not isinstance(one, bool)
    return number and (n_outputs is None or -n_outputs <= one < n_outputs)


def plain_target(target: Any) -> Any:
    """NumPy integers and arrays, and narrow integers of torch, as Captum knows them."""
    if hasattr(target, "tolist") and not isinstance(target, Tensor):
        target = target.tolist()
    target = _whole(target)
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise TargetError("Whole numbers as targets.", f"a tensor of {target.dtype}", "target.long().")
        target = target.long()
    return without_inference_mode(target)


def _whole(target: Any) -> Any:
    """NumPy integers, also those in lists and tuples, as `numpy.unravel_index` gives them, as integers of Python."""
    if type(target) in (list, tuple):
        return type(target)(map(_whole, target))
    return target.item() if isinstance(target, np.integer) else target
