"""What a token's activations do for the score in a neutral input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from captum._utils.progress import NullProgress, progress
from captum._utils.typing import BaselineType, TargetType
from captum.log import log_usage
from torch import Tensor, nn

from captum_vit.attr.base import TokenAttribution
from captum_vit.errors import OptionError
from captum_vit.models.output import scores_of
from captum_vit.models.transformer import Transformer
from captum_vit.options import boolean, integer, one_of, shown
from captum_vit.tokens import TokenLayout
from captum_vit.trace.record.record import Record, Want, record
from captum_vit.trace.replay.subnetwork import entering
from captum_vit.trace.run.baselines import filled_baselines
from captum_vit.trace.run.finite import refuse_not_finite
from captum_vit.trace.run.layers import chosen_layers, listed
from captum_vit.trace.run.score import SCORES, select, target_of_rows, transform
from captum_vit.trace.run.state import undisturbed
from captum_vit.trace.run.watch import model_errors_as_ours

OTHERWISE = "an image of zeros, or of a text the mean of its vectors"


class CAAP(TokenAttribution):
    r"""How much higher the score of a neutral input is with one token of the sample in its place: activation patching.

    .. math::
        S_i = F\big(\tilde x \,\big|\, x^l_i,\ l \in [a, b]\big) - F(\tilde x)

    The neutral input :math:`\tilde x` runs through the model, and wherever a token enters one of the blocks a to b, the
    one at place i is replaced by that of the sample. By then it has gathered what belongs to its patch, and behind
    block b it goes on by itself, as the neutral input's other tokens do. Signed. Prefix tokens (CLS) are never
    replaced, and have relevance zero. The token of a text that the head itself reads holds what it gathered from all
    others, and so most of the map. Padding has relevance zero.

    Costs two forward passes, and for each patch (or word that is no padding) the blocks from a on once; the blocks
    before a are not run again where they are modules. No gradients.

    Args:
        forward_func: the model, or a target module around it.
        layers: the blocks a to b: their indices, in a row; None for the middle half, from L // 4 to L - L // 4 - 1.
        score: ``"logit"``, ``"prob"``, or ``"auto"``: probabilities for a classifier (of a multi-label one a sigmoid
            each), raw values for target modules, single outputs and regression.
        output: see :class:`TokenAttribution`.

    Raises:
        OptionError: layers that are not one behind the other; an unknown score.

    Source: Izadi et al., Causal Attribution via Activation Patching: its abstract, which was all that could be read. It
    names no numbers, so the range and the baselines are choices of this package; the score of the neutral input is
    subtracted here, which changes no order.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        *,
        layers: Iterable[int] | None = None,
        score: str = "logit",
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, output=output)
        self.layers = listed("layers", layers)
        self.score = one_of("score", score, SCORES)

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        baselines: BaselineType = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""Explain a batch; see :meth:`TokenAttribution.attribute`.

        Args:
            inputs: images (B, 3, H, W) or token ids (B, T).
            target: the output to explain.
            additional_forward_args: further positional arguments of the model.
            baselines: the neutral input, as in Captum: a number, or a tensor of one sample or of the batch. None: an
                image of zeros, which is the mean colour where images are normalised; of a text, the same ids, with the
                mean of their vectors for each where they enter the first block.
            perturbations_per_eval: how many tokens of each sample are tried in one pass.
            show_progress: display a progress bar, counted in passes.

        Raises:
            InputError: baselines that do not fit the inputs.
            OptionError: fewer than one perturbation.
        """
        boolean("show_progress", show_progress)
        integer("perturbations_per_eval", perturbations_per_eval, hint="perturbations_per_eval=1, or more.")
        with undisturbed(self.model), torch.no_grad():
            call = self._call(inputs, target, additional_forward_args)
            filled = None if baselines is None else filled_baselines(baselines, call.inputs, self.model, OTHERWISE)
            found = self._record(inputs, target, additional_forward_args)
            layers = self._range(found.transformer)
            neutral = self._neutral(found, filled)
            patched = _Patched(found, neutral.seen["tokens"][layers[0]], layers)
            before = self._selected(neutral.output, target)
            S, rows, places = _tokens_of(found.layout, before)
            portion = perturbations_per_eval * len(before)
            parts = list(zip(rows.split(portion), places.split(portion), strict=True))
            with (progress if show_progress else NullProgress)(desc=self.get_name(), total=len(parts)) as bar:
                for row, place in parts:
                    after = self._selected(patched(row, place), target_of_rows(target, row))
                    S[row, place] = after - before[row]
                    bar.update()
            return self._finish(S, found.layout, inputs)

    def want(self, transformer: Transformer) -> Want:
        transformer.refuse_attention()
        self._range(transformer)
        return Want(seen=["tokens"])

    def _range(self, transformer: Transformer) -> list[int]:
        depth = len(transformer.blocks)
        layers = range(depth // 4, depth - depth // 4) if self.layers is None else self.layers
        return in_a_row(chosen_layers(transformer, layers))

    def _neutral(self, found: Record, filled: tuple[Tensor, ...] | None) -> Record:
        """A pass of the neutral input: of the baselines, where they are given."""
        call, want = found.call, Want(seen=["tokens"])
        if filled is None and found.layout.grid is not None:
            filled = filled_baselines(0, call.inputs, self.model, OTHERWISE)
        if filled is not None:
            return record(replace(call, inputs=filled), None, want)
        x = found.seen["tokens"][0]
        with entering(call.transformer, 0, (found.layout.mean_row(x) @ x).expand_as(x).contiguous()):
            return record(call, None, want)

    def _selected(self, output: Tensor, target: TargetType) -> Tensor:
        """What is explained, of each sample."""
        score = select(transform(output, self.score, self.model), target)
        refuse_not_finite(score, "score")
        return score


class _Patched:
    """The neutral input from block a on, with a token of the sample in the place of its own."""

    def __init__(self, found: Record, neutral: Tensor, layers: list[int]) -> None:
        self.found, self.neutral, self.layers = found, neutral, layers

    def __call__(
        self,
        row: Tensor,  # shape: (R,), samples
        place: Tensor,  # shape: (R,), of each the token that is replaced
    ) -> Tensor:  # shape: (R, K)
        """The scores of so many runs."""
        call = self.found.call.of(row)
        with model_errors_as_ours(call.model, *call.inputs, *call.args), self._patching(row, place):
            return scores_of(call.run())

    @contextmanager
    def _patching(self, row: Tensor, place: Tensor) -> Iterator[None]:
        first, *others = self.layers
        blocks, each = self.found.transformer.blocks, torch.arange(len(row), device=row.device)

        def put(layer: int, x: Tensor) -> Tensor:
            x = x.clone()
            x[each, place] = self.found.seen["tokens"][layer][row, place].to(x)
            return x

        with ExitStack() as stack:
            stack.enter_context(entering(self.found.transformer, first, put(first, self.neutral[row])))
            for layer in others:
                stack.callback(blocks[layer].entrance.hook(partial(put, layer)).remove)
            yield


def in_a_row(layers: list[int]) -> list[int]:
    """These layers, if none between them is left out."""
    if layers != list(range(layers[0], layers[-1] + 1)):
        raise OptionError(
            "Layers one behind the other.", shown(layers), f"layers=range({layers[0]}, {layers[-1] + 1})."
        )
    return layers


def _tokens_of(layout: TokenLayout, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # shapes: (B, N), (R,), (R,)
    """A map of zeros, and sample and place of every token that stands for a patch or a word."""
    nothing = like.new_zeros(len(like), layout.n_tokens)
    rows, places = layout.counted(nothing, prefix=False).expand_as(nothing).nonzero().unbind(1)
    return nothing, rows, places
