"""The effective linear map of an image, averaged over small movements and noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial, reduce
from itertools import islice
from typing import Any

import torch
from captum._utils.progress import NullProgress, progress
from captum._utils.typing import TargetType
from captum.log import log_usage
from torch import Generator, Tensor, nn

from captum_vit.attr.base import TokenAttribution, warn_if_zero
from captum_vit.inputs.movements import Movement, drawn
from captum_vit.models.transformer import Transformer
from captum_vit.options import boolean, integer, number, one_of
from captum_vit.trace.modes.completeness import COMPLETE
from captum_vit.trace.modes.rules import under
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.record.rollout import gradient_x_input
from captum_vit.trace.replay.accepted import refuse_incomplete, refuse_own_derivatives
from captum_vit.trace.replay.gradient import gradient_of
from captum_vit.trace.replay.subnetwork import Network
from captum_vit.trace.run.describe import described
from captum_vit.trace.run.finite import refuse_not_finite
from captum_vit.trace.run.layouts import layout_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.score import select, target_of_rows
from captum_vit.trace.run.state import refuse_opaque, undisturbed, widened

NORMAL = 1.4826  # the standard deviation of normal numbers by their median absolute deviation
OUTLYING = 2.5  # deviations from the median


class DAVE(TokenAttribution):
    r"""Evidence of each pixel for the target, by a linear map that is averaged over small movements of the image.

    .. math::
        S = x \odot \frac1n \sum_{k=1}^n (1 - t_k)\, A_k^\top\, w_c(z_k), \qquad
        z_k = (1 - t_k)\,A_k x + \sqrt{1 - (1 - t_k)^2}\;\varepsilon_k

    ``w_c(z)`` is the gradient of the target's score at the image ``z`` with attention, norms and gates held constant:
    the row of the linear map that the model is at ``z``, without the part of the gradient that is the change of this
    map. :math:`A_k` moves the image (a flip, a turn, a change of size, a shift), and its transpose moves the map back;
    what depends on where the grid of patches lies is averaged out. The noise :math:`\varepsilon_k` smooths, with
    :math:`t_k` in even steps from 0 to ``noise``.

    Signed, in logits. Without movements and noise it is gradient x input at the pixels under the rule, exactly. With
    movements and ``average="mean"`` its pixels sum to the mean score of the moved images, less what biases and
    positions contribute there; with noise also less what the noise contributes. The draws depend on ``seed`` only, and
    are the same for all images, so an image has the same map in every batch.

    ``output="pixels"`` is the map itself, (B, 1, H, W), channels summed; ``"grid"`` and ``"tokens"`` sum its pixels
    over each patch, so that it stands beside other methods, with zero for CLS.

    Only images (B, C, H, W) are moved, and noise is in units of their pixels. Of other inputs there is one sample,
    as it is: gradient x input at the frames of a film, and of a text at the tokens that enter the first block, which
    is :class:`DecompX`.

    Costs n forward and n backward passes, in the memory of ``perturbations_per_eval`` of them; ``average="mad"`` keeps
    n maps of all channels.

    Departs from the authors' code, which has movements and noise of its own for each image, and then takes positive
    evidence only, blurs it half, filters it bilaterally, and divides it by its largest value: such steps are for the
    reader's eye, and take sign and scale. The mean is equation 8 of the paper; the code leaves out outliers
    (``average="mad"``). Its noise is tuned for each model, 0.3 for ViT-B/16, 0.7 for DeiT-B, 0.9 for DeiT III: see
    *Options chosen on held-out samples* of the benchmark. Its flips suit photographs; letters and digits want
    ``flip=0``.

    Args:
        forward_func: the model, or a target module around it.
        rule: ``"frozen"``, or ``"libra"``, which differs from it in gated units.
        n_samples: n; the paper has 50.
        flip: how probable a flip is.
        rotate: the largest turn, in degrees.
        scale: the largest change of size, as a share of it.
        shift: the largest shift, as a share of width and of height.
        noise: the largest t, from 0 to 1; the image should be normalised, as the noise is.
        average: ``"mean"``, or ``"mad"``: for each entry without samples that are further from its median than 2.5
            deviations, by the median absolute deviation.
        seed: of movements and noise.
        output: see above and :class:`TokenAttribution`.

    Raises:
        OptionError: an option that is out of its range.
        UnsupportedModelError: the rule does not cover all that the model does.
        InputError: the image is not one that the patches tile; not for ``output="pixels"``.

    Source: Wróbel et al., DAVE: Distribution-aware Attribution via ViT Gradient Decomposition, and the authors' code.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        *,
        rule: str = "frozen",
        n_samples: int = 20,
        flip: float = 0.5,
        rotate: float = 20.0,
        scale: float = 0.1,
        shift: float = 0.1,
        noise: float = 0.3,
        average: str = "mean",
        seed: int = 0,
        output: str = "grid",
    ) -> None:
        super().__init__(forward_func, output=output)
        self.rule = one_of("rule", rule, COMPLETE)
        self.n_samples = integer("n_samples", n_samples, hint="n_samples=20, or 50 as in the paper.")
        self.flip = number("flip", flip, least=0, most=1, hint="flip=0.5, or 0 for none.")
        self.rotate = number("rotate", rotate, least=0, most=180, hint="rotate=20.0, in degrees.")
        self.scale = number("scale", scale, least=0, below=1, hint="scale=0.1.")
        self.shift = number("shift", shift, least=0, most=1, hint="shift=0.1, a tenth of the image.")
        self.noise = number("noise", noise, least=0, most=1, hint="noise=0.3, or 0 for none.")
        self.average = one_of("average", average, ("mean", "mad"))
        self.seed = integer("seed", seed, least=0, hint="seed=0.")

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: the linear map is multiplied by the image."""
        return True

    def want(self, transformer: Transformer) -> Want:
        return Want(grads=["tokens"], rule=self.rule)  # of a text

    def relevance(self, found: Record) -> Tensor:
        return gradient_x_input(found)[0]

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""Explain a batch of images; see :meth:`TokenAttribution.attribute`.

        Args:
            inputs: images (B, C, H, W); other inputs are not moved.
            target: the output to explain.
            additional_forward_args: further positional arguments of the model.
            perturbations_per_eval: how many samples of the whole batch run at once. The map is the same.
            show_progress: display a progress bar, counted in forward passes.
        """
        boolean("show_progress", show_progress)
        at_once = integer("perturbations_per_eval", perturbations_per_eval, hint="perturbations_per_eval=1.")
        with undisturbed(self.model):
            call = self._call(inputs, target, additional_forward_args)
            image = call.inputs[0]
            if not image.is_floating_point():
                words = self._record(inputs, target, additional_forward_args)
                return self._finish(self.relevance(words), words.layout, inputs)
            call = described(call)
            refuse_opaque(call.modules)
            refuse_incomplete(call, call.transformer.blocks[0].entrance, self.rule)
            layout = None if self.output == "pixels" and image.dim() == 4 else layout_of(call)
            bar = progress if show_progress else NullProgress
            slopes = self._slopes(call, target, at_once, bar)
            products = image * self._averaged(slopes)
            if layout is not None:
                return self._finish(layout.from_pixels(products), layout, inputs)
            pixels = products.sum(1, keepdim=True)
            refuse_not_finite(pixels, "map")
            warn_if_zero(pixels, type(self).__name__)
            return (widened(pixels),) if isinstance(inputs, tuple) else widened(pixels)

    def _slopes(
        self, call: Pass, target: TargetType, at_once: int, bar: Any
    ) -> Iterator[Tensor]:  # shape of each: (m, B, C, H, W)
        """The linear maps (1 - t) A^T w(z), some samples at a time."""
        image, batch, network = call.inputs[0], len(call), Network(call.model)
        samples = self._samples(image) if image.dim() == 4 else iter([_as_it_is])
        n = self.n_samples if image.dim() == 4 else 1
        with bar(desc=self.get_name(), total=math.ceil(n / at_once)) as shown:
            while some := list(islice(samples, at_once)):
                rows = torch.arange(batch, device=image.device).repeat(len(some))
                copies = call.of(rows)
                with torch.enable_grad():
                    leaf = copies.inputs[0].detach().requires_grad_()
                    z = torch.cat([moved(x) for moved, x in zip(some, leaf.split(batch), strict=True)])
                    with under(self.rule):
                        scores = network(z, *copies.inputs[1:], *copies.args)
                    value = select(scores, target_of_rows(target, rows))
                refuse_own_derivatives(call, call.transformer.blocks[0].entrance, self.rule, scores)
                yield gradient_of(value, leaf).unflatten(0, (-1, batch))
                shown.update()

    def _samples(self, image: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
        """Each movement with its noise, the same for all images of a batch."""
        generator = Generator().manual_seed(self.seed)
        for t in torch.linspace(0, self.noise, self.n_samples, dtype=torch.float64).tolist():
            move = drawn(generator, flip=self.flip, turn=self.rotate, scale=self.scale, shift=self.shift)
            noise = torch.randn(image.shape[1:], generator=generator, dtype=torch.float64) if self.noise else None
            yield partial(_noisy, move, t, None if noise is None else noise.to(image))

    def _averaged(self, slopes: Iterator[Tensor]) -> Tensor:  # shape: (B, C, H, W)
        if self.average == "mean":
            total, n = reduce(_added, ((some.sum(0), len(some)) for some in slopes))
            return total / n
        every = torch.cat(list(slopes))
        off = every - every.median(0).values
        kept = off.abs() <= OUTLYING * NORMAL * off.abs().median(0).values
        return (every * kept).sum(0) / kept.sum(0)


def _added(one: tuple[Tensor, int], other: tuple[Tensor, int]) -> tuple[Tensor, int]:
    return one[0] + other[0], one[1] + other[1]


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _noisy(move: Movement, t: float, noise: Tensor | None, x: Tensor) -> Tensor:
    """The image moved, and t of it replaced by noise, so that its spread stays."""
    moved = move(x)
    return moved if noise is None or t == 0 else (1 - t) * moved + math.sqrt(1 - (1 - t) ** 2) * noise
