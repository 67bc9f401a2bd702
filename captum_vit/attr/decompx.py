"""Decomposed token vectors, carried to the output in one backward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_vit.attr.base import EntranceProducts
from captum_vit.description.two_towers import is_words_and_pictures
from captum_vit.errors import InputError, OptionError
from captum_vit.trace.modes.rules import checked_rule
from captum_vit.trace.replay.reading import every_output_at
from captum_vit.trace.run.describe import described
from captum_vit.trace.run.state import undisturbed


class DecompX(EntranceProducts):
    r"""How much of the target's logit comes from each token, by decomposing every vector on the way.

    Every token at the input of block ``start_layer`` is followed as its own part of every later vector:
    attention probabilities, norm deviations and activation slopes are constants (zero-origin rule),
    biases belong to no token. The relevance of a token is its part of the logit. Signed, in logits. An activation
    is known by what it computes, as a module or written by hand; the value that one like softplus has at zero
    is a bias.

    .. math:: R_j = \sum_d x_{jd}\,\partial f_c^{\mathrm{frozen}} / \partial x_{jd}

    Bias-free decomposition of N x N x D vectors equals gradient x input under the frozen rule, so it costs
    one forward and one backward pass and the memory of one; the explicit propagation is the slow twin in
    the tests. Relevances sum to the logit less what the biases contribute.

    Departs from the source in the biases, which it shares out among tokens by absolute dot products; SkipPLUS
    evaluates this bias-free form. Gated units hold their gate constant (the source has none). There is no
    option for the biases: how one is shared (absdot, abssim, norm, equal, dot) depends on the vectors of all N x N
    pairs of tokens in every layer, which one backward pass never forms; the tests hold the explicit form. All
    biases on CLS, the one choice that needs no such vectors, leaves every other token's relevance as it is here.
    ``FullGrad(rule="frozen")`` is complete in one pass: each bias belongs to the token to which it is added.

    Of a vision-language model, ``attribute((ids, pixels), target)`` gives (words, patches), the maps of both by one
    backward pass, and ``decompose`` all that the score is made of. Patches are those that enter the tower of the
    pictures: behind it evidence no longer lies where it was seen.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: the block whose input tokens are explained.
        rule: ``"frozen"``, which is DecompX; ``"libra"``, gradient x input under LibraGrad's balanced gradients, which
            differs from it in gated units; ``"grad"``, plain gradient x input, which does not sum to the logit.
        checkpoint: blocks save nothing for the backward pass, and run once more in it: two forward passes, and the
            memory of one block. The map is the same.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.

    Raises:
        UnsupportedModelError: a function of PyTorch that the rule does not cover lies on the way to the output: a
            product of two streams of which none is a gate, or a softmax at the end; or a custom ``autograd.Function``
            with whose derivative tokens and biases do not sum to the score, which is tried the first time.

    Source: Modarressi et al., DecompX; the vision form is that of the SkipPLUS paper.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        start_layer: int = 0,
        *,
        rule: str = "frozen",
        checkpoint: bool = False,
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, start_layer, checkpoint=checkpoint, output=output)
        self.rule = checked_rule(rule)

    def all_classes(
        self, inputs: Tensor | tuple[Tensor, ...], additional_forward_args: Any = None
    ) -> Tensor:  # shape: (B, C, h, w)
        """The maps of all outputs; (B, N, C) with ``output="tokens"`` and for text: of every token of an answer.

        Each is what ``attribute`` gives for that output. Costs one forward pass, and for each output a backward
        pass through its graph.

        Raises:
            TargetError: the output is not one score for each class.
            OptionError: ``output="channels"``, or blocks that run again in a backward pass.
            InputError: words together with pictures.
        """
        if self.output == "channels" or self.checkpoint:
            got = "checkpoint=True" if self.checkpoint else 'output="channels"'
            raise OptionError("A map for every output, by one graph.", got, "attribute, one output at a time.")
        if is_words_and_pictures(inputs):
            raise InputError("Words, or pictures.", "both", "attribute, one output at a time.")
        with undisturbed(self.model):
            call = described(self._call(inputs, None, additional_forward_args))
            place = call.transformer.blocks[self.start(call.transformer)].entrance
            maps, layout = every_output_at(call, place, self.rule)
            return self._finish_classes(maps, layout, inputs)
