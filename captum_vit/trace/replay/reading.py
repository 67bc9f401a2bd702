"""Reading a model at a site: what lies before it and behind, and how its tokens lie in the input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from captum._utils.typing import TargetType
from torch import Tensor

from captum_vit.errors import LayerError, OptionError
from captum_vit.options import shown
from captum_vit.sites.site import Place, Site
from captum_vit.tokens import TokenLayout
from captum_vit.trace.modes.rules import under
from captum_vit.trace.record.products import over_channels
from captum_vit.trace.replay.accepted import refuse_incomplete, refuse_own_derivatives
from captum_vit.trace.replay.cls_tail import ClsTail, cls_tail, may_have_cls_tail
from captum_vit.trace.replay.every_output import EveryOutput, maps_of_every_output
from captum_vit.trace.replay.gradient import gradient_at, leaf_at
from captum_vit.trace.replay.replay import Prefix, Replay, run_prefix
from captum_vit.trace.run.describe import arranged_site, described
from captum_vit.trace.run.layers import Layer, literal_module, reading_point
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import refuse_opaque
from captum_vit.trace.run.watch import Watch

READ = "layer=None, which reads where the last block begins to attend, or an earlier one."
GRAD_KWARGS = ("retain_graph", "create_graph", "allow_unused", "materialize_grads")


@dataclass
class Reading:
    """One call of a method that reads tokens at a site, by the cheapest route that the model allows.

    Call its methods inside :func:`captum_vit.trace.run.state.undisturbed`.

    Args:
        call: what is explained; its transformer is looked for here.
        layer: an int is that block's reading point, None the last block's; a module or name is its output.
        at_input: read a literal layer's input.
        channels: leave products unreduced; the layer then may be any layer, of any model.
        grad_kwargs: further arguments of ``torch.autograd.grad``.
        rule: the backward rule, which :meth:`ruled` sets; the CLS tail knows the plain gradient alone.
    """

    call: Pass
    layer: Layer
    at_input: bool = False
    channels: bool = False
    grad_kwargs: dict[str, Any] | None = None
    rule: str = "grad"

    def __post_init__(self) -> None:
        refuse_unknown(self.grad_kwargs)
        literal = self.layer is not None and not isinstance(self.layer, int)
        self.call = self.call if literal and self.channels else described(self.call)
        self.site = self._site()
        if self.call.found is not None:
            refuse_incomplete(self.call, self.site, self.rule)

    @contextmanager
    def ruled(self) -> Iterator[Reading]:
        """Inside, forward passes build their graph under its rule."""
        with under(self.rule):
            yield self

    def gradient_x_tokens(self, target: TargetType) -> tuple[Tensor, TokenLayout | None]:
        """Relevance (B, N), or products (B, N, D), at the tokens as they are."""
        if self._may_have_tail():
            prefix, behind = self._walked(tail=True)
            relevance = behind.at_tokens(target)
            return relevance, self._layout(prefix.watch, prefix.tokens, relevance)
        tokens, grad, layout = self.tokens_and_gradient(target)
        product = tokens * grad
        if layout is None:
            return product, None
        relevance = over_channels(product, layout.standing)
        refuse_unread(layout, relevance, READ)
        return relevance, layout

    def tokens_and_gradient(self, target: TargetType) -> tuple[Tensor, Tensor, TokenLayout | None]:
        """The tokens as they are, and the target's gradient there, both (B, N, D)."""
        at = gradient_at(self.call, self.site, target, **self.grad_kwargs or {})
        return at.tokens, at.grad, self.layout(at.watch, at.tokens, at.grad)

    def every_output(self) -> tuple[Tensor, TokenLayout]:
        """Relevance for every output, (B, N, C)."""
        if self._may_have_tail():
            prefix, behind = self._walked(tail=True)
            if isinstance(behind, ClsTail):
                return EveryOutput(behind).maps(), self._layout(prefix.watch, prefix.tokens, prefix.tokens)
        at = leaf_at(self.call, self.site)
        layout = at.watch.layout_at(at.tokens)
        maps = maps_of_every_output(at.tokens, at.output, layout.standing)
        refuse_unread(layout, maps, READ)
        return maps, layout

    def walk(self) -> tuple[Prefix, ClsTail | Replay]:
        """As far as the site, and what lies behind: the CLS tail where it applies, else the model's own blocks."""
        return self._walked(self._may_have_tail())

    def _walked(self, tail: bool) -> tuple[Prefix, ClsTail | Replay]:
        refuse_opaque(self.call.modules)
        prefix, behind = cls_tail(self.call, self.site) if tail else (None, None)
        prefix = prefix or run_prefix(self.call, self.site)
        return prefix, behind or Replay(prefix, self.channels, self.grad_kwargs)

    def tokens_of(self, inputs: tuple[Tensor, ...]) -> Tensor:  # shape: (B, N, D)
        """The tokens at the site for other inputs."""
        return run_prefix(replace(self.call, inputs=inputs), self.site).tokens

    def layout(
        self,
        watch: Watch,
        tokens: Tensor,  # shape: (B, N, D)
        read: Tensor,  # shape: (B, N) or (B, N, D): not zero where a token reaches the output
    ) -> TokenLayout | None:
        """Where the tokens lie; None for unreduced products. Refused if they are no tokens, or no patch is read."""
        return None if self.channels else self._layout(watch, tokens, read)

    def _layout(self, watch: Watch, tokens: Tensor, read: Tensor) -> TokenLayout:
        layout = watch.layout_at(tokens)
        refuse_unread(layout, read, READ)
        return layout

    def _site(self) -> Place:
        if self.layer is not None and not isinstance(self.layer, int):
            site = Site(literal_module(self.call.model, self.layer), "input" if self.at_input else "output")
            return site if self.call.found is None else arranged_site(self.call, site)
        transformer = self.call.transformer
        return reading_point(transformer, transformer.default_layer if self.layer is None else self.layer)

    def _may_have_tail(self) -> bool:
        plain = self.call.found is not None and not self.channels and not self.grad_kwargs and self.rule == "grad"
        return plain and may_have_cls_tail(self.call, self.site)


def every_output_at(call: Pass, place: Place, rule: str) -> tuple[Tensor, TokenLayout]:
    """Relevance for every output (B, N, C) of the tokens at a place, by one graph, and how they lie."""
    refuse_incomplete(call, place, rule)
    with under(rule):
        at = leaf_at(call, place)
    refuse_own_derivatives(call, place, rule, at.output)
    layout = at.watch.layout_at(at.tokens)
    return maps_of_every_output(at.tokens, at.output, layout.standing), layout


def refuse_unknown(grad_kwargs: Any) -> None:
    """Arguments that ``torch.autograd.grad`` takes beside what is differentiated."""
    if grad_kwargs is not None and not (isinstance(grad_kwargs, dict) and grad_kwargs.keys() <= set(GRAD_KWARGS)):
        wanted = f"`grad_kwargs` must be a dictionary with keys of {', '.join(GRAD_KWARGS)}."
        raise OptionError(wanted, shown(grad_kwargs), "grad_kwargs=None.")


def refuse_unread(
    layout: TokenLayout,
    read: Tensor,  # shape: (B, N) or (B, N, D): not zero where a token reaches the output
    hint: str,
) -> None:
    """Where the output is reached from prefix tokens alone, the patches' map would be a silent zero."""
    reached = read.ne(0).any(0).view(read.shape[1], -1).any(1)  # shape: (N,)
    others = reached[layout.standing] if layout.special else reached[1:]
    if reached.any() and not others.any() and len(reached) > 1:
        raise LayerError(
            "A layer from which the patches still reach the output.",
            "one where only prefix tokens have a gradient, or where that of every patch cancels with its token, as "
            "before the last norm that is free of scale: behind it the head reads prefix tokens alone",
            hint,
        )
