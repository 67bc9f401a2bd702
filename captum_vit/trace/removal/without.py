"""What a model says without some of its tokens, by the cheapest way that it allows: found by trying."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import MISFITS, CaptumVitError, InputError, TraceError, UnsupportedModelError
from captum_vit.options import one_of
from captum_vit.tokens import TokenLayout
from captum_vit.trace.record.probe import Want
from captum_vit.trace.record.record import record
from captum_vit.trace.removal.absent import patches_absent, takes_mask, words_absent
from captum_vit.trace.run.describe import stream_of
from captum_vit.trace.run.layouts import layout_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.watch import Watch

WAYS = ("auto", "drop", "mask")


class Without:
    """A model's answers about the samples of a batch, each without some of its tokens.

    Tokens are dropped before the first block where that gives what hiding their keys gives, and hidden where it
    does not. Which it is is tried out before the first answer, on one sample that loses its first half and then
    its second half: three passes of that sample. Hiding has to prove itself too, where it is relied on: what is
    hidden is disturbed, and the answer must stay (two passes more); the attention mask that a text model takes
    is trusted. Of texts, the rows that the head reads (CLS, the end of a text) are never dropped but hidden;
    finding them takes one pass of the batch.

    Where attention cannot be followed, no key can be hidden. Then patches may be dropped if the answer is the same for
    the patches of a sample in another order, which is tried on one: each is known by its content alone, so that a
    shorter sequence is one without some of them.

    Use it inside :func:`captum_vit.trace.run.state.undisturbed`.

    Args:
        model: the forward function's module.
        inputs: checked inputs, pictures or token ids.
        args: further positional arguments; those as long as the batch belong to its samples.
        way: ``"drop"`` and ``"mask"`` insist; ``"auto"`` drops where it can.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...], args: tuple[Any, ...], way: str = "auto") -> None:
        one_of("way", way, WAYS)
        self.model, self.inputs, self.args, self.asked = model, inputs, args, way
        self.transformer = stream_of(model, inputs, args)
        self._call = Pass(model, inputs, args, self.transformer)
        self.text = not inputs[0].is_floating_point()
        self.way: str | None = None  # "drop" or "mask", once it was needed
        self._real = self._read = torch.zeros(0)  # shape: (B, T), words that are no padding; rows that the head reads

    def __call__(
        self,
        rows: Tensor,  # shape: (n,)
        gone: Tensor,  # shape: (n, P) bool, patches in reading order, or words; or (n, h, w), patches
    ) -> Tensor:  # shape: (n, K)
        """The scores of ``inputs[rows]`` without what is gone; where nothing is, those of the plain pass.

        One pass; another one for the samples that lose nothing, if there are both, and for pictures one for each
        number of patches that they lose.

        Raises:
            InputError: places that are not the model's patches or words, or nothing left to read.
            UnsupportedModelError: the model allows no way, or not the one that is insisted on.
        """
        if gone.any():
            self._refuse_other_places(gone.shape[1:])
        gone = gone.flatten(1)
        count = gone.sum(1)
        kinds = count.clamp(max=1) if self.text else count
        groups = [(kinds == kind).nonzero().flatten() for kind in kinds.unique()]
        said = [self._answer(rows[group], gone[group]) for group in groups]
        return torch.cat(said)[torch.cat(groups).argsort()]

    @cached_property
    def _layout(self) -> TokenLayout:
        """Where the tokens of a picture lie; costs the embedding of one."""
        return layout_of(self._call.of_first())

    @cached_property
    def _shortens(self) -> bool:
        """Whether the head is given a shorter sequence: not where it counts to tokens behind the patches, or among."""
        if not self._layout.in_front and self._words()[1][:, self._layout.standing].any():
            why = "its head reads patches, and special tokens stand among or behind them"
            raise self._unsupported("taken away", why)
        return self._layout.in_front

    def whole(self) -> tuple[Tensor, TokenLayout]:
        """The plain pass of the batch: scores (B, K), and how the tokens lie."""
        return self._run(torch.arange(len(self.inputs[0]), device=self.inputs[0].device))

    def _answer(self, rows: Tensor, gone: Tensor) -> Tensor:
        if not gone.any():
            return self._run(rows)[0]
        if self.way is None:
            self.way = self._found_way(gone)
        try:
            scores = self._run(rows, gone, self.way)[0]
        except (CaptumVitError, torch.OutOfMemoryError):
            raise
        except MISFITS as error:  # the model takes the halves of the trial, but not every other number of tokens
            why = f"{int(gone[0].sum())} fewer tokens: {type(error).__name__}: {error}".splitlines()[0]
            raise self._unsupported("taken away", why) from error
        if gone.all(1).any() and not scores.isfinite().all():
            wanted = "At least one patch left, since the head reads patches."
            raise InputError(wanted, "every patch of a picture gone", "fractions below 1.")
        return scores

    def _refuse_other_places(self, shape: tuple[int, ...]) -> None:
        if not self.text and shape not in (self._layout.grid, (self._layout.n_places,)):
            wanted, got = f"One place for each of {self._layout.grid} patches.", f"places of shape {tuple(shape)}"
            raise InputError(wanted, got, "the model's patch_size.")

    def _run(
        self,
        rows: Tensor,
        gone: Tensor | None = None,
        way: str = "drop",
        visit: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, TokenLayout]:
        """One pass of some samples without what is gone, with other tokens that enter the first block if there are."""
        watch = Watch(self._call.of(rows), thinned=gone is not None)
        lengths: list[int] = []

        def see(x: Tensor) -> Tensor | None:
            lengths.append(x.shape[1])
            return None if visit is None else visit(x)

        watch.at(self.transformer.blocks[0].entrance, see)
        with torch.no_grad():
            scores = watch.run(*([] if gone is None else [self._absent(rows, gone, way)]))
        return scores, watch.layout(lengths[0])

    def _absent(self, rows: Tensor, gone: Tensor, way: str) -> AbstractContextManager[None]:
        if not self.text:
            drop, shorten = way == "drop", self._shortens
            return patches_absent(self.transformer, self._layout, gone, drop=drop, shorten=shorten)
        stay = (self._real[rows] & ~gone) | self._read[rows] if way == "drop" else None
        return words_absent(self.model, self.transformer, gone, stay=stay)

    # -- which way -------------------------------------------------------------------------------

    def _found_way(self, gone: Tensor) -> str:
        """Try on one sample, twice, what is dropped against what is hidden."""
        followed = self.transformer.refusal is None
        if not followed and not self.text:
            self._refuse_order()
            return "drop"
        trusted = followed and self.text and takes_mask(self.model, self.transformer)
        if trusted and self.asked == "mask":
            return "mask"
        rows, halves = self._trial(gone)
        hidden = self._hidden(rows, halves)
        if self.asked != "mask":
            why = self._why_not_drop(rows, halves, hidden)
            if not why:
                return "drop"
            if self.asked == "drop":
                raise self._unsupported("dropped", why)
        if not trusted:
            self._prove(rows, halves, hidden)
        return "mask"

    def _refuse_order(self) -> None:
        """Of a network without attention that can be followed: its patches in another order have the same scores."""
        block, refusal = self.transformer.blocks[0], self.transformer.refusal
        unfollowed = f"no key can be hidden: {'' if refusal is None else refusal.got}"
        if self.asked == "mask":
            raise self._unsupported("hidden", unfollowed)
        if block.entrance.features is not None:
            cells = " x ".join(map(str, block.cells))
            raise self._unsupported("taken away", f"its blocks read all cells of a grid of {cells}, and {unfollowed}")
        places = torch.arange(self._layout.n_tokens, device=self.inputs[0].device)
        standing = places[self._layout.standing]
        moved = places.clone()
        moved[standing] = standing[torch.randperm(len(standing), generator=torch.Generator().manual_seed(0))]
        first = torch.zeros(1, dtype=torch.long, device=places.device)
        whole, other = self._run(first)[0], self._run(first, visit=lambda x: x[:, moved])[0]
        size = whole.abs().max()
        if not _apart(whole, other).max() <= torch.finfo(whole.dtype).eps ** 0.5 * size:
            raise self._unsupported("taken away", f"other scores for its patches in another order, and {unfollowed}")

    def _hidden(self, rows: Tensor, halves: Tensor) -> Tensor | None:
        """The scores of the trial with keys hidden; None where nothing can be."""
        try:
            return self._run(rows, halves, "mask")[0] if halves.any() else None
        except CaptumVitError:
            raise
        except MISFITS as error:
            raise self._unsupported("taken away", f"{type(error).__name__}: {error}".splitlines()[0]) from error

    def _trial(self, gone: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (2,), (2, P)
        """One sample without the first half of what can be dropped, and without the second half."""
        row, places = 0, torch.arange(gone.shape[1], device=gone.device)
        if self.text:
            self._real, self._read = self._words()
            loose = self._real & ~self._read
            row = int(loose.sum(1).argmax())
            places = loose[row].nonzero().flatten()
        half = (len(places) + 1) // 2
        halves = torch.zeros(2, gone.shape[1], dtype=torch.bool, device=gone.device)
        halves[0, places[:half]] = halves[1, places[len(places) - half :]] = True
        return torch.full((2,), row, device=gone.device), halves

    def _words(self) -> tuple[Tensor, Tensor]:  # shapes: (B, T)
        """Of a text, the words that are no padding, and the rows that the head reads: all, where that is not seen."""
        try:
            with torch.no_grad():
                found = record(self._call, None, Want(row="outputs"))
        except TraceError:
            everyone = torch.ones_like(self.inputs[0], dtype=torch.bool)
            return everyone, everyone
        read = found.row.squeeze(1) != 0
        read |= ~read.any(1, keepdim=True)  # none is seen to be read where the scores have no gradient
        return torch.ones_like(read) if found.layout.keep is None else found.layout.keep, read

    def _why_not_drop(self, rows: Tensor, halves: Tensor, hidden: Tensor | None) -> str:
        """What is wrong with dropping; nothing, if it gives what hiding gives."""
        if hidden is None:
            return "its head reads every word"
        try:
            dropped, _ = self._run(rows, halves, "drop")
        except MISFITS as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return "" if _alike(dropped, hidden) else "other scores than with their keys hidden"

    def _prove(self, rows: Tensor, halves: Tensor, hidden: Tensor | None) -> None:
        """What is hidden is disturbed, and no one notices."""
        absent = (halves if self.text else self._layout.from_patches(halves)).unsqueeze(-1)
        if hidden is None:
            raise self._unsupported("taken away", "its head reads every word, and it takes no attention mask")
        disturbed, _ = self._run(rows, halves, "mask", lambda x: torch.where(absent, 1 - x, x))
        if not _alike(disturbed, hidden):
            raise self._unsupported("taken away", "the output changed with what was hidden from all queries")

    def _unsupported(self, how: str, why: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"A model whose tokens can be {how}.",
            f"{self.transformer.family}: {why}",
            "removing them in the input instead, by a blurred or filled patch (captum.attr.Occlusion), or a mask token "
            "for a word; or gradients at tokens, such as DecompX.",
        )


def _alike(
    found: Tensor,  # shape: (2, K), a sample without one half, and without the other
    wanted: Tensor,
) -> bool:
    """Whether two ways to compute the same agree, but for rounding, measured by how much it matters which half."""
    if found.shape != wanted.shape:
        return False
    matters = _apart(wanted[0], wanted[1]).max()
    return bool(_apart(found, wanted).max() <= torch.finfo(wanted.dtype).eps ** 0.5 * matters)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """How far apart scores are; a class that is masked, and scores minus infinity in both, is not."""
    return (a - b).abs().masked_fill(a == b, 0)
