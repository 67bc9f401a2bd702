"""VTranM: what must hold of it, and of the variant that goes by the name of TokenTM."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.errors import OptionError
from tests.captum_vit.attr.test_identities import Hiding
from tests.captum_vit.attr.test_twins import bert_samples, vit_samples
from tests.references import vtranm as twin
from tests.references.forward import forward
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


@pytest.mark.parametrize("options", [{}, {"length": False}, {"direction": False}], ids=str)
@pytest.mark.parametrize("samples", [vit_samples, bert_samples])
def test_transformation_weights_equal_their_twin(samples: Callable, options: dict[str, bool]) -> None:
    """Of every sub-layer; of padding where it is not weighed 0 they are of no use."""
    model, inputs, args, singles = samples()
    found = cv.VTranM(model, **options).weights(inputs, args or None)
    for i, sample in enumerate(singles):
        p = forward(model, sample)
        attention, feed_forward = twin.transformation_weights(p, **options)
        for layer in range(len(model.blocks) if hasattr(model, "blocks") else model.config.num_hidden_layers):
            torch.testing.assert_close(found.attention[layer][i][:, p.real], attention[layer][:, p.real])
            torch.testing.assert_close(found.feed_forward[layer][i][p.real], feed_forward[layer][p.real])


def test_weights_without_a_feed_forward_and_none_at_all() -> None:
    model, images = reference_vit(), reference_images()
    assert cv.VTranM(model, feed_forward=False).weights(images).feed_forward == ()
    assert cv.VTranM(model, variant="tokentm").weights(images).attention[0].shape == (2, 1, 17)
    for nothing in ({"aggregate": False}, {"length": False, "direction": False}):
        with pytest.raises(OptionError, match="weights of 1"):
            cv.VTranM(model, **nothing).weights(images)


# -- what must hold of the paper's form, whatever the weights --------------------------------------------------


def tokens_of(model: nn.Module, **options) -> Tensor:
    return cv.VTranM(model, output="tokens", **options).attribute(reference_images(), target=1)


def without_attention(model: nn.Module) -> nn.Module:
    """No head writes anything: E~ = 0."""
    with torch.no_grad():
        for block in model.blocks:
            block.attn.proj.weight.zero_()
    return model


@pytest.mark.filterwarnings("ignore::captum_vit.errors.ZeroMapWarning")
def test_where_no_head_writes_no_patch_counts() -> None:
    """U = I for attention; and feed-forward maps are diagonal, so they open no way between tokens."""
    found = tokens_of(without_attention(reference_vit()))
    assert (found[:, 1:] == 0).all() and (found[:, 0] > 0).all()


def test_the_start_is_the_length_of_the_tokens() -> None:
    """With every update the identity, what is left is C0: lengths; of a mean-pooled model what the head reads."""
    model, images = without_attention(reference_vit()), reference_images()
    model.global_pool = "avg"
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.fc2.weight.zero_()
            block.mlp.fc2.bias.zero_()
        x_0 = model._pos_embed(model.patch_embed(images))
        for_the_target = (model.forward_features(images)[:, 1:] @ model.head.weight[1]).clamp(min=0)
    row = for_the_target / for_the_target.sum(1, keepdim=True)
    assert row.any(1).all()
    torch.testing.assert_close(tokens_of(model)[:, 1:], row, rtol=1e-10, atol=1e-14)
    plain = tokens_of(model, length=False, feed_forward=False)[:, 1:]
    torch.testing.assert_close(plain, row, rtol=1e-10, atol=1e-14)
    model.global_pool = "token"
    torch.testing.assert_close(tokens_of(model)[:, 0], x_0[:, 0].norm(dim=-1), rtol=1e-10, atol=1e-14)


def test_a_feed_forward_reaches_no_token_that_attention_does_not() -> None:
    """A patch that nobody attends to in any block gets nothing, with feed-forward maps or without."""
    model = Hiding(reference_vit(), hidden=[4, 9]).eval()
    for feed_forward in (True, False):
        found = tokens_of(model, feed_forward=feed_forward)
        assert (found[:, [4, 9]] == 0).all() and (found[:, [3, 5]] > 0).all()
    assert not torch.allclose(tokens_of(model), tokens_of(model, feed_forward=False), rtol=1e-2)


def test_of_two_classes_a_probability_is_their_margin_scaled() -> None:
    """The slope of p is p (1 - p) times that of the margin; one block's update is linear in it."""
    model, images = reference_vit(), reference_images()
    model.blocks, model.head = model.blocks[:1], nn.Linear(24, 2, dtype=torch.float64)
    model.eval()
    p = model(images).softmax(-1)[:, 1].detach()
    margin = cv.VTranM(cv.Margin(model, 1, 0), output="tokens").attribute(images)
    torch.testing.assert_close(
        tokens_of(model, score="prob")[:, 1:], margin[:, 1:] * (p * (1 - p)).unsqueeze(1), rtol=1e-10, atol=1e-14
    )
