"""A transformer as the places where its values are while it runs, block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

from torch import Tensor, nn

from captum_vit.errors import UnsupportedModelError
from captum_vit.sites.site import Place


@dataclass(frozen=True)
class Block:
    """One block: attention that adds to the stream of tokens, and what follows up to the next one.

    A place that a block does not have is None, and ``missing`` holds the reason.

    Args:
        entrance: tokens that enter.
        attn_in: what queries, keys and values are made of: behind the first norm, or the tokens themselves.
        mid: the stream between attention and feed-forward; of a post-norm block behind the norm between them.
        out: tokens that leave.
        before_mid: what a post-norm block's first norm is given.
        before_norm: what its last norm is given.
        first_norm: the norm behind a post-norm block's attention; None in a pre-norm block.
        last_norm: the norm that ends a post-norm block.
        mid_norm: the norm of a pre-norm block before its feed-forward.
        out_proj: the layer that maps the merged heads to the model's width.
        attn_scale: gives one number for each channel by which the attention branch is multiplied (LayerScale), as
            it is when it is called.
        between: what else stands between the merged heads and the stream, where that is no linear map.
        module: the one module call that is the block; None where there is none.
        attends: the module inside of whose only call all of its attention runs; None where that was not seen.
        follows: whether the very tensor that leaves the block before was seen to enter.
        missing: by name of a part that is None, what there is in its place.
        cells: how many there are along each axis of its tensor but the batch and the features, where that was found.
        tokens_of: the first block whose tokens lie as those of this one do, where that was found.
    """

    entrance: Place
    attn_in: Place | None
    mid: Place | None
    out: Place
    before_mid: Place | None = None
    before_norm: Place | None = None
    first_norm: nn.Module | None = None
    last_norm: nn.Module | None = None
    mid_norm: nn.Module | None = None
    out_proj: nn.Module | None = None
    attn_scale: Callable[[], Tensor] | None = None
    between: str = ""
    module: nn.Module | None = None
    attends: nn.Module | None = None
    follows: bool = False
    missing: Mapping[str, str] = field(default_factory=dict)
    cells: tuple[int, ...] = ()
    tokens_of: int = 0

    def places(self) -> list[Place]:
        """Those that it has."""
        places = (self.entrance, self.attn_in, self.mid, self.out, self.before_mid, self.before_norm)
        return [place for place in places if place is not None]


@dataclass(frozen=True)
class Addition:
    """A torch call that adds a branch to the stream.

    Args:
        number: which call, counted by :class:`captum_vit.sites.calls.Calls`.
        name: of the function.
        stream: which of the tensors that it is given is the stream.
    """

    number: int
    name: str
    stream: int


@dataclass(frozen=True)
class Transformer:
    """One tower of a model: the module that embeds an input and runs it through a stack of blocks.

    Args:
        tower: that module.
        blocks: in their order.
        name: dotted name of the tower inside the model.
        family: a name for people.
        returns: what a block returns, from the tokens that leave it, where that is more than tokens.
        calls: names of all torch calls of a pass, where the model's code depends on numbers that it computes; a pass
            that makes others is refused.
        refusal: why no attention can be followed through its blocks, such as one in windows; None where it can.
            Methods that need only tokens and gradients work all the same.
        additions: of such a network, what adds to its stream.
        run_past: whether the scores are made of tokens of earlier blocks by a path around the last block.
    """

    tower: nn.Module
    blocks: list[Block]
    name: str
    family: str = "custom"
    returns: Callable[[Tensor], Any] | None = None
    calls: tuple[str, ...] = ()
    refusal: UnsupportedModelError | None = None
    additions: tuple[Addition, ...] = ()
    run_past: bool = False

    @cached_property
    def post_norm(self) -> bool:
        """Whether norms stand behind the branches, on the stream itself."""
        return any(block.before_norm is not None for block in self.blocks)

    @property
    def fixed(self) -> bool:
        """Whether its places are modules that run once, so that they are the same for batches of any size."""
        return not self.calls and all(place.of == 1 for block in self.blocks for place in block.places())

    @cached_property
    def stacked(self) -> bool:
        """Whether every block is a module that runs once, so that it can be skipped."""
        modules = self.modules()
        if self.refusal is not None:  # what enters a block may have another shape than what entered the one before
            return False
        return (
            not self.calls and len(set(modules)) == len(self.blocks) and all(block.out.of == 1 for block in self.blocks)
        )

    @cached_property
    def stages(self) -> list[range]:
        """Blocks in a row that have as many cells."""
        numbers = [prod(block.cells) for block in self.blocks]
        starts = [k for k, number in enumerate(numbers) if k == 0 or number != numbers[k - 1]]
        return [range(a, b) for a, b in zip(starts, [*starts[1:], len(self.blocks)], strict=True)]

    @property
    def default_layer(self) -> int:
        """The block that is read where none is named: the last one of the first stage that ends in the second half."""
        return next(stage[-1] for stage in self.stages if 2 * stage.stop > len(self.blocks))

    def refuse_attention(self) -> None:
        """Refuse what needs attention that can be followed."""
        if self.refusal is not None:
            raise copy(self.refusal)

    def returning(self, returns: Callable[[Tensor], Any]) -> Transformer:
        """The same, knowing what its blocks return."""
        return replace(self, returns=returns)

    def modules(self) -> list[nn.Module]:
        """The modules that are its blocks; those that are none are left out."""
        return [block.module for block in self.blocks if block.module is not None]

    def part(self, layer: int, name: str) -> Any:
        """A part of a block; refused by name if it has none."""
        block = self.blocks[layer]
        part = getattr(block, name)
        if part is None:
            raise UnsupportedModelError(
                f"A block with `{name}`.",
                f"block {layer} of {self.family}: {block.missing.get(name, 'it has none')}",
                "a method that does not read it, such as LayerCDAM, or captum_vit.register_spec with the attribute "
                "names of that block.",
            )
        return part
