"""Sums of explanations of sub-networks, over any method."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace

from captum.attr import Attribution, InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from torch import Tensor

from captum_vit.attr.base import MAPS, TokenAttribution
from captum_vit.errors import OptionError
from captum_vit.models.transformer import Transformer
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.record.summed import summed
from captum_vit.trace.replay.subnetwork import SubNetwork
from captum_vit.trace.run.layers import chosen_layers, layer_index, listed
from captum_vit.trace.run.score import plain_target, select
from captum_vit.trace.run.state import without_inference_mode

ON_SUBNETWORKS = (InputXGradient, Saliency, IntegratedGradients)


class PLUS(TokenAttribution):
    r"""The sum of a method's maps over the sub-networks that start at each block.

    .. math:: S = \sum_{l} \mathcal A(f_l)(x_l)

    ``f_l`` is the model from block l on and ``x_l`` the tokens that enter it. Methods with one map for each
    layer (GenAtt, RawAttention) contribute those one-layer maps. The wrapped method's sign and output form
    are kept; over a Captum method the map is the grid. Where blocks have tokens on several grids, each map is laid on
    the grid of the first start layer: the relevance of a cell is divided evenly over those that it covers.

    Costs over a method of this package: one forward and one backward pass for all layers together. Over one of
    Captum's (InputXGradient, Saliency, IntegratedGradients, NoiseTunnel around one of them, or InputGradient with
    any): one forward pass, and then that method's cost on every sub-network. ``InputGradient(model,
    IntegratedGradients, n_steps=20)`` gives Captum's method its options.

    Args:
        method: an instance whose ``attribute`` explains the model.
        layers: the start layers; all of them by default.

    Raises:
        OptionError: the method has no maps for start layers.

    Source: the SkipPLUS paper, equations 3 and 4.
    """

    def __init__(self, method: Attribution, layers: Iterable[int] | None = None) -> None:
        self.method = method
        self._offered = hasattr(method, "layer_maps") and not isinstance(method, type)
        if not self._offered and not _runs_on_subnetworks(method):
            raise OptionError(
                "An instance of a method with maps for start layers: DecompX, CAT, GenAtt, RawAttention, ..., or "
                f"Captum's {', '.join(c.__name__ for c in ON_SUBNETWORKS)}, or NoiseTunnel around one of these.",
                f"the class {method.__name__}" if isinstance(method, type) else type(method).__name__,
                "PLUS(DecompX(model)), or by name PLUS(DecompX).",
            )
        self.outputs = getattr(method, "outputs", MAPS)
        super().__init__(_innermost(method).forward_func, output=getattr(method, "output", "grid"))
        self.layers = listed("layers", layers)

    def _chosen(self, transformer: Transformer) -> list[int]:
        """The start layers as 0 ... L-1."""
        return chosen_layers(transformer, self.layers)

    def start(self, transformer: Transformer) -> int:
        return self._chosen(transformer)[0]

    def want(self, transformer: Transformer) -> Want:
        want = self.method.want(transformer) if self._offered else Want(seen=["tokens"])
        return replace(want, every_layout=True)

    def relevance(self, found: Record) -> Tensor:
        return summed(found, self._terms(found), self._chosen(found.transformer))

    def _terms(self, found: Record) -> list[Tensor]:
        """For each start layer the method's map of f_l."""
        chosen = self._chosen(found.transformer)
        if not self._offered:
            select(found.output, found.target)  # refuses a wrong target before Captum meets it
            return [self._on_subnetwork(found, layer) for layer in chosen]
        maps = dict(zip(found.layers, self.method.layer_maps(found), strict=True))
        return [maps[layer] for layer in chosen]

    def _on_subnetwork(self, found: Record, layer: int) -> Tensor:  # shape: (B, N, D)
        """The general route: the method itself, explaining f_l at x_l."""
        tokens = without_inference_mode(found.seen["tokens"][layer])
        part = SubNetwork(self.model, found.transformer, layer, tokens.dtype)
        if hasattr(self.method, "on_network"):
            relevance: Tensor = self.method.on_network(part, tokens, found.target, *found.inputs, *found.args)
            return relevance
        return _explaining(self.method, part).attribute(
            tokens.requires_grad_(),
            target=plain_target(found.target),
            additional_forward_args=(*found.inputs, *found.args),
        )


class SkipPLUS(PLUS):
    r"""PLUS without the early layers, whose tokens are noisy: from ceil(L / 2) on.

    .. math:: S = \sum_{l \ge m} \mathcal A(f_l)(x_l), \qquad m = \lceil L / 2 \rceil

    Costs less than :class:`PLUS`: the backward pass ends at block m, and blocks before it keep no graph.

    Args:
        method: an instance whose ``attribute`` explains the model.
        start_layer: m; 0 is PLUS.

    Source: the SkipPLUS paper, section 3.
    """

    def __init__(self, method: Attribution, start_layer: int | None = None) -> None:
        super().__init__(method)
        self.start_layer = start_layer

    def _chosen(self, transformer: Transformer) -> list[int]:
        depth = len(transformer.blocks)
        middle = min(math.ceil(depth / 2), depth - 1)  # a single block is its own second half
        start = middle if self.start_layer is None else layer_index(transformer, self.start_layer)
        return list(range(start, depth))


def _runs_on_subnetworks(method: Attribution) -> bool:
    """Captum's, which explain any network, and those that have a function for one."""
    return isinstance(_innermost(method), ON_SUBNETWORKS) or hasattr(method, "on_network")


def _innermost(method: Attribution) -> Attribution:
    """What NoiseTunnels are wrapped around."""
    return _innermost(method.attribution_method) if isinstance(method, NoiseTunnel) else method


def _explaining(method: Attribution, part: SubNetwork) -> Attribution:
    """The same method for another forward function; the user's instance stays as it is."""
    if isinstance(method, NoiseTunnel):
        return NoiseTunnel(_explaining(method.attribution_method, part))
    method = copy.copy(method)
    method.forward_func = part
    return method
