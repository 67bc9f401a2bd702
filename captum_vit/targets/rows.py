"""One row of an output: a query of a detector, its box, a frame of a sound."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_vit.errors import TargetError
from captum_vit.models.output import tensor_of
from captum_vit.options import integer, kind_of
from captum_vit.targets.before_activation import box_logits, boxes_of
from captum_vit.targets.dense import Dense, at_each, no_such


class Row(Dense):
    """The scores of one row of an output (samples, rows, classes)."""

    row = "row"

    def __init__(self, model: nn.Module, number: int | None, output: str | int | None) -> None:
        super().__init__(model, output)
        self.what = f"The number of a {self.row}, an integer,"
        self.number = None if number is None else integer(self.row, number, 0, hint=f"{self.row}=0, the first one.")

    def of_row(self, scores: Tensor, places: Tensor | int) -> Tensor:  # shape: (B, K)
        found = places.flatten().tolist() if isinstance(places, Tensor) else [places]
        if isinstance(places, Tensor) and (places.is_floating_point() or len(found) != len(scores)):
            raise TargetError(f"{self.what} for each of {len(scores)} samples.", kind_of(places), "torch.tensor([3]).")
        if outside := [number for number in found if not 0 <= number < scores.shape[1]]:
            wanted = f"A {self.row} of an output of shape {tuple(scores.shape)}."
            raise TargetError(wanted, f"{self.row} {outside[0]}", f"{scores.shape[1] - 1} at most.")
        return at_each(scores.mT, places.view(-1, 1)) if isinstance(places, Tensor) else scores[:, places]

    def given(self, inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], Tensor | int]:
        return self.split(inputs) if self.number is None else (inputs, self.number)

    def forward(self, *inputs: Any) -> Tensor:  # shape: (B, K)
        given, places = self.given(inputs)
        output = self.model(*given)
        scores = tensor_of(output, self.output)
        if scores.dim() != 3:
            raise no_such(f"samples, a {self.row} in each row, and classes", scores, output, 3)
        return self.of_row(scores, places)


class Query(Row):
    """The class scores of one query of a detector: (B, K), such as DETR, YOLOS or Mask2Former.

    ``out[b, k] = scores[b, query, k]``; in DETR and its kin the last class is "no object". Which query found an object
    is in the model's own output. Whether they are logits of a softmax or of sigmoids is a detector's own business, so
    no probability is made of them. Costs the model's forward.

    Args:
        model: an object detector, or a segmenter with queries.
        query: its number; None: each sample has its own, (B,) integers as the last positional argument.
        output: which of several outputs, by its name or place: ``"class_queries_logits"`` of Mask2Former. None for
            the logits.

    Raises:
        TargetError: in the forward, a query that the output does not have.
        UnsupportedModelError: in the forward, an output that is not (samples, queries, classes).

    Example:
        >>> found = yolos(images).logits.softmax(-1)[..., :-1].amax(-1).argmax(1)  # doctest: +SKIP
        >>> DecompX(Query(yolos)).attribute(images, 17, additional_forward_args=found)  # doctest: +SKIP
    """

    row = "query"

    def __init__(self, model: nn.Module, query: int | None = None, *, output: str | int | None = None) -> None:
        super().__init__(model, query, output)
        self.raw_scores = True


class Box(Row):
    """Where the box of one query lies: (B, 4), the logits of its four numbers, before their sigmoid.

    What they mean is the model's business: in DETR, YOLOS and their kin the centre's x and y, width and height, by
    those of the picture. Boxes are found as the output of four numbers for each query that a sigmoid gives, in the
    very pass. What went into the sigmoid is explained: a plain gradient does not vanish there, and rules that hold
    parts of a network constant apply. Costs the model's forward.

    Args:
        model: an object detector.
        query: its number; None: each sample has its own, (B,) integers as the last positional argument.
        output: the name or the place of the boxes, where they are not found; one that no sigmoid gives is taken as
            it is.

    Raises:
        TargetError: in the forward, a query that the output does not have.
        UnsupportedModelError: in the forward, no such boxes, or several.

    Example:
        >>> LayerCDAM(Box(detr, 12)).attribute(images, target=3)  # which patches make the box high?  # doctest: +SKIP
    """

    row = "query"
    names = ("centre x", "centre y", "width", "height")

    def __init__(self, model: nn.Module, query: int | None = None, *, output: str | int | None = None) -> None:
        super().__init__(model, query, output)
        self.raw_scores = True

    def forward(self, *inputs: Any) -> Tensor:  # shape: (B, 4)
        given, places = self.given(inputs)
        return self.of_row(box_logits(self.model, given, self.output), places)


class Frame(Row):
    """The scores of one frame of a sound: (B, K), of a model with CTC such as Wav2Vec2 or HuBERT.

    ``out[b, k] = logits[b, frame, k]`` for letter, or token, k. Costs the model's forward.

    Args:
        model: it gives logits (B, T, K) for T frames.
        frame: its number; None: each sample has its own, (B,) integers as the last positional argument.
        output: which of several outputs, by its name or place. None for the logits.

    Raises:
        TargetError: in the forward, a frame that the output does not have.
        UnsupportedModelError: in the forward, an output that is not (samples, frames, classes).

    Example:
        >>> InputXGradient(Frame(wav2vec2, 41)).attribute(sound, target=7)  # doctest: +SKIP
    """

    row = "frame"

    def __init__(self, model: nn.Module, frame: int | None = None, *, output: str | int | None = None) -> None:
        super().__init__(model, frame, output)


def box_of(target: Query | Box, *inputs: Any) -> Tensor | None:  # shape: (B, 4)
    """Where the box of a query lies, of a model that gives one output of boxes; costs the model's forward."""
    given, places = target.given(inputs)
    boxes, _ = boxes_of(target.model, given, target.output if isinstance(target, Box) else None)
    return target.of_row(boxes[0][0], places) if len(boxes) == 1 else None
