"""Boxes: how the prediction changes when a square goes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_vit.errors import InputError, OptionError
from captum_vit.options import IN_MEMORY, integer, integer_or_none
from captum_vit.tokens import Box
from captum_vit.trace.run.found import without_gradients
from quantus_metrics.bridge import logits, to_pixels
from quantus_metrics.cells import Size, extent

from .curve import target_score
from .remove import Blur, Model, Remover, bind_over, check_remover


def draw_boxes(
    image_size: Size,
    sides: Sequence[int],
    n_boxes: int = 100,
    seed: int = 0,
    step: int = 1,
) -> Tensor:  # shape: (S, n, 3): side, top and left of each box, in pixels
    """Square boxes at random places, `n_boxes` of each side, wholly within the image, every place as likely.

    The boxes depend only on the arguments, so every method and every image meets the same ones.

    Args:
        image_size: height and width in pixels.
        sides: in pixels, increasing.
        n_boxes: of each side.
        seed: of the draw; torch's global state is not touched.
        step: boxes begin at multiples of this many pixels. The patch size keeps patches whole.

    Raises:
        OptionError: sides that do not increase from 1, too few boxes, a step that divides neither sides nor image.
        InputError: a box that is larger than the image, or that fits in one place only.
    """
    height, width = image_size
    if not sides or min(sides) < 1 or not all(a < b for a, b in pairwise(sides)):
        raise OptionError("Sides of boxes that increase, from 1 on.", repr(list(sides)), "sorted(set(sides)).")
    integer("n_boxes", n_boxes, least=3, hint="n_boxes=100: a correlation of fewer than 3 is meaningless.")
    if any(length % integer("step", step, hint="step=1.") for length in (height, width, *sides)):
        raise OptionError(f"A step that divides {height}, {width} and every side.", repr(step), "step=1.")
    if sides[-1] > min(height, width) or sides[-1] == height == width:
        raise InputError(
            f"Boxes that can be moved within an image of {height} x {width} pixels.",
            f"a box of {sides[-1]} x {sides[-1]}",
            "smaller sizes, or a smaller patch_size.",
        )
    generator = torch.Generator().manual_seed(seed)

    def places(length: int, side: int) -> Tensor:
        return step * torch.randint((length - side) // step + 1, (n_boxes,), generator=generator)

    return torch.stack(
        [torch.stack([torch.full((n_boxes,), side), places(height, side), places(width, side)], 1) for side in sides]
    )


@without_gradients
def box_changes(
    model: Model,
    inputs: Tensor,  # shape: (B, C, H, W)
    target: Tensor,  # shape: (B,)
    boxes: Tensor,  # shape: (S, n, 3), of `draw_boxes`
    *,
    remover: Remover | None = None,
    step: int = 1,
    internal_batch_size: int | None = None,
    box: Box | None = None,
) -> Tensor:  # shape: (B, S, n)
    r"""What the target loses by each box, :math:`f_c(x) - f_c(x \setminus \text{box})`.

    No map is involved: one set of changes serves all methods that are measured on these images.

    Costs     one image pass per image and *different* box, and one for the whole image: at most S n + 1.

    Args:
        remover: how what is in a box goes away; a `Blur` by default.
        step: the pixels along a side of what can go as a whole; the patch size where tokens are dropped.
        internal_batch_size: images per forward pass; None takes as many as `inputs` has. Passes mix images and boxes.
        box: the pixels that steps divide; None is the image.

    Raises:
        InputError: scores that are not finite.
        TargetError: a target that the model does not have.
    """
    check_remover(remover)
    integer_or_none("internal_batch_size", internal_batch_size, hint=IN_MEMORY)
    nothing = boxes.new_zeros(1, 3)  # a box of side 0, which sorts first
    different, which = torch.cat([nothing, boxes.flatten(0, 1)]).unique(dim=0, return_inverse=True)
    box = box or (0, 0, inputs.shape[-2], inputs.shape[-1])
    different = (different - different.new_tensor([0, *box[:2]])).to(inputs.device) // step  # (J, 3)
    rows, columns = (torch.arange(length // step, device=inputs.device) for length in extent(box))

    answer = bind_over(box, remover or Blur(), model, inputs)
    found = []
    for views in torch.arange(len(different) * len(inputs), device=inputs.device).split(
        internal_batch_size or len(inputs)
    ):
        row = views % len(inputs)
        side, top, left = different[views // len(inputs)].unsqueeze(-1).unbind(1)  # (n, 1) each
        down, across = (rows >= top) & (rows < top + side), (columns >= left) & (columns < left + side)
        gone = down.unsqueeze(2) & across.unsqueeze(1)
        found.append(target_score(logits(answer(row, gone)), target[row]))
    scores = torch.cat(found).view(len(different), len(inputs))  # (J, B)
    if not scores.isfinite().all():
        raise InputError("Finite scores.", "NaN or infinity from the model", "inputs without NaN; float32.")
    changes = scores[0] - scores[which[1:].to(scores.device)]  # (S n, B)
    return changes.T.unflatten(1, boxes.shape[:2])


def box_sums(
    relevance: Tensor,  # shape: (B, h, w) or (B, 1, h, w), of patches or of pixels
    boxes: Tensor,  # shape: (S, n, 3)
    image_size: Size,
    box: Box | None = None,
) -> Tensor:  # shape: (B, S, n), float64 on the CPU
    """The relevance of the pixels in each box; each pixel of a patch has the patch's.

    Args:
        box: the pixels under a map of patches, padding included; None is the image.
    """
    box, image = box or (0, 0, *image_size), (0, 0, *image_size)
    up, back = min(box[0], 0), min(box[1], 0)  # the corner of all that may lie in a box
    size = max(box[2], image[2]) - up, max(box[3], image[3]) - back
    laid = image if tuple(relevance.shape[-2:]) == tuple(image_size) else box
    under = laid[0] - up, laid[1] - back, laid[2] - up, laid[3] - back
    pixels = to_pixels(relevance.detach().cpu().double(), (len(relevance), 1, *size), under).squeeze(1)
    corner = F.pad(pixels.cumsum(1).cumsum(2), (1, 0, 1, 0))  # the sum of all that lies above and to the left
    side, top, left = (boxes - boxes.new_tensor([0, up, back])).unbind(-1)
    bottom, right = top + side, left + side
    return corner[:, bottom, right] - corner[:, top, right] - corner[:, bottom, left] + corner[:, top, left]
