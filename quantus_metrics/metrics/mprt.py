"""MPRT, the model parameter randomisation test: does the map change when what the model has learnt is gone?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from quantus.functions.similarity_func import ssim
from quantus.helpers.enums import EvaluationCategory, ScoreDirection
from scipy.stats import rankdata
from torch import Tensor, nn

from captum_vit.description.weights import weights_of_blocks
from captum_vit.errors import InputError
from captum_vit.options import boolean, integer, number, one_of
from captum_vit.trace.run.describe import stream_of
from captum_vit.trace.run.state import checked_inputs, undisturbed
from quantus_metrics.bridge import check_explains, placement, to_tensor
from quantus_metrics.randomised import shuffle, weights_kept

from .base import TokenMetric
from .batch import Answers, Batch, Explainer, Samples, one_channel


def rank_correlation(
    one: Tensor,  # shape: (B, 1, h, w)
    other: Tensor,  # same shape
) -> Tensor:  # shape: (B,)
    """Spearman's correlation of two maps of the same image, equal values sharing their rank; 0 if one is constant."""
    x, y = (rankdata(maps.detach().cpu().double().flatten(1).numpy(), axis=1) for maps in (one, other))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    size = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return torch.from_numpy((x * y).sum(1) / np.where(size > 0, size, 1))


def structural_similarity(
    one: Tensor,  # shape: (B, 1, h, w)
    other: Tensor,  # same shape
) -> Tensor:  # shape: (B,)
    """Quantus's SSIM of two maps, each divided by its largest absolute value, in windows of at most 7 x 7; 0 if one is
    constant.

    Raises:
        InputError: maps of less than 3 x 3.
    """
    shortest = min(one.shape[-2:])
    if shortest < 3:
        raise InputError("Maps of at least 3 x 3.", f"maps of shape {tuple(one.shape)}", 'similarity="spearman".')
    pairs = torch.cat([one, other], 1).detach().cpu().double()  # (B, 2, h, w)
    varied = (pairs.amax((2, 3)) > pairs.amin((2, 3))).all(1)
    x, y = (pairs[varied] / pairs[varied].abs().amax((2, 3), keepdim=True)).unbind(1)
    found = torch.zeros(len(pairs), dtype=torch.float64)
    window = min(7, shortest - (shortest + 1) % 2)
    found[varied] = torch.tensor(ssim(x.numpy(), y.numpy(), batched=True, win_size=window)).double()
    return found


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "spearman": rank_correlation,
    "ssim": structural_similarity,
}


class MPRT(TokenMetric):
    r"""How alike the map stays when the weights of the model are randomised, part by part.

    .. math:: \frac{1}{K} \sum_{k=1}^{K} \mathrm{sim}\bigl(S(f), S(f_k)\bigr)

    over the head, the blocks from the last to the first, and the embedding. "top_down" randomises them one after the
    other, so that in :math:`f_K` all are; "independent" each by itself. To randomise is to shuffle the entries of each
    parameter. Which weights belong to which block is found by running the model (those that its tokens are made of,
    and no earlier ones), so CLS tokens, positions and parameters without a module of their own are randomised too.

    Reads     lower is better: a map that does not depend on what the model has learnt has 1. See `rank_correlation` and
              `structural_similarity`. A map that is constant on a randomised model has similarity 0. It judges a
              method, not whether a single map is right; a very noisy method has a low score as well.
    Costs     no image passes of its own but one of a single sample for each batch. The explanation is made 1 + K times,
              K = 2 + the number of blocks; times `n_samples`.
    Draws     from `seed`. Torch's generator is set to it before each explanation, and restored: a method that draws
              random numbers draws the same ones for each model. So `RandomAttribution` has similarity 1.

    The maps are always made by ``explain_func``, given the model itself with other weights; an ``a_batch`` is not read.
    The weights are the same to the last bit afterwards, also after an exception or an interrupt.

    Args:
        order: "top_down" or "independent".
        similarity: "spearman" or "ssim".
        n_samples: of each image, this many with added noise are explained, and their maps averaged: the smooth test
            sMPRT (50 in its paper). 0 explains the image itself.
        noise: standard deviation of that noise, as a share of the range of the image's values. The same noise is added
            to each image.
        seed: of the randomised weights, of the noise, and of what the method draws.
        return_curves: keep the similarity after each step in `kept`, by its name: "head", "block 11", ...
        **kwargs: Quantus's own; see `TokenMetric`.

    Raises:
        UnsupportedModelError: in a call, no blocks were found in the model.

    Departs   Quantus's `MPRT` and `SmoothMPRT` go through modules that have ``reset_parameters``, some 50 of a ViT-B,
              in a copy of the model, and leave CLS token and positions as they were; they compare absolute, normalised
              maps by default (here ``abs=True``), and count the untouched model, whose similarity is 1, in the mean.

    Example:
        >>> MPRT()(model, x_batch, y_batch, explain_func=explain_func(LayerCDAM))

    Reference: Adebayo et al., Sanity Checks for Saliency Maps; Hedström et al., A Fresh Look at Sanity Checks for
    Saliency Maps (the smooth test).
    """

    name = "MPRT over Blocks"
    evaluation_category = EvaluationCategory.RANDOMISATION
    score_direction = ScoreDirection.LOWER
    score_range = (-1.0, 1.0)
    compares_maps = False
    explains_anew = True

    def __init__(
        self,
        *,
        order: Literal["top_down", "independent"] = "top_down",
        similarity: Literal["spearman", "ssim"] = "spearman",
        n_samples: int = 0,
        noise: float = 0.1,
        seed: int = 0,
        return_curves: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.order = one_of("order", order, ("top_down", "independent"))
        self.similarity = one_of("similarity", similarity, SIMILARITIES)
        self.level = "ordinal" if similarity == "spearman" else "ratio"
        self.n_samples = integer("n_samples", n_samples, least=0, hint="n_samples=50, or 0 for no noise.")
        self.noise = number("noise", noise, above=0, hint="noise=0.1, a tenth of the range of an image.")
        self.seed = integer("seed", seed, least=0, hint="seed=0.")
        self.return_curves = boolean("return_curves", return_curves)

    def _check(self, samples: Samples, model: Answers, explain_func: Callable[..., np.ndarray] | None) -> None:
        check_explains(explain_func)

    def _batch(self, samples: Samples, answer: Answers, explain: Explainer) -> Batch:
        """Explained by the model as it is; `explain` explains it as it is then."""
        explain = self._repeatable(explain)
        batch = super()._batch(replace(samples, a_batch=None), answer, explain)

        def again(classes: Tensor) -> Tensor:
            return to_tensor(self._of_randomised(explain(samples.x_batch, classes.cpu().numpy())), batch.inputs.device)

        return replace(batch, explain=again)

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        compare, generator = SIMILARITIES[self.similarity], torch.Generator().manual_seed(self.seed)
        parts, found = self._parts(batch), {}
        for together in [parts] if self.order == "top_down" else [[part] for part in parts]:
            with weights_kept([parameter for _, weights in together for parameter in weights]):
                for name, weights in together:
                    shuffle(weights, generator)
                    found[name] = compare(batch.relevance, batch.explain(batch.target))
        return {"score": torch.stack([*found.values()]).mean(0), **(found if self.return_curves else {})}

    def _parts(self, batch: Batch) -> list[tuple[str, list[nn.Parameter]]]:
        """The weights of the head, of the blocks from the last on, and of the embedding."""
        model = batch.model.described
        with undisturbed(model):
            images = checked_inputs(batch.inputs.to(placement(model)[1]), model)
            return [*weights_of_blocks(model, stream_of(model, images, ()), images, ()).items()][::-1]

    def _repeatable(self, explain: Explainer) -> Explainer:
        """The same random numbers in each call; the mean over noisy copies of the images, if there are any."""

        def mean(inputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
            maps = []
            for copy in self._copies(inputs):
                with torch.random.fork_rng():
                    torch.manual_seed(self.seed)
                    maps.append(np.asarray(explain(copy, classes)))
            return np.mean(maps, axis=0, dtype=maps[0].dtype)

        return mean

    def _copies(self, inputs: np.ndarray) -> list[np.ndarray]:
        if not self.n_samples:
            return [inputs]
        axes = tuple(range(1, inputs.ndim))
        deviation = self.noise * (inputs.max(axes, keepdims=True) - inputs.min(axes, keepdims=True))
        draws = np.random.default_rng(self.seed).standard_normal((self.n_samples, *inputs.shape[1:]))
        return [(inputs + deviation * draw).astype(inputs.dtype) for draw in draws]

    def _of_randomised(self, maps: np.ndarray) -> np.ndarray:  # shape: (n, 1, h, w)
        """Prepared as all maps are; those that rank nothing stay as they are."""
        found = one_channel(maps)
        rows = found.reshape(len(found), -1)
        if not (good := np.isfinite(rows).all(1)).all():
            got = f"otherwise in sample(s) {np.flatnonzero(~good)[:10].tolist()} of {len(found)}"
            raise InputError("Finite relevance of the randomised model too.", got, "another method or seed.")
        varied = rows.max(1) > rows.min(1)
        if varied.any():
            found[varied] = self._prepared(found[varied])
        return found
