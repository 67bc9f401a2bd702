"""Captum's own gradient methods at the input, reduced to tokens so that they stand beside the others."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from captum.attr import Attribution, NoiseTunnel, Saliency
from torch import Tensor, nn

from captum_vit.attr.base import TokenAttribution
from captum_vit.models.transformer import Transformer
from captum_vit.options import function
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.replay.subnetwork import Network, SubNetwork
from captum_vit.trace.run.score import plain_target, select
from captum_vit.trace.run.state import without_inference_mode

Factory = Callable[[nn.Module], Attribution]


class InputGradient(TokenAttribution):
    r"""One of Captum's methods at the input, summed over the pixels of each patch.

    .. math:: S_i = \sum_{p \in \mathrm{patch}\ i} \sum_{\mathrm{channels}\ k} a_{kp}

    ``a`` (B, 3, H, W) is what the method finds for every pixel, such as :math:`|\partial f_c / \partial x_{kp}|`;
    of a film or a volume for every pixel of every frame or slice, and of a spectrogram for every entry.

    ``InputGradient(model, Saliency)`` runs ``Saliency(logits_of(model))`` on the images, and sums what it finds over
    the channels and pixels of every patch: sums, so that what is complete stays complete. Prefix tokens, under
    which no pixel lies, get zero. A text has no gradient at its ids: there the input are the tokens that enter the
    first block (embeddings, positions included), summed over channels.

    The sign is the method's. Costs one forward pass more than the method itself, in which grid and targets are
    found: two forward passes and a backward pass for Saliency and InputXGradient, about n of each for n steps or
    samples, taken one after the other in the memory of one. For the map of all pixels, call Captum's method on
    ``logits_of(model)``.

    In ``METHODS`` are Captum's Saliency, InputXGradient and IntegratedGradients (50 steps from zeros) as they are, and
    SmoothGrad with 20 samples and noise of 0.7, 15 % of the range of an image normalised for ImageNet; images
    normalised otherwise want other noise. Captum's Saliency takes absolute values, for SmoothGrad before the
    average; ``abs=False`` leaves the sign, as in the SmoothGrad paper.

    Args:
        forward_func: the model, or a target module around it.
        method: makes the method from a forward function: a class of Captum's, or a function such as
            :func:`smooth_grad`.
        output: see :class:`TokenAttribution`.
        arguments: further arguments of the method's ``attribute``, such as ``n_steps``, ``stdevs`` or ``abs``.

    Raises:
        InputError: the image is not one that the patches tile.

    Source: Captum; Simonyan et al., Deep Inside Convolutional Networks; Sundararajan et al., Axiomatic Attribution
    for Deep Networks; Smilkov et al., SmoothGrad.
    """

    def __init__(
        self, forward_func: nn.Module, method: Factory = Saliency, *, output: str = "grid", **arguments: Any
    ) -> None:
        super().__init__(forward_func, output=output)
        self.method = function("method", method, hint="method=captum.attr.Saliency, the class itself.")
        self.arguments = arguments

    def want(self, transformer: Transformer) -> Want:
        return Want(seen=["tokens"])

    def relevance(self, found: Record) -> Tensor:
        select(found.output, found.target)  # refuses a wrong target before Captum meets it
        if found.layout.grid is None:
            tokens = found.seen["tokens"][0]
            part = SubNetwork(self.model, found.transformer, 0, tokens.dtype)
            return self._at(part, tokens, found.target, *found.inputs, *found.args)
        image, *others = found.inputs
        found.layout.patch_size(image)  # refuses what patches do not tile before Captum works on it
        return found.layout.from_pixels(
            self._at(Network(self.model, image.dtype), image, found.target, *others, *found.args)
        )

    def _at(self, network: Network, x: Tensor, target: Any, *args: Any) -> Tensor:  # shape: that of x
        """The method on a network and its input."""
        method = self.method(network)
        leaf = without_inference_mode(x).detach().requires_grad_()
        found: Tensor = method.attribute(
            leaf,
            target=plain_target(target),
            additional_forward_args=args or None,
            **one_batch_at_a_time(method, len(x)) | self.arguments,
        )
        return found


def smooth_grad(network: nn.Module) -> Attribution:
    """SmoothGrad, as Captum composes it: Saliency takes absolute values before they are averaged.

    The CDAM paper compares with the mean of signed gradients: ``InputGradient(model, smooth_grad, abs=False)``.
    """
    return NoiseTunnel(Saliency(network))


def one_batch_at_a_time(method: Attribution, batch: int) -> dict[str, int]:
    """Methods with many samples or steps take the memory of one."""
    limits = {"internal_batch_size": batch, "nt_samples_batch_size": 1}
    taken = inspect.signature(method.attribute).parameters
    return {name: limit for name, limit in limits.items() if name in taken}
