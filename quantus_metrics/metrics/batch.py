"""What a metric is given: Quantus's arrays, checked, and the tensors made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from captum_vit.errors import InputError, TargetError
from captum_vit.models.modules import modules_of
from captum_vit.models.output import probability_of
from captum_vit.targets import TargetModule
from captum_vit.tokens import Box, placed
from captum_vit.trace.run.found import without_gradients
from captum_vit.trace.run.state import refuse_training
from quantus_metrics.bridge import (
    check_explains,
    class_probabilities,
    class_scores,
    n_classes_of,
    numbers,
    placement,
    refuse_single,
    to_tensor,
    wrap,
)
from quantus_metrics.cells import Patches, Size, box_under, patches_of
from quantus_metrics.perturb import Remover

from .passes import Passes, Shared

Reading = Literal["scores", "probabilities", "answers"]
"""What a metric wants of the outputs: as they are; as probabilities; or to see which classes the model answers with."""

Explainer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From images (n, C, H, W) and classes (n,) to maps (n, 1, h, w) or (n, h, w)."""


class Answers(TargetModule):
    """The model as a function of only images (n, C, H, W), to float scores (n, n_classes).

    Probabilities are those of `captum_vit.models.output.probability_of`. Where they or answers are wanted of a
    classifier with one logit it has two classes, as `captum_vit.TwoClasses` defines.

    Args:
        model: in evaluation mode, for only then is it one.
        reading: what is wanted of the outputs.
        predict_kwargs: further keywords of the model's forward.
        passes: what is known of the model's outputs, to be shared.

    Raises:
        InputError: passes of another model; in the forward, classes wanted of a single output that is no logit of a
            classifier.
    """

    explained: bool = False
    """Whether maps were made of the outputs before their number was seen."""

    def __init__(
        self,
        model: nn.Module,
        reading: Reading = "scores",
        predict_kwargs: dict[str, Any] | None = None,
        passes: Passes | None = None,
    ) -> None:
        wrapped = wrap(model)
        refuse_training(model, modules_of(model))
        if passes is not None:
            passes.check(wrapped, predict_kwargs)
        super().__init__(wrapped, getattr(wrapped, "tower", None))
        self.reading, self.predict_kwargs, self.passes = reading, predict_kwargs or {}, passes
        self.made_by, self.known = probability_of(wrapped), n_classes_of(model)
        self._patches: dict[Size, Patches | None] = {}  # by the size of an image

    def forward(self, inputs: Tensor) -> Tensor:
        return self.read(self.model(inputs, **self.predict_kwargs))

    def read(
        self,
        outputs: Tensor,  # shape: (n, n_classes)
    ) -> Tensor:  # shape: (n, n_classes)
        """What is wanted of the outputs."""
        if self.reading == "scores":
            return outputs
        if self.explained and self.known is None:
            refuse_single(outputs)  # its maps are of the output, not of a class
        return (class_scores if self.reading == "answers" else class_probabilities)(outputs, self.made_by)

    def whole(
        self,
        inputs: Tensor,  # shape: (n, C, H, W), or (n, T)
    ) -> Tensor:  # shape: (n, n_classes)
        """The same as a call; where passes are shared, run only if it is not known."""
        return self(inputs) if self.passes is None else self.read(self.passes.whole(inputs))

    def sharing(self, remover: Remover) -> Remover:
        """The remover; where passes are shared, one that runs only what is not known."""
        return remover if self.passes is None else Shared(remover, self.passes, self.read)

    def box_under(
        self,
        size: tuple[int, ...],  # of the maps
        inputs: Tensor,  # shape: (n, C, H, W)
        patch: Size | None = None,
        tokens: bool = False,
    ) -> Box:
        """See `quantus_metrics.cells.box_under`; one embedding for each size of images, whatever the maps."""
        image = (inputs.shape[-2], inputs.shape[-1])
        return box_under(lambda: self.patches(inputs), size, image, patch, tokens)

    def patches(self, inputs: Tensor) -> Patches | None:
        """See `quantus_metrics.cells.patches_of`; one embedding for each size of images."""
        image = (inputs.shape[-2], inputs.shape[-1])
        if image not in self._patches:
            self._patches[image] = patches_of(self.described, inputs)
        return self._patches[image]

    @property
    def described(self) -> nn.Module:
        """The module of which a description is remembered from call to call."""
        return self if self.predict_kwargs else getattr(self.model, "model", self)


@dataclass(frozen=True)
class Batch:
    """Some of the samples, as tensors on the model's device.

    Args:
        model: answers images (n, C, H, W) with float scores (n, n_classes): logits, or probabilities if the
            metric or the caller wants them. The transformer is inside.
        inputs: (B, C, H, W); or token ids (B, T), for metrics that take texts.
        target: (B,).
        relevance: (B, 1, h, w), channels summed; pixels, or patches. (B, T) of words.
        explain: makes maps like `relevance` of other classes, (B,) to (B, 1, h, w), by the caller's explain
            function.
        masks: (B, 1, H, W), the caller's `s_batch`, if any.
        custom: the caller's `custom_batch`, these samples only.
    """

    model: Answers
    inputs: Tensor
    target: Tensor
    relevance: Tensor
    explain: Callable[[Tensor], Tensor]
    masks: Tensor | None = None
    custom: Any = None

    def box(self, patch: Size | None = None, tokens: bool = False) -> Box:
        """The pixels under the maps, see `Answers.box_under`."""
        return self.model.box_under(tuple(self.relevance.shape[-2:]), self.inputs, patch, tokens)

    def on_images(self, mode: str) -> Tensor:  # shape: (B, 1, h, w)
        """The maps; where patches do not tile the images, at the size of these, each patch over its pixels."""
        size = (self.inputs.shape[-2], self.inputs.shape[-1])
        box = self.box()
        return self.relevance if box == (0, 0, *size) else placed(self.relevance, box, size, mode)


@dataclass(frozen=True)
class Samples:
    """The arrays of a call, under Quantus's names; each that is given has one entry per sample.

    Checked as a whole, before the model runs: a bad last map is found at once, not after an hour.

    Raises:
        InputError: no samples, no classes, entries that are not one per sample, or maps that are no pictures,
            not finite or constant.
        TargetError: classes that are no whole numbers from 0.
    """

    x_batch: np.ndarray  # shape: (N, C, H, W), or (N, T) token ids
    y_batch: np.ndarray  # shape: (N,)
    a_batch: np.ndarray | None = None  # shape: (N, h, w) or (N, C, h, w); (N, T)
    s_batch: np.ndarray | None = None  # shape: (N, 1, H, W)
    custom_batch: Any = None

    def __post_init__(self) -> None:
        if not len(self.x_batch):
            hint = "x_batch[None] for one sample without its batch dimension."
            raise InputError("At least one sample.", f"x_batch of shape {np.shape(self.x_batch)}", hint)
        if self.y_batch is None:
            raise InputError("One class per sample: y_batch.", "None", "the labels, or the model's own predictions.")
        for name, column in self._columns().items():
            if column is not None and _entries(column) != len(self):
                got = f"{_entries(column)} entries for {len(self)} samples"
                raise InputError(f"One entry of {name} per sample.", got, f"{name}[:n] and x_batch[:n] of the same n.")
        check_classes(self.y_batch)
        if self.a_batch is not None:
            check_maps(self.maps())

    def __len__(self) -> int:
        return len(self.x_batch)

    def __getitem__(self, rows: slice) -> Samples:
        columns: dict[str, Any] = {k: v if v is None else v[rows] for k, v in self._columns().items()}
        return Samples(**columns)

    def maps(self) -> np.ndarray:  # shape: (N, 1, h, w), or (N, T) of words
        """The relevance, channels summed."""
        return self._words() if self.texts else one_channel(self.a_batch)

    @property
    def texts(self) -> bool:
        """Whether the inputs are token ids (N, T)."""
        return self.x_batch.ndim == 2 and self.x_batch.dtype.kind in "iu"

    def inputs(self, model: nn.Module) -> Tensor:  # shape: (N, C, H, W), or (N, T)
        """The images, or token ids, where the model is."""
        inputs = to_tensor(self.x_batch, placement(model)[0])
        if self.texts:
            return inputs.long()
        return inputs if inputs.is_floating_point() else inputs.float()

    def tensors(
        self,
        answer: Answers,
        relevance: np.ndarray,  # shape: (N, 1, h, w)
        explain: Callable[[np.ndarray], np.ndarray],  # classes (N,) to maps (N, 1, h, w)
    ) -> Batch:
        """The same, on the model's device, with the model as a function of only images."""
        inputs = self.inputs(answer)
        device = inputs.device
        return Batch(
            model=answer,
            inputs=inputs,
            target=to_tensor(self.y_batch, device).long(),
            relevance=to_tensor(relevance, device),
            masks=None if self.s_batch is None else to_tensor(self.s_batch, device),
            custom=self.custom_batch,
            explain=lambda classes: to_tensor(explain(classes.cpu().numpy()), device),
        )

    def box(self, answer: Answers, patch: Size | None = None, tokens: bool = False) -> Box:
        """The pixels under the maps."""
        return answer.box_under(self.maps().shape[-2:], self[:1].inputs(answer), patch, tokens)

    def _words(self) -> np.ndarray:  # shape: (N, T)
        maps = np.asarray(self.a_batch)
        if maps.shape != self.x_batch.shape:
            hint = 'maps of these very ids, made with output="tokens".'
            raise InputError(f"Relevance of each token, {self.x_batch.shape}.", f"maps of shape {maps.shape}", hint)
        return maps

    def _columns(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _entries(column: Any) -> int:
    """How many; a number by itself has none."""
    return 0 if isinstance(column, str) or not np.ndim(column) else len(column)


def checked_batch(
    x_batch: Any,  # shape: (N, C, H, W), or (N, T) token ids
) -> np.ndarray:
    """The inputs as an array of finite numbers with the samples first."""
    found = numbers(x_batch.detach().cpu() if isinstance(x_batch, Tensor) else x_batch)
    if found.ndim not in (2, 4):
        hint = "x_batch[None] for one sample without its batch dimension." if found.ndim in (1, 3) else "one array."
        raise InputError("Images (N, C, H, W), or token ids (N, T).", f"an array of shape {found.shape}", hint)
    if not (good := np.isfinite(found).all(tuple(range(1, found.ndim)))).all():
        got = f"NaN or infinite ones in sample(s) {np.flatnonzero(~good)[:10].tolist()} of {len(found)}"
        raise InputError("Finite values in x_batch.", got, "leaving these samples out, or looking at what made them.")
    return found


def one_channel(
    relevance: Any,  # shape: (N, h, w) or (N, C, h, w)
) -> np.ndarray:  # shape: (N, 1, h, w)
    """Maps, their channels summed."""
    maps = np.asarray(relevance)
    if maps.ndim not in (3, 4) or not maps.size or maps.dtype.kind not in "iufb":
        raise InputError("Maps (N, 1, h, w) or (N, h, w).", f"maps of shape {maps.shape}", 'output="grid".')
    return maps[:, None] if maps.ndim == 3 else maps.sum(1, keepdims=True)


def check_classes(
    classes: Any,  # shape: (N,)
    n_classes: int | None = None,
    name: str = "y_batch",
) -> None:
    """Whole numbers from 0, one per sample, and below the number of classes where that is known."""
    found, hint = np.asarray(classes), "classes numbered from 0, as the model's head numbers them."
    if n_classes == 1:
        hint = "captum_vit.TwoClasses(model), whose classes are 0 and 1, for the one logit of a classifier."
    last = "..." if n_classes is None else str(n_classes - 1)
    if found.ndim != 1 or found.dtype.kind not in "iuf":
        got = f"shape {found.shape} of {found.dtype}"
        raise TargetError(f"One number of a class per sample: {name}.", got, "argmax(1) of one-hot rows.")
    wrong = ~((found >= 0) & (found == np.floor(found)))
    if n_classes is not None:
        wrong |= found >= n_classes
    if wrong.any():
        raise TargetError(
            f"Classes from 0 to {last} in {name}.",
            f"{found[wrong][:10].tolist()} for sample(s) {np.flatnonzero(wrong)[:10].tolist()}",
            hint,
        )


def check_maps(
    maps: np.ndarray,  # shape: (N, 1, h, w)
) -> None:
    """Finite, and not constant: what ranks nothing is refused."""
    rows = maps.reshape(len(maps), -1)
    for good, wanted in (
        (np.isfinite(rows).all(1), "Finite relevance."),
        (rows.min(1) < rows.max(1), "Relevance that varies within each image: a constant map ranks nothing."),
    ):
        if not good.all():
            bad = np.flatnonzero(~good)[:10].tolist()
            raise InputError(wanted, f"otherwise in sample(s) {bad} of {len(maps)}", "another method or target.")


@without_gradients
def whole_images(
    answer: Answers,
    inputs: Tensor,  # shape: (n, C, H, W)
    internal_batch_size: int | None = None,
) -> Tensor:  # shape: (n, n_classes)
    """The model's scores when nothing is gone: one image pass each, unless they are known."""
    return torch.cat([answer.whole(part) for part in inputs.split(internal_batch_size or len(inputs))])


def channels_first(
    x_batch: np.ndarray,  # shape: (N, C, H, W) or (N, H, W, C)
    channel_first: bool | None,
) -> np.ndarray:  # shape: (N, C, H, W)
    """Unless it is given, channels are last only where the last axis is the shortest of the three."""
    if channel_first is None:
        channel_first = x_batch.ndim != 4 or x_batch.shape[3] >= min(x_batch.shape[1:3])
    return x_batch if channel_first else np.moveaxis(x_batch, -1, 1)


def explainer(explain_func: Callable[..., np.ndarray] | None, model: nn.Module, kwargs: dict[str, Any]) -> Explainer:
    def explain(inputs: np.ndarray, classes: np.ndarray) -> np.ndarray:  # shape: (n, 1, h, w) or (n, h, w)
        check_explains(explain_func)
        return explain_func(model=model, inputs=inputs, targets=classes, **kwargs)  # type: ignore[misc]

    return explain
