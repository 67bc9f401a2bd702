"""A score as a sum over words, patches of pictures, and constants."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial

import torch
from captum._utils.typing import TargetType
from torch import Tensor, nn

from captum_vit.description.two_towers import is_words_and_pictures
from captum_vit.errors import InputError, TraceError
from captum_vit.options import kind_of
from captum_vit.sites.site import Place
from captum_vit.trace.layout.image_tokens import pictures_in
from captum_vit.trace.layout.pictures import Pictures
from captum_vit.trace.modes.biases import BiasTap
from captum_vit.trace.modes.completeness import COMPLETE, refuse_gap
from captum_vit.trace.modes.rules import rule_modes
from captum_vit.trace.run.describe import stream_of, towers_of
from captum_vit.trace.run.finite import refuse_not_finite
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.recompute import recomputed
from captum_vit.trace.run.score import select
from captum_vit.trace.run.state import refuse_opaque
from captum_vit.trace.run.watch import Watch, refuse_no_way_back


@dataclass(frozen=True)
class Split:
    """One pass and its gradients at some leaves.

    Args:
        leaves: the tensors at which the graph begins.
        grads: for each score its gradient at each leaf.
        constants: (R,) for each score what constants add to it.
        score: (B,).
    """

    leaves: list[Tensor]
    grads: list[list[Tensor]]
    constants: Tensor
    score: Tensor

    def products(self, leaf: int) -> list[Tensor]:
        """For each score gradient x input at a leaf, unreduced."""
        return [self.leaves[leaf] * of_score[leaf] for of_score in self.grads]


def split(
    call: Pass,
    places: Sequence[Place],
    target: TargetType,
    rule: str,
    *,
    each: bool = False,
    recompute: Sequence[nn.Module] | None = None,
) -> Split:
    """One forward pass whose graph begins at several places, and one backward pass to all of them.

    What does not come from these places is a constant; what constants add is summed while the gradient passes.
    Call it inside ``undisturbed``.

    Args:
        call: what runs.
        places: where leaves are.
        target: of the score.
        rule: under which the graph is built.
        each: a backward pass for the score of each sample, through one graph; else one for their sum.
        recompute: blocks that run again in the backward pass, and save nothing for it.

    Raises:
        TraceError: a place that the pass does not reach, or a score that does not depend on it.
        UnsupportedModelError: leaves and constants do not sum to the score, under a rule that says that they do.
    """
    refuse_opaque(call.modules)
    seen: dict[int, Tensor] = {}
    watch, tap = Watch(call.without_transformer()), BiasTap(lambda y, axis: 0)
    for number, place in enumerate(places):
        watch.at(place, partial(_leaf, seen, number))
    with nullcontext() if recompute is None else recomputed(recompute, rule, biases=True):
        output = watch.run(*rule_modes(rule), tap)
    refuse_not_finite(output.detach(), "output", infinite=False)
    with torch.enable_grad():
        score = select(output, target)
        scores = list(score.unbind()) if each else [score.sum()]
    if not score.requires_grad or len(seen) < len(places):
        got = "one that does not" if len(seen) == len(places) else "a pass that does not reach these"
        raise TraceError("A score that depends on words and pictures.", got, "ids with a place for each picture.")
    leaves, parts = [seen[number] for number in range(len(places))], list[Tensor]()
    tap.told.append(lambda place, part: parts.append(part.detach().double().sum()))
    grads: list[list[Tensor]] = []
    constants: list[Tensor] = []
    for number, one in enumerate(scores):
        parts.clear()
        grads.append(_gradients(one, leaves, keep=number < len(scores) - 1))
        added = torch.stack(parts) if parts else score.new_zeros(1).double()
        constants.append(added.sum())
        if rule in COMPLETE:
            products = [(x.detach().double() * g).flatten() for x, g in zip(leaves, grads[-1], strict=True)]
            refuse_gap(rule, one[None], torch.cat(products)[None, :, None], added[None], tap.eps)
    return Split([x.detach() for x in leaves], grads, torch.stack(constants), score.detach())


def _leaf(seen: dict[int, Tensor], number: int, x: Tensor) -> Tensor:
    torch.set_grad_enabled(True)
    seen[number] = x.detach().requires_grad_()
    return seen[number]


def _gradients(score: Tensor, leaves: list[Tensor], keep: bool) -> list[Tensor]:
    try:
        grads = torch.autograd.grad(score, leaves, retain_graph=keep, allow_unused=True)
    except RuntimeError as error:
        refuse_no_way_back(error)
        raise
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]


@dataclass(frozen=True)
class SplitInputs:
    """A pass split at words, and at patches where there are pictures.

    Args:
        split: the pass.
        pictures: where patches lie; None without pictures, and where that was not looked for.
    """

    split: Split
    pictures: Pictures | None

    def decomposed(self) -> Decomposition:
        """The scores of all samples as sums."""
        of_each = [[g.sum(-1).double() for g in self.split.products(leaf)] for leaf in range(len(self.split.leaves))]
        words = torch.stack([of_score[b] for b, of_score in enumerate(of_each[0])])
        tower = torch.stack([g.flatten() for g in of_each[1]]) if len(of_each) > 1 else words.new_zeros(len(words), 0)
        return Decomposition(words, tower, self.pictures, self.split.constants, self.split.score.double())


def split_inputs(
    call: Pass,
    target: TargetType,
    rule: str,
    *,
    laid: bool,
    each: bool,
    checkpoint: bool,
) -> SplitInputs:
    """Split a pass over ids, or over ids and pixels; the arguments are those of :func:`split`.

    Args:
        laid: find where patches lie.
        checkpoint: blocks run again in the backward pass.
    """
    pictures, given = None, (call.inputs, call.args)
    if is_words_and_pictures(call.inputs):
        towers = towers_of(call.model, *given)
        pictures = pictures_in(call.model, towers, *given) if laid else None
        places, blocks = [towers.words, towers.patches], list(towers.blocks)
    else:
        ids = call.inputs[0]
        if ids.is_floating_point() or ids.dim() != 2:
            raise InputError("Token ids (B, N).", kind_of(ids), "attribute, which explains pictures.")
        transformer = stream_of(call.model, *given)
        places, blocks = [transformer.blocks[0].entrance], transformer.modules()
    recompute = blocks if checkpoint else None
    return SplitInputs(split(call, places, target, rule, each=each, recompute=recompute), pictures)


@dataclass(frozen=True)
class Shares:
    r"""What each part of the input adds to a score; all (B,). The parts sum to it:

    .. math:: \mathrm{text} + \mathrm{image} + \mathrm{special} + \mathrm{asking} + \mathrm{constants} +
        \mathrm{residual} = \mathrm{score}

    Args:
        text: the words of the prompt, but for those below.
        image: the patches of all pictures.
        special: special tokens of the text, and those of the tower that stand for no patch.
        asking: the token at the position that the score is read at.
        constants: biases, and whatever else comes from no token.
        residual: what rounding leaves, or a rule that is not complete.
        score: what is explained.
    """

    text: Tensor
    image: Tensor
    special: Tensor
    asking: Tensor
    constants: Tensor
    residual: Tensor
    score: Tensor

    def of(self, sample: int = 0) -> dict[str, float]:
        """The numbers of one sample, by name."""
        return {field.name: float(getattr(self, field.name)[sample]) for field in fields(self)}


@dataclass(frozen=True)
class Decomposition:
    r"""A score as a sum over words, patches, and constants: what a rule makes of one pass.

    .. math:: f_b = \sum_i \mathrm{words}_{bi} + \sum_j \mathrm{tower}_{bj} + \mathrm{constants}_b +
        \mathrm{residual}_b

    Args:
        words: (B, N) relevance of each token of the text, at its vector; zero where a picture stands.
        tower: (B, M) what each token of the tower of pictures, numbered through all pictures, adds to the score of each
            sample; (B, 0) without pictures.
        pictures: where those lie; None without pictures.
        constants: (B,) what biases add, and whatever else comes from no word and no patch.
        score: (B,) what is explained.
    """

    words: Tensor
    tower: Tensor
    pictures: Pictures | None
    constants: Tensor
    score: Tensor

    @property
    def patches(self) -> Tensor:
        """The relevance of patches in the shape of the pixels, with one channel: (n, 3, H, W) becomes (n, 1, h, w)."""
        return self._laid.lay_out(self.tower.sum(0), "grid")

    @property
    def images(self) -> list[Tensor]:
        """A map (h, w) for each picture, or tile of one, in the order of the pixels; (t, h, w) of a film."""
        return self._laid.maps(self.tower.sum(0))

    @property
    def residual(self) -> Tensor:  # shape: (B,)
        """By how much the sum falls short of the score."""
        return self.score - self.words.sum(1) - self.tower.sum(1) - self.constants

    def shares(
        self,
        special: Tensor | None = None,  # shape: (B, N) bool
        asking: int | None = None,
    ) -> Shares:
        """What text, pictures and the rest add.

        Args:
            special: which tokens of the text are special: BOS, chat markers, delimiters of pictures.
            asking: the position that the score is read at, which counts as neither text nor special;
                ``prompt_length - 1 + t`` for token t of an answer.

        Raises:
            InputError: a mask of another shape, or a position that the text does not have.
        """
        shape, n = tuple(self.words.shape), self.words.shape[1]
        mask = torch.zeros_like(self.words, dtype=torch.bool) if special is None else special.to(self.words.device)
        if tuple(mask.shape) != shape or mask.dtype != torch.bool:
            got = f"shape {tuple(mask.shape)} of {mask.dtype}"
            raise InputError(
                f"A mask of shape {shape} of booleans, as the words.", got, "ids == tokenizer.bos_token_id"
            )
        if asking is not None and not 0 <= asking < n:
            raise InputError(f"A position among {n} tokens.", str(asking), "prompt_length - 1, for the first answer.")
        asks = torch.zeros_like(mask)
        asks[:, [] if asking is None else [asking]] = True
        tokens = None if self.pictures is None else self.pictures.special
        of_tower = self.tower[:, tokens].sum(1) if tokens is not None else torch.zeros_like(self.score)
        return Shares(
            text=self.words.masked_fill(mask | asks, 0).sum(1),
            image=self.tower.sum(1) - of_tower,
            special=self.words.masked_fill(~mask | asks, 0).sum(1) + of_tower,
            asking=self.words.masked_fill(~asks, 0).sum(1),
            constants=self.constants,
            residual=self.residual,
            score=self.score,
        )

    @property
    def _laid(self) -> Pictures:
        if self.pictures is None:
            raise InputError("A score that is made of pictures.", "a score of only words", "(input_ids, pixel_values).")
        return self.pictures
