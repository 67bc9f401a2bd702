"""Between torch, on this side, and numpy, on Quantus's.

`wrap` makes any vision classifier acceptable to Quantus; `explain_func` turns any Captum method into the
function that Quantus calls when it wants a map. Arrays become tensors, and tensors arrays, nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_vit.attr.base import forward_args
from captum_vit.errors import InputError, OptionError
from captum_vit.extras import extra
from captum_vit.models.library import n_outputs
from captum_vit.models.output import probabilities, probability_of, scores_of
from captum_vit.options import function, shown
from captum_vit.targets import TargetModule, TwoClasses
from captum_vit.targets.classifiers import two_classes
from captum_vit.tokens import Box, placed
from quantus_metrics.cells import box_under, patches_of

with extra("quantus"):
    from quantus.helpers.enums import ScoreDirection
    from quantus.metrics.base import Metric

ExplainFunc = Callable[..., np.ndarray]

_QUANTUS_OWN = ("method", "device")  # what Quantus adds to the keywords of every explain function


def explain_func(factory: Callable[[nn.Module], Attribution] | Attribution) -> ExplainFunc:
    """A Captum method as Quantus wants it.

    Quantus also explains randomised copies of the model, so it needs a recipe rather than a method that is
    bound to one model already.

    Args:
        factory: takes a model and gives a Captum ``Attribution``; a class will do. The model arrives as
            Quantus got it, so a Hugging Face model arrives inside the module that `wrap` made. An instance
            is accepted too, and raises for any model but its own.

    Returns:
        ``f(model, inputs, targets, **kwargs)`` for ``quantus.evaluate`` and for every metric. ``inputs``
        ``(B, C, H, W)`` and ``targets`` ``(B,)`` are arrays; the result is an array ``(B, 1, H, W)``:
        channels summed, patch grids enlarged by repeating (nearest) to the pixels that the patches read, signs kept,
        zero where none is read. ``method`` and
        ``device``, which Quantus adds, are dropped (the map is computed where the model is); other keywords
        reach ``attribute``. For inputs that are no images the map is handed on as it is.

    Raises:
        InputError: an instance that belongs to another model, or a map that is no picture of the inputs.

    Example:
        >>> explain = explain_func(LayerCDAM)
        >>> quantus.evaluate(metrics, {"CDAM": explain}, model, x, y, explain_func_kwargs={})
    """

    if not isinstance(factory, Attribution):
        function("factory", factory, hint="explain_func(LayerCDAM).")

    def explain(model: nn.Module, inputs: Any, targets: Any, **kwargs: Any) -> np.ndarray:
        wrap(model)  # refuses what is no module
        method = _bound(factory, model)
        options = {name: value for name, value in kwargs.items() if name not in _QUANTUS_OWN}
        device, dtype = placement(model)
        x = to_tensor(inputs, device, dtype)
        relevance = method.attribute(x, target=to_tensor(targets, device).long(), **options)
        relevance = relevance[0] if isinstance(relevance, tuple) else relevance
        if x.dim() != 4:
            return to_array(relevance)
        return to_array(pixels_of(relevance, model, x, forward_args(options.get("additional_forward_args"))))

    return explain


def check_explains(explain: Any) -> None:
    """Maps can be made."""
    if not callable(explain):
        raise InputError(
            "Maps, or a function that makes them.",
            f"no such maps and explain_func {shown(explain)}",
            "explain_func=quantus_metrics.explain_func(LayerCDAM).",
        )


def sign_of(metric: Any) -> int:
    """1 where higher scores are better, -1 where lower ones are."""
    if not isinstance(metric, Metric):
        raise OptionError("A metric of this package or of Quantus, an instance.", shown(metric), "metric=Deletion().")
    return 1 if metric.score_direction == ScoreDirection.HIGHER else -1


def wrap(model: nn.Module) -> nn.Module:
    """A module that answers in plain logits, for hosts that expect a tensor.

    Quantus feeds float32 arrays and wants an array back; Hugging Face models return an object, and
    half-precision models take no float32. The returned module casts floating inputs to the model's dtype,
    takes the logits out, and gives them as float32 (float64 for float64 models). It holds the model itself,
    as ``.model``, in the mode it is in, so our methods find the transformer inside; wrapping twice wraps once.
    Costs nothing beyond the model's forward.

    Raises:
        TraceError: in the forward, if there is no tensor of scores in what the model returns.

    Example:
        >>> quantus.PixelFlipping()(model=wrap(hf_model), x_batch=x, y_batch=y, a_batch=maps)
    """
    return model if isinstance(model, _Wrapped) else _Wrapped(model)


def logits(
    output: Any,  # shape: (B, n_classes), or an object that holds such scores
) -> Tensor:  # shape: (B, n_classes)
    """The scores in what a model returns; half precision is widened to float32."""
    scores = output if isinstance(output, Tensor) else scores_of(output)
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def of_classes(model: nn.Module) -> nn.Module:
    """The model; a classifier whose head has one logit, as one of two classes."""
    return TwoClasses(model) if n_outputs(model) == 1 and probability_of(model) is not None else model


def n_classes_of(model: nn.Module) -> int | None:
    """How many classes a model scores, where that is known without running it."""
    return 2 if isinstance(model, TwoClasses) else n_outputs(model)


def class_scores(
    outputs: Tensor,  # shape: (n, n_classes), or (n, 1) or (n,) of one logit
    made_by: str | None,  # see `captum_vit.models.output.probability_of`
) -> Tensor:  # shape: (n, n_classes)
    """The scores of classes; where the model has one logit, those of the two classes that it stands for."""
    if made_by is None:
        refuse_single(outputs)
    return two_classes(outputs) if _single(outputs) else outputs


def class_probabilities(
    outputs: Tensor,  # shape: (n, n_classes), or (n, 1) or (n,) of one logit
    made_by: str | None,
) -> Tensor:  # shape: (n, n_classes)
    """The probabilities of classes, as the model means them; a softmax of raw scores, where one is wanted."""
    kind = "sigmoid" if _single(outputs) else made_by or "softmax"
    return probabilities(class_scores(outputs, made_by), kind)


def refuse_single(outputs: Tensor) -> None:
    """One output is no class, unless the model is a classifier and this its logit."""
    if _single(outputs):
        raise InputError(
            "Outputs of classes, or one logit of a model that is known to be a classifier.",
            f"outputs of shape {tuple(outputs.shape)}",
            "captum_vit.TwoClasses(model) for the logit of a classifier, with classes 0 and 1; for any other score a "
            "metric that reads scores, such as Fidelity.",
        )


def _single(outputs: Tensor) -> bool:
    return outputs.dim() == 1 or outputs.shape[-1] == 1


def placement(model: nn.Module) -> tuple[torch.device, torch.dtype | None]:
    """Where a model lives, and the dtype of its floating weights; (CPU, None) if it has none."""
    weights = [*model.parameters(), *model.buffers()]
    dtype = next((w.dtype for w in weights if w.is_floating_point()), None)
    return (weights[0].device if weights else torch.device("cpu")), dtype


def to_tensor(
    array: Any,  # shape: any
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:  # same shape, never sharing memory with the array
    """From numpy to torch. `dtype` is for floating values only: numbers that count keep their own."""
    if isinstance(array, Tensor):
        found = array.detach().clone()
    else:
        found = torch.from_numpy(np.array(numbers(array), order="C"))
    return found.to(device, dtype if found.is_floating_point() else None)


def numbers(given: Any) -> np.ndarray:
    """An array of numbers.

    Raises:
        InputError: words, nothing, or rows of different lengths.
    """
    try:
        found = np.asarray(given)
    except ValueError as error:
        raise InputError("An array of numbers.", str(error), "rows of one shape.") from error
    if found.dtype.kind not in "biuf":
        raise InputError("An array of numbers.", shown(given), "the pixels or ids, not names of files or texts.")
    return found


def to_array(tensor: Tensor) -> np.ndarray:
    """From torch to numpy: float32, or float64 where it is float64 already."""
    wide = tensor if tensor.dtype == torch.float64 else tensor.float()
    return wide.detach().cpu().numpy()


def to_pixels(
    relevance: Tensor,  # shape: (B, h, w) or (B, C, h, w)
    size: tuple[int, ...],  # of the inputs: (B, C, H, W)
    box: Box | None = None,
) -> Tensor:  # shape: (B, 1, H, W)
    """One number per pixel: channels summed, each patch repeated over its pixels, of the whole image or of a box in it.

    Repeating keeps the ranking of the patches, ties included; a bilinear enlargement would make up an order
    inside them.
    """
    if relevance.dim() not in (3, 4) or len(relevance) != size[0]:
        raise InputError(
            f"A map for each of {size[0]} images: (B, h, w) or (B, C, h, w).",
            f"relevance of shape {tuple(relevance.shape)}",
            'a method that gives pictures; ours do with output="grid".',
        )
    maps = relevance.unsqueeze(1) if relevance.dim() == 3 else relevance.sum(1, keepdim=True)
    height, width = size[-2:]
    if maps.shape[-2:] == (height, width):
        return maps
    return placed(maps, box or (0, 0, height, width), (height, width), "nearest-exact")


def pixels_of(
    relevance: Tensor,  # shape: (B, h, w) or (B, C, h, w)
    model: nn.Module,
    x: Tensor,  # shape: (B, C, H, W)
    args: tuple[Any, ...] = (),
) -> Tensor:  # shape: (B, 1, H, W)
    """`to_pixels`, each patch over the pixels that it reads; costs an embedding where maps are not of pixels."""
    size, image = (relevance.shape[-2], relevance.shape[-1]), (x.shape[-2], x.shape[-1])
    return to_pixels(relevance, tuple(x.shape), box_under(lambda: patches_of(model, x, args), size, image))


class _Wrapped(TargetModule):
    """See `wrap`. What the model is, it stays: its scores as raw as they were, its tower the one it named."""

    raw_scores = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, getattr(model, "tower", None))

    def forward(self, inputs: Tensor, **kwargs: Any) -> Tensor:
        _, dtype = placement(self.model)
        return logits(self.model(inputs.to(dtype) if inputs.is_floating_point() else inputs, **kwargs))


def _bound(factory: Any, model: nn.Module) -> Attribution:
    """The method for this model: made by the factory, or the instance itself if the model is its own."""
    if not isinstance(factory, Attribution):
        made = factory(model)
        if isinstance(made, Attribution):
            return made
        raise OptionError("A function of the model that gives a Captum Attribution.", shown(made), "LayerCDAM.")
    explained = factory.forward_func
    inside = set(explained.modules()) if isinstance(explained, nn.Module) else {explained}
    if inside & {model, model.model if isinstance(model, _Wrapped) else model}:
        return factory
    raise InputError(
        "The model that the method was made for.",
        f"{type(factory).__name__} around another model (Quantus passes randomised copies)",
        "a factory instead of an instance, as in explain_func(lambda model: Method(model)).",
    )
