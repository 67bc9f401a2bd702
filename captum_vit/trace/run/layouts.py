"""Where the tokens of a batch lie, by only its embedding."""

from __future__ import annotations

from contextlib import suppress
from math import prod

from torch import Tensor

from captum_vit.tokens import TokenLayout
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.watch import Watch


class _Reached(Exception):
    """The first block has been entered: nothing else is needed."""


def layout_of(call: Pass) -> TokenLayout:
    """Where the tokens of these very inputs lie; costs their embedding. Call it inside ``undisturbed``."""
    watch, n_tokens = _as_far_as_blocks(call)
    return watch.layout(n_tokens)


def layouts_of_blocks(call: Pass, start: int) -> dict[int, TokenLayout]:
    """The same for each block from one on, in a network whose blocks have tokens of several kinds."""
    watch, _ = _as_far_as_blocks(call)
    blocks = dict(enumerate(call.transformer.blocks[start:], start))
    firsts = {block.tokens_of: layer for layer, block in blocks.items()}
    kinds = {of: watch.layout_of_block(layer, prod(blocks[layer].cells)) for of, layer in firsts.items()}
    return {layer: kinds[block.tokens_of] for layer, block in blocks.items()}


def _as_far_as_blocks(call: Pass) -> tuple[Watch, int]:
    """A pass that ends where the first block begins, and how many tokens enter it."""
    lengths: list[int] = []

    def stop(x: Tensor) -> None:
        lengths.append(x.shape[1])
        raise _Reached

    watch = Watch(call)
    watch.at(call.transformer.blocks[0].entrance, stop)
    with suppress(_Reached):
        watch.run()
    return watch, lengths[0]
