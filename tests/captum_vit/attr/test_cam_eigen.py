"""TokenEigenCAM beside the singular vectors of numpy, as pytorch-grad-cam takes them; its sign; refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import captum_vit as cv
from tests.contracts.closeness import assert_close
from tests.references.models import reference_images, reference_vit


def projected(tokens: Tensor) -> Tensor:  # (N, D) -> (N,)
    """What pytorch-grad-cam makes of the patches of an image, but for the sign."""
    centred = tokens.numpy() - tokens.numpy().mean(0)
    return torch.as_tensor(centred @ np.linalg.svd(centred)[2][0])


@pytest.mark.parametrize("layer", [None, 0, "blocks.0", "norm"])
def test_it_is_the_projection_on_the_first_singular_vector(layer: object) -> None:
    model, images = reference_vit(layer_scale=True), reference_images()
    seen: list[Tensor] = []
    at = {None: model.blocks[2].norm1, 0: model.blocks[0].norm1, "blocks.0": model.blocks[0], "norm": model.norm}[layer]
    handle = at.register_forward_hook(lambda module, args, out: seen.append(out.detach()))
    found = cv.TokenEigenCAM(model, layer).attribute(images)
    handle.remove()
    for one, tokens in zip(found.flatten(1), seen[-1][:, 1:], strict=True):
        wanted = projected(tokens)
        largest = wanted[wanted.abs().argmax()]
        assert_close(one, wanted * largest.sign(), "float64")
        assert one.max() == one.abs().max()


def test_a_layer_without_tokens_is_refused() -> None:
    with pytest.raises(cv.LayerError, match="sequence of tokens"):
        cv.TokenEigenCAM(reference_vit(), "head").attribute(reference_images())
