"""What metrics of perturbation curves share: how parts go away, and the curves that a call keeps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from quantus.helpers.enums import DataType
from torch import Tensor

from captum_vit.errors import InputError, OptionError
from captum_vit.options import IN_MEMORY, boolean, integer_or_none, one_of
from captum_vit.tokens import placed
from quantus_metrics.perturb import (
    FRACTIONS,
    Black,
    Curve,
    DropTokens,
    Remover,
    curves,
    ranking_map,
    ranking_words,
    target_score,
)
from quantus_metrics.perturb.curve import Readout, check_fractions
from quantus_metrics.perturb.ranks import patch_of
from quantus_metrics.perturb.remove import check_remover
from quantus_metrics.token_arrays import text_model

from .base import TokenMetric
from .batch import Answers, Batch, Samples
from .panels import Panel, less


class CurveMetric(TokenMetric):
    """A metric that watches a prediction while parts of the image, or of the text, go away in the order of a map.

    Of texts, ``x_batch`` is the array of token ids and the model one of `quantus_metrics.wrap_text`: neither padding
    nor the special tokens that it knows are ever chosen, and fractions are of the words that may be removed.

    A subclass defines `_score`.

    Args:
        patch_size: rank and remove whole patches, of this many pixels; for pixel maps, as Quantus has them.
            None ranks pixels. Give the model's patch size for maps of patches that were enlarged to pixels: no
            patch is then half removed. Where these patches do not tile the image, cells lie over the pixels that
            they read; cells of another size divide the image.
        enlarge: "bilinear" enlarges maps of patches to the image, and pixels are ranked and removed, as in the protocol
            of Chefer et al.; None removes whole patches.
        remover: how parts go away; None is the metric's own choice: `default_remover` for images, `DropTokens` for
            texts. ``ReplaceTokens(tokenizer.mask_token_id)`` puts the mask token in place of words.
        fractions: how much is gone at each step, from 0 to 1.
        internal_batch_size: images per forward pass.
        return_curves: keep the curves of the last call, as `curves`, which `plot` draws.
        **kwargs: Quantus's own; see `TokenMetric`.
    """

    data_applicability: ClassVar[set[DataType]] = {DataType.IMAGE, DataType.TEXT}
    orders: tuple[str, ...] = ("mif",)
    apart: ClassVar[bool] = False
    """Whether groups of parts go one at a time, rather than one after the other; see `curves`."""
    default_remover: ClassVar[type[Remover]] = Black
    reading: str = "score of the target"
    """What `_readout` reads, in words."""

    def __init__(
        self,
        *,
        patch_size: int | tuple[int, int] | None = None,
        enlarge: Literal["bilinear"] | None = None,
        remover: Remover | None = None,
        fractions: Sequence[float] = FRACTIONS,
        internal_batch_size: int | None = None,
        return_curves: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_remover(remover)
        patch_of(patch_size)
        self.patch_size, self.remover = patch_size, remover or self.default_remover()
        self.enlarge = None if enlarge is None else one_of("enlarge", enlarge, ("bilinear",))
        if enlarge is not None and (patch_size is not None or self.remover.of_tokens):
            got = "`patch_size`" if patch_size is not None else f"{type(self.remover).__name__}, which removes tokens"
            raise OptionError("Pixels to rank and to remove, where maps are enlarged.", got, "enlarge=None.")
        self._remover_of_texts = remover or DropTokens()
        self.fractions = check_fractions(fractions, least=1)
        self.internal_batch_size = integer_or_none("internal_batch_size", internal_batch_size, hint=IN_MEMORY)
        self.return_curves = boolean("return_curves", return_curves)

    @abstractmethod
    def _score(
        self,
        found: Mapping[str, Curve],
        intact: Tensor,  # shape: (B,), the reading at the first fraction; of the whole image if `_wants_intact`
    ) -> Tensor:  # shape: (B,)
        """From the curve of each order to the score."""

    _wants_intact: bool = False

    def _reader(self, answer: Answers) -> Readout:
        """What makes one number of each sample's outputs."""
        return self._readout

    def _readout(
        self,
        outputs: Tensor,  # shape: (n, n_classes)
        target: Tensor,  # shape: (n,)
    ) -> Tensor:  # shape: (n,)
        return target_score(outputs, target)

    def _check(self, samples: Samples, model: Answers, explain_func: Callable[..., np.ndarray] | None) -> None:
        """All maps can be ranked, and what stands in for the parts that go is known."""
        if samples.texts:
            if self.enlarge is not None:
                raise InputError("Images, whose maps can be enlarged.", "texts", "enlarge=None.")
            self._check_texts(samples, model)
            return
        if isinstance(self.remover, Black):
            self.remover.fill(model)
        if samples.a_batch is not None:
            box = samples.box(model, patch_of(self.patch_size), self.remover.of_tokens)
            ranking_map(torch.from_numpy(self._maps(samples)), samples.x_batch.shape[-2:], self.patch_size, box)

    def _check_texts(self, samples: Samples, model: Answers) -> None:
        removable = text_model(model).removable(torch.from_numpy(samples.x_batch))
        if not removable.any(1).all():
            alone = (~removable.any(1)).nonzero().flatten().tolist()
            got = f"none in text(s) {alone[:10]} of {len(samples)}"
            raise InputError("A word that may be removed in each text.", got, "texts with words, or fewer special_ids.")
        if samples.a_batch is not None:
            ranking_words(torch.from_numpy(self._maps(samples)), samples.x_batch.shape)

    def _enlarged(self, batch: Batch) -> Batch:
        """With maps of pixels, if they are to be enlarged."""
        size = (batch.inputs.shape[-2], batch.inputs.shape[-1])
        if self.enlarge is None or batch.relevance.shape[-2:] == size:
            return batch
        return replace(batch, relevance=placed(batch.relevance, batch.box(), size, self.enlarge))

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        batch = self._enlarged(batch)
        texts, patch = batch.inputs.dim() == 2, patch_of(self.patch_size)
        extra = self._wants_intact and self.fractions[0] > 0
        found = curves(
            batch.model,
            batch.inputs,
            batch.target,
            batch.relevance,
            orders=self.orders,
            remover=batch.model.sharing(self._remover_of_texts if texts else self.remover),
            fractions=(0.0, *self.fractions) if extra else self.fractions,
            patch_size=self.patch_size,
            internal_batch_size=self.internal_batch_size,
            readout=self._reader(batch.model),
            among=text_model(batch.model).removable(batch.inputs) if texts else None,
            box=None if texts else batch.box(patch, self.remover.of_tokens),
            apart=self.apart,
        )
        intact = next(iter(found.values())).scores[:, 0]
        if extra:
            found = {order: Curve(curve.fractions[1:], curve.scores[:, 1:]) for order, curve in found.items()}
        kept = {order: curve.scores for order, curve in found.items()} if self.return_curves else {}
        return {"score": self._score(found, intact), **kept}

    @property
    def curves(self) -> dict[str, Curve]:
        """The curves behind the last call's scores, by order, on the CPU; needs `return_curves`."""
        if not self.kept:
            raise InputError(
                "Curves of a call.",
                "none kept" if self.return_curves else "return_curves=False",
                f"{type(self).__name__}(return_curves=True), and call it first.",
            )
        return {
            order: Curve(torch.tensor(self.fractions, dtype=scores.dtype), scores)
            for order, scores in self.kept.items()
        }

    def panels(self, kept: Collection[str]) -> list[Panel]:
        axes = ([100 * fraction for fraction in self.fractions], "% gone", self.reading)
        orders = [order for order in self.orders if order in kept]
        found = {order: Panel(order.upper(), *axes, (order,), itemgetter(order)) for order in orders}
        both = [less(found["lif"], found["mif"], "LIF less MIF")] if {"lif", "mif"} <= found.keys() else []
        return [*found.values(), *both]

    def plot(
        self,
        plot_func: Callable[..., Any] | None = None,
        show: bool = True,
        path_to_save: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Draw the last call's curves, or those given: `plot_func` takes them first; see `plot_curves`."""
        super().plot(plot_func, show, path_to_save, *(args or (self.curves,)), **kwargs)

    def _draw(self, found: Mapping[str, Curve], ax: Axes | None = None) -> Axes:  # type: ignore[override]
        return plot_curves(found, ax, self.reading)


def plot_curves(found: Mapping[str, Curve], ax: Axes | None = None, reading: str = "score of the target") -> Axes:
    """The mean over samples against the percentage gone, one line per order, the area in percent beside it."""
    ax = ax or plt.subplots()[1]
    for order, curve in found.items():
        label = f"{order.upper()}, area {100 * curve.area().mean():.4g}"
        ax.plot(100 * curve.fractions, curve.scores.mean(0), label=label)
    if {"mif", "lif"} <= found.keys():
        low, high = found["mif"].scores.mean(0), found["lif"].scores.mean(0)
        ax.fill_between(100 * found["mif"].fractions, low, high, alpha=0.15, label="LIF less MIF")
    ax.set(xlabel="% gone", ylabel=reading, xlim=(0, 100))
    ax.legend()
    return ax
