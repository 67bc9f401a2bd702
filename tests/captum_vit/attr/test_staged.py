"""Methods on networks whose attention cannot be followed: which cell is credited, and what can be taken away."""

from functools import cache, partial

import pytest
import timm
import torch
from captum.attr import InputXGradient
from torch import Tensor, nn
from transformers import (
    FunnelConfig,
    FunnelForSequenceClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
)

import captum_vit as cv
from captum_vit.trace.record.record import Want, record
from captum_vit.trace.run.describe import stream_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.models import redrawn

X = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SIZES = {"img_size": 32, "num_classes": 5}


def built(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return redrawn(timm.create_model(name, **SIZES, **options)).double()


def swin() -> nn.Module:
    """Grids of 8 x 8 and 4 x 4 cells; the second block's windows are shifted."""
    windows = {"embed_dim": 12, "depths": (2, 1), "num_heads": (2, 2), "window_size": 4}
    return built("swin_tiny_patch4_window7_224", **windows)


def cait() -> nn.Module:
    """The CLS token comes late."""
    return built("cait_xxs24_224", patch_size=8, embed_dim=24, depth=2, num_heads=2)


MODELS = {"swin": cache(swin), "cait": cache(cait)}


@pytest.mark.parametrize("rule", ["frozen", "libra"])
@pytest.mark.parametrize("name", MODELS)
def test_tokens_and_biases_sum_to_the_score(name: str, rule: str) -> None:
    model = MODELS[name]()
    for start in (0, -1):
        found = cv.FullGrad(model, start, rule=rule).attribute(X, target=1)
        torch.testing.assert_close(found.flatten(1).sum(1), model(X)[:, 1].detach())


def test_maps_of_several_grids_are_summed_on_the_first() -> None:
    model = MODELS["swin"]()
    fine = cv.FullGradPlus(model, rule="frozen", output="tokens")
    torch.testing.assert_close(cv.PLUS(fine).attribute(X, target=1), fine.attribute(X, target=1))
    assert cv.PLUS(cv.FullGrad(model)).attribute(X, target=1).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("block", [0, 1])
def test_a_bias_in_a_window_belongs_to_its_cell(block: int) -> None:
    """A norm's bias is one of queries, keys and values too; the norm works before cells are put into windows."""
    whole, moved = MODELS["swin"](), swin()
    norm, qkv = moved.layers[0].blocks[block].norm1, moved.layers[0].blocks[block].attn.qkv
    with torch.no_grad():
        qkv.bias += qkv.weight @ norm.bias
        norm.bias.zero_()
    found, wanted = (cv.FullGrad(m, block).attribute(X, target=1) for m in (moved, whole))
    torch.testing.assert_close(found, wanted)


def test_a_bias_behind_the_attention_belongs_to_its_cell() -> None:
    """Without a feed-forward what it is added to is what the next block is given."""
    model, want = swin(), Want(grads=["tokens"], row="target", biases=True)
    first = model.layers[0].blocks[1]
    with torch.no_grad():
        for p in (first.norm1.bias, first.attn.qkv.bias, *first.mlp.parameters()):
            p.zero_()
    model.layers[1].downsample = nn.Identity()
    model.layers[1].blocks = model.layers[0].blocks[:1]
    model.norm, model.head.fc = nn.LayerNorm(12).double(), nn.Linear(12, 5).double()
    with undisturbed(model.eval()):
        found = record(Pass(model, (X,), (), stream_of(model, (X,), ())), 1, want, 1)
    torch.testing.assert_close(found.biases[1], found.grads["tokens"][2] @ first.attn.proj.bias)


def test_relevance_is_conserved() -> None:
    """But for what reaches sums near zero, whose quotients are stabilised."""
    model = MODELS["swin"]()
    for start in (0, 2):
        found = cv.LRP(model, start).attribute(X, target=1)
        torch.testing.assert_close(found.flatten(1).sum(1), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-3)
    assert cv.PLUS(cv.LRP(model)).attribute(X, target=1).shape == (2, 1, 8, 8)
    assert cv.LRP(model).pixels(X, target=1).shape == (2, 1, 32, 32)
    with pytest.raises(cv.UnsupportedModelError, match="ConservativeLRP"):
        cv.TransAttr(model).attribute(X, target=1)


def test_a_patch_goes_where_patches_have_no_order() -> None:
    model = MODELS["cait"]()

    def without(patch: int, _: nn.Module, args: tuple[Tensor]) -> Tensor:
        return torch.cat([args[0][:, :patch], args[0][:, patch + 1 :]], 1)

    def logit() -> Tensor:
        with torch.no_grad():
            return model(X)[:, 1]

    whole, lost = logit(), []
    for patch in range(16):
        handle = model.blocks[0].register_forward_pre_hook(partial(without, patch))
        lost.append(whole - logit())
        handle.remove()
    found = cv.TokenAblation(model, score="logit").attribute(X, target=1)
    torch.testing.assert_close(found.flatten(1), torch.stack(lost, 1))


@pytest.mark.parametrize(
    ("name", "why"),
    [("swin_tiny_patch4_window7_224", "a grid of 8 x 8"), ("xcit_nano_12_p8_224", "patches in another order")],
)
def test_what_cannot_be_taken_away_is_named(name: str, why: str) -> None:
    model = swin() if name.startswith("swin") else built(name, depth=1)
    with pytest.raises(cv.UnsupportedModelError, match=why) as caught:
        cv.TokenAblation(model).attribute(X, target=1)
    assert "DecompX" in caught.value.hint
    assert cv.DecompX(model).attribute(X, target=1).any()


def test_pixels_of_a_film_are_summed_over_its_patches() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = VideoMAEConfig(image_size=16, patch_size=8, num_frames=4, tubelet_size=2, num_labels=5, **sizes)
    model = redrawn(VideoMAEForVideoClassification(config)).double()
    film = torch.randn(2, 4, 3, 16, 16, dtype=torch.float64)
    found = cv.METHODS["InputXGradient"](model).attribute(film, target=1)
    pixels = InputXGradient(lambda x: model(x).logits).attribute(film.requires_grad_(), target=1)
    wanted = pixels.sum(2).view(2, 2, 2, 2, 8, 2, 8).sum((2, 4, 6)).unsqueeze(1)
    torch.testing.assert_close(found, wanted.detach())


def test_words_that_are_pooled_on_the_way_are_refused_by_name() -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 16, "block_sizes": [1, 1], "num_labels": 3}
    model = redrawn(FunnelForSequenceClassification(FunnelConfig(vocab_size=32, **sizes)))
    ids = torch.arange(3, 12).unsqueeze(0)
    for method in (cv.CAT, cv.LayerCDAM):
        with pytest.raises(cv.CaptumVitError, match="5 tokens for 9 words"):
            method(model).attribute(ids, target=1)
    assert cv.LayerCDAM(model, layer=0).attribute(ids, target=1).shape == (1, 9)
