"""A transformer described by hand, by the names of its parts; everything else is found by running it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from captum_vit.models.modules import uncompiled
from captum_vit.models.transformer import Block, Transformer
from captum_vit.sites.site import Site

Path = str | Callable[[Any], Any]
"""A dotted attribute path, or a function of the object it starts from."""


@dataclass(frozen=True)
class Spec:
    """Names of the parts of one kind of transformer.

    A *tower* is the module that embeds an input and runs it through a stack of blocks.
    Prefix tokens, grid and the rows that the head reads are found by running the model.

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
        entry: from the tower to the module whose first input are the tokens that enter the first block, where
            others read them beside it (a convolution, as in DeBERTa). None means only the block.
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
    entry: Path | None = None
    returns: Callable[[Tensor], Any] | None = None
    family: str = "custom"


def transformer_from(tower: nn.Module, spec: Spec, name: str) -> Transformer:
    """The transformer that a spec describes; parts that are not there are missing."""
    modules = [uncompiled(block) for block in follow(tower, spec.blocks)]
    entry = None if spec.entry is None else follow(tower, spec.entry)
    blocks = [_block(module, spec, entry if layer == 0 else None) for layer, module in enumerate(modules)]
    return Transformer(tower, blocks, name, spec.family, spec.returns)


def _block(module: nn.Module, spec: Spec, entry: nn.Module | None) -> Block:
    missing: dict[str, str] = {}

    def part(name: str, path: Path | None) -> Any:
        try:
            return None if path is None else follow(module, path)
        except AttributeError as error:
            missing[name] = f"no {path!r}, which its spec names, in {type(module).__name__} ({error})"
            return None

    def place(name: str, path: Path | None) -> Site | None:
        part_there = part(name, path)
        return None if part_there is None else Site(part_there, "input")

    entrance = Site(module if entry is None else entry, "input")
    post_norm = spec.last_norm is not None
    extras = [path for path in spec.attn_extra if not _transparent(_there(module, path))]
    scale = None if part("attn_scale", spec.attn_scale) is None else spec.attn_scale
    if post_norm and spec.first_norm is None:
        missing["before_mid"] = missing["first_norm"] = "its spec has no `first_norm`"
    if spec.out_proj is None:
        missing["out_proj"] = "its spec has no `out_proj`, since something else follows it"
    return Block(
        entrance=entrance,
        attn_in=entrance if post_norm else place("attn_in", spec.attn),
        mid=place("mid", spec.mid),
        out=Site(module, "output"),
        before_mid=place("before_mid", spec.first_norm),
        before_norm=place("before_norm", spec.last_norm),
        first_norm=part("first_norm", spec.first_norm),
        last_norm=part("last_norm", spec.last_norm),
        mid_norm=None if post_norm else part("mid_norm", spec.mid),
        out_proj=part("out_proj", spec.out_proj),
        attn_scale=None if scale is None else partial(follow, module, scale),
        between=", ".join(extras) or ("something else" if spec.out_proj is None else ""),
        module=module,
        missing=missing,
    )


def _there(module: nn.Module, path: Path) -> Any:
    """A part of a block, or None if it is not there."""
    try:
        return follow(module, path)
    except AttributeError:
        return None


def _transparent(module: object) -> bool:
    return module is None or isinstance(module, nn.Identity | nn.Dropout)


def follow(start: Any, path: Path) -> Any:
    """Walk a dotted path, or call a function, from an object."""
    return path(start) if callable(path) else attrgetter(path)(start) if path else start
