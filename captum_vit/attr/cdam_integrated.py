"""CDAM integrated along the way from a baseline to the tokens."""

from __future__ import annotations

from typing import Any

import torch
from captum._utils.typing import BaselineType, TargetType
from captum.attr._utils.approximation_methods import approximation_parameters
from captum.log import log_usage
from torch import Tensor

from captum_vit.attr.base import PRODUCTS, TokenAttribution
from captum_vit.options import IN_MEMORY, boolean, integer, integer_or_none, one_of
from captum_vit.trace.replay.reading import Reading
from captum_vit.trace.replay.replay import portions
from captum_vit.trace.run.baselines import filled_baselines
from captum_vit.trace.run.state import undisturbed, widened

RIEMANN = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}


class LayerIntegratedCDAM(TokenAttribution):
    r"""Signed evidence of each token for the target, integrated along a line to the tokens that a block attends to.

    .. math::
        S_i = \sum_j (T_{ij} - \tilde T_{ij}) \sum_{k=1}^n w_k\,
        \frac{\partial f_c(\tilde T + \alpha_k (T - \tilde T))}{\partial T_{ij}}

    ``T`` (B, N, D) are the tokens that :class:`LayerCDAM` reads; what runs beside the attention (the residual
    stream) is held as it is. The paper's rule, the default, has steps :math:`\alpha_k = k/n` of weight
    :math:`1/n` from zero tokens. Complete: the sum over all tokens, CLS and other prefix tokens included, comes to
    :math:`f_c(T) - f_c(\tilde T)` as n grows; much sooner with ``"riemann_middle"`` or ``"gausslegendre"``. (In
    post-norm models the tokens are the stream itself, whose norm bends sharply near zero: take more steps.)

    Costs one forward pass of the blocks before the layer, and what follows n times, forward and backward: for the
    last block of a CLS-pooled model, where only the CLS row is needed, about 1.1 forwards in all for 50 steps.
    Captum's ``LayerIntegratedGradients``, to which it is equal given a baseline, takes 50 forwards and backwards
    of the whole model.

    Args:
        forward_func: the model, or a target module around it.
        layer: as for :class:`LayerCDAM`.
        device_ids: accepted as in Captum.
        output: see :class:`TokenAttribution`; ``"channels"`` leaves the product unreduced.

    Source: Brocki et al., Class-Discriminative Attention Maps for Vision Transformers, equation 6.
    """

    outputs = PRODUCTS
    reads_layer = True

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: the gradient is multiplied by the way from the baseline."""
        return True

    def has_convergence_delta(self) -> bool:
        """True: the sum over all tokens is compared with what the target gains from the baseline to the tokens."""
        return True

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: BaselineType = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "riemann_right",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        r"""Explain a batch; see :meth:`TokenAttribution.attribute` and :meth:`LayerCDAM.attribute`.

        Args:
            inputs: images (B, 3, H, W) or token ids (B, T).
            baselines: None for zero tokens, as in the paper. Otherwise inputs to start from, as in Captum: a
                tensor of the inputs' shape or of one sample, a number, or a tuple of these; their tokens at the
                layer are the baseline. Note that it comes before ``target``, as in Captum.
            target: the output to explain.
            additional_forward_args: further positional arguments of the model.
            n_steps: how many points of the line are visited.
            method: the quadrature, by Captum's names: ``"riemann_right"`` as in the paper, ``"riemann_middle"``,
                ``"gausslegendre"`` or ``"riemann_left"``.
            internal_batch_size: how many rows (samples times steps) run at once, but at least one step for the
                whole batch. By default few: about as much memory as LayerCDAM needs.
            return_convergence_delta: also return the deltas.
            attribute_to_layer_input: read a literal layer's input instead of its output.
            grad_kwargs: further arguments of ``torch.autograd.grad``.

        Returns:
            Maps; or maps and deltas (B,), the sum over all tokens minus the gain of the target.

        Raises:
            InputError: baselines that do not fit the inputs.
            LayerError: the layer is not part of the model, or no patch gets a gradient there.
            OptionError: an unknown quadrature, or fewer than one step.
        """
        one_of("method", method, ("gausslegendre", *RIEMANN))
        boolean("return_convergence_delta", return_convergence_delta)
        integer_or_none("internal_batch_size", internal_batch_size, hint=IN_MEMORY)
        integer("n_steps", n_steps, hint="n_steps=50, as in the paper.")
        with undisturbed(self.model):
            reading = self._reading(inputs, target, additional_forward_args, attribute_to_layer_input, grad_kwargs)
            begin = self._baseline(reading, baselines)
            prefix, behind = reading.walk()
            T, start = prefix.tokens, None if begin is None else reading.tokens_of(begin)
            slope = (T if start is None else T - start).unsqueeze(0)
            alphas, weights = _quadrature(method, n_steps)
            relevance = torch.zeros(())
            sizes = portions(n_steps, len(T), internal_batch_size, behind.point_rows)
            for alpha, w in zip(alphas.split(sizes), weights.split(sizes), strict=True):
                (S,) = behind.along(target, slope, alpha, start).by_token  # shape: (B, size, N) or (B, size, N, D)
                relevance = relevance + torch.einsum("bs...,s->b...", S, w.to(S))
            maps = self._finish(relevance, reading.layout(prefix.watch, T, relevance), inputs)
            if not return_convergence_delta:
                return maps
            (f,) = behind.along(target, slope, torch.tensor([0.0, 1.0]), start).score  # shape: (B, 2)
            return maps, widened(relevance.flatten(1).sum(1) - (f[:, 1] - f[:, 0]))

    def _baseline(self, reading: Reading, baselines: Any) -> tuple[Tensor, ...] | None:
        """The inputs at whose tokens the line starts; None for zero tokens."""
        if baselines is None:
            return None
        return filled_baselines(baselines, reading.call.inputs, self.model, "zero tokens")


def _quadrature(method: str, n: int) -> tuple[Tensor, Tensor]:  # shapes: (n,), (n,)
    """Points between 0 and 1 and their weights: Captum's, its Riemann points in double precision."""
    if method in RIEMANN:
        points = (torch.arange(n, dtype=torch.float64) + RIEMANN[method]) / n
        return points, torch.full_like(points, 1 / n)
    weights, alphas = (torch.tensor(rule(n), dtype=torch.float64) for rule in approximation_parameters(method))
    return alphas, weights
