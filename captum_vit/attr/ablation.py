"""What the score loses when a token is not there."""

from __future__ import annotations

from typing import Any

import torch
from captum._utils.progress import NullProgress, progress
from captum._utils.typing import TargetType
from captum.log import log_usage
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.attr.base import TokenAttribution
from captum_vit.options import IN_MEMORY, boolean, integer_or_none, one_of
from captum_vit.trace.removal.without import Without
from captum_vit.trace.run.finite import refuse_not_finite
from captum_vit.trace.run.score import SCORES, select, target_of_rows, transform
from captum_vit.trace.run.state import undisturbed


class TokenAblation(TokenAttribution):
    r"""How much lower the score is without a token: occlusion by true removal.

    .. math:: S_i = F(x) - F(x \setminus i)

    Signed: a token that lowers the score has a negative relevance. A patch is dropped after its position
    was added, so the model never sees a grey or blurred square in its place; where a model cannot do with a shorter
    sequence its key is hidden in every attention instead, which is the same function of the other tokens. Prefix
    tokens stay, and have relevance zero. A word is hidden as padding is; the row of a word that the head itself
    reads (CLS) goes on, and reads the others. Padding has relevance zero.

    Costs N / b + 1 forward passes of b samples for N patches (or words that are no padding) of each sample in the
    batch, with b the ``internal_batch_size``; and at most three passes of two samples, in which it is found out how
    patches can be removed. No gradients.

    Args:
        forward_func: the model, or a target module around it.
        score: ``"prob"``, ``"logit"``, or ``"auto"``: probabilities for a classifier (of a multi-label one a
            sigmoid each), raw values for target modules, single outputs and regression.
        output: see :class:`TokenAttribution`.

    Raises:
        UnsupportedModelError: tokens reach the output past the attention, so that none can be taken away; or attention
            cannot be followed, and patches in another order have another score (windows, convolutions, grids).

    Source: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks (occlusion); with tokens that
    are dropped after the position embedding, the token ablation maps of the CDAM paper's code and the true token
    masking of the SkipPLUS paper.
    """

    def __init__(self, forward_func: nn.Module, *, score: str = "auto", output: str = "grid") -> None:
        super().__init__(forward_func, output=output)
        self.score = one_of("score", score, SCORES)

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""Explain a batch; see :meth:`TokenAttribution.attribute`.

        Args:
            inputs: images (B, 3, H, W) or token ids (B, T).
            target: the output to explain.
            additional_forward_args: further positional arguments of the model.
            internal_batch_size: how many samples, each without another token, run at once; as many as ``inputs``
                has, if None.
            show_progress: display a progress bar, counted in forward passes.

        Raises:
            OptionError: an internal batch size below one.
        """
        boolean("show_progress", show_progress)
        integer_or_none("internal_batch_size", internal_batch_size, hint=IN_MEMORY)
        with undisturbed(self.model):
            call = self._call(inputs, target, additional_forward_args)
            pictures = call.inputs[0].is_floating_point()  # a text that is one word shorter is no cheaper
            without = Without(call.model, call.inputs, call.args, "auto" if pictures else "mask")
            scores, layout = without.whole()
            refuse_not_finite(scores, "output", infinite=False)
            whole = self._selected(scores, target)  # shape: (B,)
            refuse_not_finite(whole, "score")
            present = layout.patches(
                layout.silence_padding(whole.new_ones(len(whole), layout.n_tokens))
            )  # shape: (B, P)
            rows, places = present.nonzero().unbind(1)  # one for each token of each sample
            S = torch.zeros_like(present)
            portion = internal_batch_size or len(whole)
            parts = list(zip(rows.split(portion), places.split(portion), strict=True))
            with (progress if show_progress else NullProgress)(desc=self.get_name(), total=len(parts)) as bar:
                for row, place in parts:
                    gone = F.one_hot(place, present.shape[1]).bool()
                    said = self._selected(without(row, gone), target_of_rows(target, row))
                    S[row, place] = whole[row] - said
                    bar.update()
            return self._finish(layout.from_patches(S), layout, inputs)

    def _selected(self, scores: Tensor, target: TargetType) -> Tensor:
        """What is explained, of each sample."""
        return select(transform(scores, self.score, self.model), target)
