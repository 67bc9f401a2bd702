"""Captum's own gradient methods at the input, reduced to tokens so that they stand beside the others."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from captum.attr import Attribution, NoiseTunnel, Saliency
from torch import Tensor, nn

from captum_vit.attr.base import TokenAttribution
from captum_vit.errors import OptionError
from captum_vit.models.transformer import Transformer
from captum_vit.options import IN_MEMORY, boolean, function, integer, integer_or_none, known, number, shown
from captum_vit.trace.record.record import Record, Want
from captum_vit.trace.replay.subnetwork import Network, SubNetwork
from captum_vit.trace.run.score import plain_target, select
from captum_vit.trace.run.state import without_inference_mode

Factory = Callable[[nn.Module], Attribution]
SET = ("inputs", "target", "additional_forward_args", "return_convergence_delta", "method")
"""Arguments of ``attribute`` that are given here, would return more than a map, or have the name of one of ours."""


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

    PLUS and SkipPLUS sum it over the networks that start at each block, where it reads the tokens that enter the block.

    In ``METHODS`` are Captum's Saliency, InputXGradient and IntegratedGradients (50 steps from zeros) as they are, and
    SmoothGrad with 20 samples and noise of 0.7, 15 % of the range of an image normalised for ImageNet; images
    normalised otherwise want other noise. Captum's Saliency takes absolute values, for SmoothGrad before the
    average; ``abs=False`` leaves the sign, as in the SmoothGrad paper.

    Args:
        forward_func: the model, or a target module around it.
        method: makes the method from a forward function: a class of Captum's, or a function such as
            :func:`smooth_grad`.
        output: see :class:`TokenAttribution`.
        arguments: further arguments of the method's ``attribute``, such as ``n_steps``, ``stdevs`` or ``abs``; all but
            one that is called ``method``, as the rule of integration of IntegratedGradients is.

    Raises:
        OptionError: an argument that the method does not take, or of another type than its default.
        InputError: the image is not one that the patches tile.

    Source: Captum; Simonyan et al., Deep Inside Convolutional Networks; Sundararajan et al., Axiomatic Attribution
    for Deep Networks; Smilkov et al., SmoothGrad.
    """

    def __init__(
        self, forward_func: nn.Module, method: Factory = Saliency, *, output: str = "grid", **arguments: Any
    ) -> None:
        super().__init__(forward_func, output=output)
        self.method = function("method", method, hint="method=captum.attr.Saliency, the class itself.")
        self.arguments = self._accepted(arguments) if arguments else {}

    @property
    def taken(self) -> list[str]:
        """The further arguments that the method takes."""
        return list(arguments_of(self.method(Network(self.model))))

    def _accepted(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments that the method takes, each of the type of its default."""
        made = self.method(Network(self.model))
        defaults = arguments_of(made)
        if isinstance(made, NoiseTunnel) or not takes_any(made):
            known(getattr(self.method, "__name__", type(made).__name__), arguments, defaults)
        return {name: of_type(name, value, defaults.get(name)) for name, value in arguments.items()}

    def want(self, transformer: Transformer) -> Want:
        return Want(seen=["tokens"])

    def relevance(self, found: Record) -> Tensor:
        select(found.output, found.target)  # refuses a wrong target before Captum meets it
        if found.layout.grid is None:
            tokens = found.seen["tokens"][0]
            part = SubNetwork(self.model, found.transformer, 0, tokens.dtype)
            return self.on_network(part, tokens, found.target, *found.inputs, *found.args)
        image, *others = found.inputs
        found.layout.patch_size(image)  # refuses what patches do not tile before Captum works on it
        return found.layout.from_pixels(
            self.on_network(Network(self.model, image.dtype), image, found.target, *others, *found.args)
        )

    def on_network(self, network: Network, x: Tensor, target: Any, *args: Any) -> Tensor:  # shape: that of x
        """The method on a network and its input: the model, or a part of it, of which PLUS adds up several."""
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


def arguments_of(method: Attribution) -> dict[str, Any]:
    """What ``attribute`` of a method of Captum's may be given, with the defaults; under a NoiseTunnel both methods'."""
    parameters = inspect.signature(method.attribute).parameters.values()
    found = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in SET}
    return found | arguments_of(method.attribution_method) if isinstance(method, NoiseTunnel) else found


def takes_any(method: Attribution) -> bool:
    """Whether ``attribute`` hands further keywords on, so that their names are not known here."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(method.attribute).parameters.values())


def of_type(name: str, value: Any, default: Any) -> Any:
    """The value, if it is of the type of the default; whole numbers count something, so they are at least 1."""
    if isinstance(default, bool):
        return boolean(name, value)
    if isinstance(default, int):
        return integer(name, value, hint=f"{name}={default}.")
    if isinstance(default, float):
        return number(name, value, least=0, hint=f"{name}={default}.")
    if isinstance(default, str) and not isinstance(value, str):
        raise OptionError(f"`{name}` must be a text.", shown(value), f"{name}={default!r}.")
    return integer_or_none(name, value, hint=IN_MEMORY) if name.endswith("batch_size") else value


def one_batch_at_a_time(method: Attribution, batch: int) -> dict[str, int]:
    """Methods with many samples or steps take the memory of one."""
    limits = {"internal_batch_size": batch, "nt_samples_batch_size": 1}
    taken = inspect.signature(method.attribute).parameters
    return {name: limit for name, limit in limits.items() if name in taken}
