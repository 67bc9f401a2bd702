"""What this package must be told about a transformer; everything else is found by running it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.modules import uncompiled

Path = str | Callable[[Any], Any]
"""A dotted attribute path, or a function of the object it starts from."""


@dataclass(frozen=True)
class Spec:
    """Names of the parts of one kind of transformer.

    A *tower* is the module that embeds an input and runs it through a stack of blocks.
    Prefix tokens, grid, pooling and the rows that the head reads are found by running the model.

    Args:
        blocks: from the tower to its sequence of blocks.
        attn: from a block to the attention module whose first input feeds queries, keys and values.
        out_proj: from a block to the layer that maps the merged heads back to the model's width; None where
            something else follows it (methods that read per-head vectors then refuse the model).
        mid: from a block to the module whose input is the stream between attention and feed-forward.
        attn_scale: from a block to the LayerScale vector of the attention branch, if it has one.
        first_norm: post-norm blocks only: from a block to the norm behind its attention. Its input is the stream
            plus the attention branch. Methods that follow vectors through it need it.
        last_norm: post-norm blocks only: from a block to the norm that ends it. Its input is the stream
            plus the feed-forward branch. None means pre-norm.
        attn_extra: names of attributes of the attention module that, where present, stand between the
            merged heads and ``out_proj`` (methods that read per-head vectors refuse such a model).
        pool: row weights, a function of ``(n_tokens, prefix)`` giving (N,), for heads that mix several
            poolings; rows that turn out not to be read get none. None means found by running the model.
        entry: from the tower to the module whose first input are the tokens that enter the first block, where
            others read them beside it (a convolution, as in DeBERTa). None means the block alone.
        returns: what a block returns, from the tokens that leave it; None means found by running the model.
        family: a name for people.
    """

    blocks: Path = "blocks"
    attn: Path = "attn"
    out_proj: Path | None = "attn.proj"
    mid: Path = "norm2"
    attn_scale: Path | None = None
    first_norm: Path | None = None
    last_norm: Path | None = None
    attn_extra: tuple[str, ...] = ()
    pool: Callable[[int, int], Tensor] | None = None
    entry: Path | None = None
    returns: Callable[[Tensor], Any] | None = None
    family: str = "custom"


@dataclass(frozen=True)
class Transformer:
    """One tower of a model, described by its spec."""

    tower: nn.Module
    spec: Spec
    name: str  # dotted name of the tower inside the model

    @cached_property
    def blocks(self) -> list[nn.Module]:
        """In their order; of a compiled block the module inside, since names of classes and hooks are its."""
        return [uncompiled(block) for block in follow(self.tower, self.spec.blocks)]

    @property
    def post_norm(self) -> bool:
        return self.spec.last_norm is not None

    def returning(self, returns: Callable[[Tensor], Any]) -> Transformer:
        """The same, knowing what its blocks return."""
        return replace(self, spec=replace(self.spec, returns=returns))

    def entrance(self, layer: int) -> nn.Module:
        """The module whose first input are the tokens that enter a block."""
        entry = self.spec.entry if layer == 0 else None
        return self.blocks[layer] if entry is None else follow(self.tower, entry)

    def part(self, block: nn.Module, path: Path) -> Any:
        """A part of a block; refused by name if it is not there."""
        try:
            return follow(block, path)
        except AttributeError as error:
            raise UnsupportedModelError(
                f"A block with {path!r}, as the spec of {self.spec.family} says.",
                f"{type(block).__name__} ({error})",
                "captum_vit.register_spec with the attribute names of that block.",
            ) from error

    def find(self, block: nn.Module, path: Path) -> Any:
        """A part of a block, or None if it is not there."""
        try:
            return follow(block, path)
        except AttributeError:
            return None


def follow(start: Any, path: Path) -> Any:
    """Walk a dotted path, or call a function, from an object."""
    return path(start) if callable(path) else attrgetter(path)(start) if path else start
