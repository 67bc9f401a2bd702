"""The part of a network before a site, run once; and what follows it, run as often as needed."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from captum._utils.typing import TargetType
from torch import Tensor

from captum_vit.errors import LayerError
from captum_vit.models.modules import modules_of
from captum_vit.models.output import scores_of
from captum_vit.models.per_sample import is_of_each_sample
from captum_vit.models.transformer import Transformer
from captum_vit.options import IN_MEMORY, integer_or_none
from captum_vit.sites.site import Place, Site
from captum_vit.trace.record.products import over_channels
from captum_vit.trace.replay.gradient import gradient_of, refuse_several
from captum_vit.trace.replay.subnetwork import entering
from captum_vit.trace.run.finite import refuse_not_finite
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.score import repeat_target, select
from captum_vit.trace.run.watch import Watch, model_errors_as_ours


@dataclass
class Prefix:
    """Everything before a site, run once."""

    call: Pass  # with what its blocks were seen to return
    site: Place
    watch: Watch
    tokens: Tensor  # shape: (B, N, D), at the site
    output: Tensor  # shape: (B, K), or fewer rows where less was run
    block: int | None  # the block that holds the site, if one does
    stream: Tensor | None  # shape: (B, N, D), what enters that block


def run_prefix(call: Pass, site: Place, *contexts: AbstractContextManager[Any]) -> Prefix:
    """One pass without a graph; inside contexts that see to it that no block runs twice for the whole batch."""
    streams: list[Tensor] = []
    seen: list[Tensor] = []
    block = None if call.found is None else _block_around(call.found, site)
    watch = Watch(call, place=site)
    if block is not None:
        watch.at(Site(call.transformer.modules()[block], "input"), lambda x: streams.append(x))
    watch.at(site, lambda x: seen.append(x))
    with torch.no_grad():
        output = watch.run(*contexts)
    if len(output) == len(call):
        refuse_not_finite(output.detach(), "output", infinite=False)
    if not seen or len(seen[0]) != len(call):
        raise LayerError(
            "A layer that runs when the model does, on the whole batch.",
            f"{site.label}, which {'saw another batch' if seen else 'did not run on a tensor'}",
            "a block's norm or the block itself.",
        )
    if not contexts and call.found is not None:
        refuse_several(len(seen), site.label)
    stream = streams[0] if streams else None
    return Prefix(watch.described(), site, watch, seen[0], output, block, stream)


def _block_around(transformer: Transformer, site: Place) -> int | None:
    """The block whose module holds a site; None where blocks are no modules of their own, which can be skipped."""
    if not isinstance(site, Site) or not transformer.stacked:
        return None
    for i, block in enumerate(transformer.blocks):  # no search where it is a place that is known
        if site in (block.attn_in, block.mid):
            return i
    held = (i for i, block in enumerate(transformer.modules()) if site.module in modules_of(block))
    return max(held, default=None)


@dataclass
class Slopes:
    r"""How a score rises along each token: :math:`dF/d\lambda_i = \sum_j s_{ij}\,\partial F/\partial T_{ij}`."""

    by_token: Tensor  # shape: (M, B, S, N), or (M, B, S, N, D) where the sum over channels is left out
    score: Tensor  # shape: (M, B, S), F itself


class Replay:
    """What follows a site, for any model: it enters at the block of the site, or at the start where there is none.

    Each run costs the blocks from there to the output, the embedding, and a backward pass to the site.
    """

    slope_rows = point_rows = 1  # one run of the batch at a time needs no more memory than a plain gradient

    def __init__(self, prefix: Prefix, channels: bool = False, grad_kwargs: dict[str, Any] | None = None) -> None:
        self.prefix, self.channels, self.grad_kwargs = prefix, channels, grad_kwargs or {}

    def at_tokens(self, target: TargetType) -> Tensor:  # shape: (B, N) or (B, N, D)
        """Slopes at the tokens as they are, from zero."""
        tokens = self.prefix.tokens
        return self.along(target, tokens.unsqueeze(0), tokens.new_ones(1)).by_token[0, :, 0]

    def along(
        self,
        target: TargetType,
        slope: Tensor,  # shape: (M, B, N, D)
        points: Tensor,  # shape: (S,), values of lambda
        base: Tensor | None = None,  # shape: (B, N, D)
    ) -> Slopes:
        """Slopes at the tokens ``base + lambda * slope``, for every slope and lambda."""
        slope = slope.unsqueeze(2)
        tokens = points.to(slope).view(-1, *[1] * (slope.dim() - 3)) * slope  # shape: (M, B, S, N, D)
        tokens = tokens if base is None else tokens + base.unsqueeze(1)
        times, batch, steps = tokens.shape[:3]
        leaf = tokens.flatten(0, 2).detach().requires_grad_()
        with torch.enable_grad():
            score = select(self.outputs(leaf, times, steps), repeat_target(target, steps, times))
        grad = gradient_of(score, leaf, **self.grad_kwargs).detach().view_as(tokens)
        product = slope * grad
        if not self.channels:
            standing = self.prefix.watch.layout_at(self.prefix.tokens).standing
            product = over_channels(product.flatten(0, 2), standing).view(times, batch, steps, -1)
        return Slopes(product, score.detach().view(times, batch, steps))

    def outputs(
        self,
        tokens: Tensor,  # shape: (M * B * S, N, D)
        times: int,
        steps: int,
    ) -> Tensor:  # shape: (M * B * S, K)
        """What the model returns with these tokens at the site."""
        at, batch = self.prefix, len(self.prefix.tokens)

        def put(x: Tensor) -> Tensor:
            torch.set_grad_enabled(True)
            return tokens

        def repeated(x: Any) -> Any:
            return repeat_samples(x, steps, times) if is_of_each_sample(x, batch) else x

        given = (*at.call.inputs, *at.call.args)
        with model_errors_as_ours(at.call.model, *given), torch.no_grad(), ExitStack() as stack:
            if at.block is not None and at.stream is not None:
                stack.enter_context(entering(at.call.transformer, at.block, repeated(at.stream)))
            stack.callback(at.site.hook(put).remove)
            return scores_of(at.call.model(*map(repeated, given)))


def repeat_samples(
    x: Tensor,  # shape: (B, ...)
    steps: int,
    times: int,
) -> Tensor:  # shape: (times * B * steps, ...)
    """Every sample ``steps`` times in a row, and all that ``times`` times."""
    x = x if steps == 1 else x.repeat_interleave(steps, 0)
    return x if times == 1 else x.repeat(times, *[1] * (x.dim() - 1))


def portions(n: int, batch: int, rows: int | None, default: int) -> list[int]:
    """Sizes that sum to n: how many runs of a batch are done at once, given how many rows they may have."""
    rows = integer_or_none("internal_batch_size", rows, hint=IN_MEMORY)
    size = max(1, (default if rows is None else rows) // batch)
    return [min(size, n - done) for done in range(0, n, size)]
