"""The variant of VTranM that goes by the name of TokenTM: what tells it apart, and what contradicts it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import captum_vit as cv
from captum_vit.errors import OptionError
from tests.references.models import reference_images, reference_vit


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "TokenTM"},
        {"variant": "tokentm", "score": "prob"},
        {"variant": "tokentm", "length": False},
        {"variant": "tokentm", "direction": False},
        {"variant": "tokentm", "feed_forward": False},
        {"variant": "tokentm", "aggregate": False},
        {"score": "softmax"},
    ],
)
def test_contradictions_are_refused(options: dict) -> None:
    with pytest.raises(OptionError):
        cv.VTranM(reference_vit(), **options)


def test_tokentm_differentiates_the_logit() -> None:
    model, images = reference_vit(), reference_images()
    said, asked = (cv.VTranM(model, variant="tokentm", score=score) for score in ("auto", "logit"))
    assert torch.equal(said.attribute(images, target=1), asked.attribute(images, target=1))
    shifted = reference_vit()  # a constant on every logit moves no gradient of a logit
    nn.init.constant_(shifted.head.bias, 7.0)
    torch.testing.assert_close(
        cv.VTranM(shifted, variant="tokentm").attribute(images, target=1), said.attribute(images, target=1)
    )


def test_tokentm_needs_no_output_projection() -> None:
    """The paper's form refuses heads that something else mixes; this one reads streams alone."""
    model, images = reference_vit(), reference_images()
    for block in model.blocks:
        block.attn.norm = nn.LayerNorm(24).double().eval()
    with pytest.raises(cv.UnsupportedModelError):
        cv.VTranM(model).attribute(images, target=1)
    assert cv.VTranM(model, variant="tokentm").attribute(images, target=1).isfinite().all()


def test_tokentm_is_another_map_than_the_papers() -> None:
    model, images = reference_vit(), reference_images()
    ours = cv.VTranM(model, score="logit").attribute(images, target=1)
    theirs = cv.VTranM(model, variant="tokentm").attribute(images, target=1)
    assert not torch.allclose(ours, theirs, rtol=1e-2)
