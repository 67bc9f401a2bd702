"""Networks whose attention cannot be followed: maps against hooks by hand, layouts, and what refuses by name."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.errors import UnsupportedModelError
from captum_vit.tokens import TokenLayout
from captum_vit.trace.layout.remembered import layout_for
from captum_vit.trace.layout.spread import spread
from captum_vit.trace.replay import accepted
from captum_vit.trace.replay.proof import Proof, proof
from captum_vit.trace.run.describe import stream_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed

SWIN = dict(img_size=64, window_size=4, embed_dim=24, depths=(2, 2), num_heads=(2, 4), num_classes=5)
FILM = dict(image_size=32, num_frames=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)


def redrawn(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_((0.2 if p.dim() < 2 else 0.02) * torch.randn(p.shape, generator=generator))
    return model.double().eval()


def swin() -> nn.Module:
    return redrawn(timm.create_model("swin_tiny_patch4_window7_224", **SWIN))


def convnext() -> nn.Module:
    return redrawn(timm.create_model("convnext_atto", depths=(1, 1, 3, 1), dims=(16, 24, 32, 48), num_classes=5))


def hiera() -> nn.Module:
    return redrawn(timm.create_model("hiera_tiny_224", img_size=64, embed_dim=24, num_heads=1, stages=(1, 2, 2, 1)))


def hf_swin() -> nn.Module:
    sizes = dict(image_size=64, patch_size=4, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4)
    return redrawn(transformers.SwinForImageClassification(transformers.SwinConfig(**sizes)))


def pvt() -> nn.Module:
    return redrawn(timm.create_model("pvt_v2_b0", depths=(1, 1, 1, 1), num_classes=5))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()


def by_hand(model: nn.Module, module: nn.Module, images: Tensor, before: bool = False) -> tuple[Tensor, Tensor]:
    """What leaves a module, or enters it, and the gradient of class 1 there."""
    kept: list[Tensor] = []

    def keep(x: Tensor) -> None:
        x.retain_grad()
        kept.append(x)

    if before:
        handle = module.register_forward_pre_hook(lambda module, args: keep(args[0]))
    else:
        handle = module.register_forward_hook(lambda module, args, output: keep(output))
    output = model(images)
    (output if isinstance(output, Tensor) else output.logits)[:, 1].sum().backward()
    handle.remove()
    (x,) = kept
    return x.detach(), x.grad


CASES: dict[str, tuple[Callable[[], nn.Module], str, int, int]] = {
    "timm Swin": (swin, "layers.1.blocks.1.norm1", -1, 8),
    "timm Swin, first stage": (swin, "layers.0.blocks.1.norm1", -1, 16),
    "timm ConvNeXt": (convnext, "stages.2.blocks.1", 1, 4),
}


@pytest.mark.parametrize("case", CASES)
def test_maps_are_those_of_hooks_by_hand(case: str, images: Tensor) -> None:
    make, name, features, side = CASES[case]
    model = make()
    x, g = by_hand(model, model.get_submodule(name), images)
    product = (x * g).sum(features).unsqueeze(1)
    assert product.shape == (2, 1, side, side)
    assert torch.allclose(cv.LayerCDAM(model, name).attribute(images, target=1), product, rtol=1e-9)
    cells = [axis for axis in range(1, 4) if axis != features % 4]
    weights = g.mean(cells, keepdim=True)
    by_channel = (weights * x).sum(features).unsqueeze(1)
    assert torch.allclose(cv.TokenGradCAM(model, name).attribute(images, target=1), by_channel, rtol=1e-9)


def test_a_number_is_a_block_of_all_stages_and_reads_behind_its_norm(images: Tensor) -> None:
    model = swin()
    for layer, name in enumerate(f"layers.{i}.blocks.{j}.norm1" for i in (0, 1) for j in (0, 1)):
        by_name = cv.LayerCDAM(model, name).attribute(images, target=1)
        assert torch.equal(cv.LayerCDAM(model, layer).attribute(images, target=1), by_name)


def test_the_default_is_the_last_block_of_the_first_stage_that_ends_in_the_second_half(images: Tensor) -> None:
    model = convnext()  # 1, 1, 3 and 1 blocks
    assert torch.equal(
        cv.LayerCDAM(model).attribute(images, target=1), cv.LayerCDAM(model, 4).attribute(images, target=1)
    )


@pytest.mark.parametrize("make", [swin, convnext])
def test_decompx_and_biases_sum_to_the_logit(make: Callable[[], nn.Module], images: Tensor) -> None:
    model = make()
    with undisturbed(model):
        entrance = stream_of(model, (images,), ()).blocks[0].entrance
        proved = proof(Pass(model, (images,), ()), entrance, "frozen", lambda output: output[:, 1].sum())
    assert proved.residual < 1e-12 and abs(proved.biases) > 1e-3 * proved.size
    found = cv.DecompX(model).attribute(images, target=1)
    assert found.shape == (2, 1, 16, 16)
    assert found.sum().item() == pytest.approx(proved.tokens, rel=1e-9)


def test_cat_sums_stages_on_the_finest_grid(images: Tensor) -> None:
    model = swin()
    total = torch.zeros(2, 1, 16, 16).double()
    for i in (0, 1):
        for block in model.layers[i].blocks:
            x, g = by_hand(model, block, images, before=True)
            one = (x * g).sum(-1).unsqueeze(1)
            total += one if i == 0 else F.interpolate(one, scale_factor=2) / 4
    assert torch.allclose(cv.CAT(model).attribute(images, target=1), total, rtol=1e-8, atol=1e-12)
    assert torch.allclose(
        cv.PLUS(cv.DecompX(model)).attribute(images, target=1),
        cv.CAT(model, rule="frozen").attribute(images, target=1),
    )


def test_hiera_tokens_lie_as_the_model_unrolls_them(images: Tensor) -> None:
    model = hiera()
    with undisturbed(model):
        transformer = stream_of(model, (images,), ())
        first = transformer.blocks[0].entrance
        layout = layout_for(model, first, (), (images,), (), None, transformer.additions)
    own = model.reroll(torch.arange(256).view(1, -1, 1).double(), 0).flatten().long()
    assert layout.grid is not None and layout.grid.tokens == tuple(own.tolist())


@pytest.mark.parametrize(
    ("make", "what"), [(swin, "16 places attend to 16"), (pvt, "attend to 4"), (convnext, "no att")]
)
@pytest.mark.parametrize("method", ["GenAtt", "AttentionRollout", "VTranM", "PartialLRP"])
def test_what_needs_attention_refuses_by_name_and_points_to_decompx(
    make: Callable[[], nn.Module], what: str, method: str, images: Tensor
) -> None:
    with pytest.raises(UnsupportedModelError, match=f"(?s){what}.*DecompX"):
        cv.METHODS[method](make()).attribute(images, target=1)


@pytest.mark.parametrize("make", [hf_swin, pvt])
def test_sequences_are_laid_out_as_the_picture(make: Callable[[], nn.Module], images: Tensor) -> None:
    model = make()
    with undisturbed(model):
        transformer = stream_of(model, (images,), ())
        layout = layout_for(model, transformer.blocks[0].entrance, (), (images,), (), None, transformer.additions)
    assert layout.grid is not None and [axis.cells for axis in layout.grid.axes] == [16, 16]
    assert layout.grid.tokens == tuple(range(256))


def test_films_have_a_time() -> None:
    film = torch.randn(1, 4, 3, 32, 32)
    found = transformers.VideoMAEForVideoClassification(
        transformers.VideoMAEConfig(**FILM, intermediate_size=48)
    ).eval()
    assert cv.LayerCDAM(found).attribute(film, target=1).shape == (1, 1, 2, 2, 2)
    assert cv.LayerCDAM(found, output="pixels").attribute(film, target=1).shape == (1, 1, 4, 32, 32)
    divided = transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig(**FILM, intermediate_size=48)
    ).eval()
    with undisturbed(divided):
        transformer = stream_of(divided, (film,), ())
        layout = layout_for(divided, transformer.blocks[0].entrance, (), (film,), (), None, transformer.additions)
    assert layout.grid is not None and [axis.cells for axis in layout.grid.axes] == [4, 2, 2]
    assert layout.grid.tokens == tuple(1 + 4 * place + t for t in range(4) for place in range(4))  # time is fastest


def test_areas_keep_sums() -> None:
    fine, coarse = TokenLayout(16, (4, 4), (64, 64)), TokenLayout(9, (3, 3), (64, 64))
    relevance = torch.rand(2, 9).double()
    laid = spread(relevance, coarse, fine)
    assert torch.allclose(laid.sum(1), relevance.sum(1))
    assert torch.allclose(spread(torch.ones(1, 9).double(), coarse, fine), torch.full((1, 16), 9 / 16).double())


def test_two_streams_and_drawn_numbers_stay_refused(images: Tensor) -> None:
    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = convnext()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x + torch.randn_like(x))

    with pytest.raises(UnsupportedModelError, match="no attention"):
        cv.LayerCDAM(Drawn().eval()).attribute(images, target=1)


def test_a_model_is_left_as_found(images: Tensor) -> None:
    model = swin()
    before = model(images)
    cv.CAT(model).attribute(images, target=1)
    assert torch.equal(model(images), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Written(nn.Module):
    """A constant is written over a part of the stream, through a view of it, where no rule sees it."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.shift = norm, nn.Parameter(torch.full((2,), 3.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x) * 1
        y.narrow(-1, 0, 2).copy_(self.shift.expand(*y.shape[:-1], 2))
        return y


def test_a_rule_that_is_not_complete_on_a_network_is_refused_once_and_the_plain_gradient_is_not(
    monkeypatch: pytest.MonkeyPatch,
    images: Tensor,
) -> None:
    runs: list[str] = []

    def counted(*given: Any) -> Proof:
        runs.append(given[-1])
        return proof(*given)

    monkeypatch.setattr(accepted, "proof", counted)
    model = swin()
    model.layers[1].blocks[1].norm2 = Written(model.layers[1].blocks[1].norm2).eval()
    for _ in range(2):
        with pytest.raises(UnsupportedModelError, match="tokens and biases sum to the score"):
            cv.DecompX(model).attribute(images, target=1)
    assert runs == ["frozen"]
    assert cv.LayerCDAM(model).attribute(images, target=1).any()
    assert cv.DecompX(swin()).attribute(images, target=1).any()
