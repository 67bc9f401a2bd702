"""FullGrad and FullGrad+: every bias once, where it is added, and nothing missed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from captum.attr import InputXGradient
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.tokens import TokenLayout
from captum_vit.trace.modes.biases import BiasRelevance
from tests.models import CASES, Case
from tests.references.models import reference_images, reference_vit

TARGETS = [1, 4]
LOUD = 100.0


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def explained(method: cv.TokenAttribution, images: Tensor | None = None) -> Tensor:
    return method.attribute(reference_images() if images is None else images, target=TARGETS)


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(reference_images())[[0, 1], TARGETS]


@pytest.mark.parametrize("rule", ["grad", "frozen"])
def test_without_biases_it_is_cat(rule: str):
    model = reference_vit(layer_scale=True)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "bias" in name:
                p.zero_()
    found = explained(cv.FullGradPlus(model, rule=rule))
    close(found, explained(cv.CAT(model, rule=rule)))
    if rule == "grad":
        torch.testing.assert_close(found, explained(cv.PLUS(InputXGradient(model))), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rule", ["grad", "frozen", "libra"])
def test_it_is_its_own_sum_over_start_layers(rule: str):
    model = reference_vit()
    method = cv.FullGradPlus(model, rule=rule)
    close(explained(cv.PLUS(method)), explained(method))
    late = explained(cv.FullGradPlus(model, 2, rule=rule))
    close(explained(cv.SkipPLUS(method)), late)
    close(explained(cv.PLUS(method, layers=[2])), late)
    close(explained(cv.PLUS(method, layers=[0, 1])), explained(method) - late)


def test_plus_over_full_grad_repeats_biases():
    model = reference_vit()
    alone = [explained(cv.FullGrad(model, start)) for start in range(3)]
    close(explained(cv.PLUS(cv.FullGrad(model))), sum(alone))
    close(explained(cv.PLUS(cv.FullGrad(model), layers=[1])), alone[1])
    assert not torch.allclose(sum(alone), explained(cv.FullGradPlus(model)), rtol=1e-2)


@pytest.mark.parametrize(("rule", "complete"), [("grad", False), ("frozen", True), ("libra", True)])
def test_only_rules_make_it_complete(rule: str, complete: bool):
    model = reference_vit(layer_scale=True)
    for start in range(3):
        total = explained(cv.FullGrad(model, start, rule=rule, output="tokens")).sum(1)
        assert torch.allclose(total, logits(model), rtol=1e-9) == complete


def test_from_the_last_block_both_are_one():
    model = reference_vit()
    last = len(model.blocks) - 1
    close(explained(cv.FullGradPlus(model, last)), explained(cv.FullGrad(model, last)))


def test_the_plain_gradient_is_complete_where_all_is_piecewise_linear():
    """ReLU in place of GELU, attention that depends on no token, no norms: then nothing is left over."""
    model = reference_vit()
    for block in model.blocks:
        block.norm1, block.norm2, block.mlp.act = nn.Identity(), nn.Identity(), nn.ReLU()
        with torch.no_grad():
            block.attn.qkv.weight[: 2 * model.embed_dim] = 0  # queries and keys
    model.norm = nn.Identity()
    model.eval()
    for start in range(3):
        close(explained(cv.FullGrad(model, start, output="tokens")).sum(1), logits(model))


HEADS: dict[str, Callable[[nn.Module], nn.Linear]] = {
    "timm ViT": lambda m: m.head,
    "timm ViT mean": lambda m: m.head,
    "timm ViT registers": lambda m: m.head,
    "timm SigLIP": lambda m: m.head,
    "HF ViT": lambda m: m.classifier,
    "HF BERT": lambda m: m.classifier,
    "torchvision ViT": lambda m: m.heads.head,
}


@pytest.mark.parametrize("rule", ["grad", "frozen"])
@pytest.mark.parametrize("name", HEADS)
def test_the_bias_of_the_head_goes_to_the_rows_that_it_reads(name: str, rule: str):
    case = CASES[name]()
    model = copy.deepcopy(case.forward_func).double()
    case = case._replace(inputs=case.inputs.double() if case.inputs.is_floating_point() else case.inputs)
    quiet = _tokens(model, case, rule)
    with torch.no_grad():
        HEADS[name](model).bias += LOUD
    share = (_tokens(model, case, rule) - quiet) / LOUD
    close(share.sum(1), torch.ones_like(share[:, 0]))
    wanted = torch.zeros_like(share[0])
    if name == "timm ViT mean":
        wanted[1:] = 1 / 16
    elif name == "timm SigLIP":
        assert (share > 0).all()
        return
    else:
        wanted[0] = 1
    torch.testing.assert_close(share, wanted.expand_as(share), rtol=1e-10, atol=1e-10)


def _tokens(model: nn.Module, case: Case, rule: str) -> Tensor:
    method = cv.FullGradPlus(model, rule=rule, output="tokens")
    return method.attribute(case.inputs, case.target, case.additional_forward_args or None)


class WrittenOut(nn.Module):
    """A layer norm as somebody might write it."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight + self.bias


class Shifted(nn.Module):
    """A scale and a shift for each output, and one for all."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.shift, self.bias = nn.Parameter(torch.arange(5.0).double()), nn.Parameter(torch.tensor(0.7).double())

    def forward(self, x: Tensor) -> Tensor:
        return self.bias + (2 * self.head(x) + self.shift)


class Projected(nn.Module):
    """A feed-forward that is followed by a convolution of each patch."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp, self.conv = mlp, nn.Conv2d(24, 24, 1, groups=24).double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.mlp(x)
        picture = self.conv(x[:, 1:].mT.unflatten(-1, (4, 4)))
        return x + F.pad(picture.flatten(-2).mT, (0, 0, 1, 0))


def _with_batch_norm(model: VisionTransformer) -> None:
    norm = nn.BatchNorm1d(24, affine=False).double()
    norm.running_mean.copy_(torch.linspace(-1, 1, 24))
    norm.running_var.copy_(torch.linspace(0.5, 2, 24))
    model.head = nn.Sequential(norm, model.head)


def _written_out(model: VisionTransformer) -> None:
    model.norm = WrittenOut(model.norm)
    model.blocks[1].norm2 = WrittenOut(model.blocks[1].norm2)


def _shifted(model: VisionTransformer) -> None:
    model.head = Shifted(model.head)


def _projected(model: VisionTransformer) -> None:
    model.blocks[1].mlp = Projected(model.blocks[1].mlp)


@pytest.mark.parametrize("change", [_with_batch_norm, _written_out, _shifted, _projected])
def test_biases_are_found_by_what_they_do(change: Callable[[nn.Module], None]):
    torch.manual_seed(0)
    model = reference_vit()
    change(model)
    model.eval()
    for start in range(3):
        found = explained(cv.FullGrad(model, start, rule="frozen", output="tokens"))
        close(found.sum(1), logits(model))


class Compared(nn.Module):
    """Logits beside which something else is computed, with biases of its own that depend on no token."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.model, self.other = model, nn.Linear(3, 5).double()
        self.words = nn.Parameter(torch.randn(5, 3, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        scale = self.other(self.words).sum(1)
        return self.model(images) * scale + scale


def test_only_biases_on_the_tokens_way_count():
    """The maps of a model and of its logits scaled differ by the scale, whatever else runs beside it."""
    torch.manual_seed(0)
    model = reference_vit()
    both = Compared(model).eval()
    with torch.no_grad():
        scale = both.other(both.words).sum(1)[TARGETS]
    close(explained(cv.FullGradPlus(both, output="tokens")),
          explained(cv.FullGradPlus(model, output="tokens")) * scale[:, None])  # fmt: skip


def test_rows_of_an_unknown_batch_are_refused():
    relevance = BiasRelevance(TokenLayout(4), torch.full((3, 4), 0.25))
    with pytest.raises(cv.TraceError, match="batch first"):
        relevance.add(0, torch.ones(4, 2))


def test_heads_and_flattened_rows_are_summed_into_their_tokens():
    relevance = BiasRelevance(TokenLayout(4), torch.full((3, 4), 0.25))
    by_head, rows = torch.randn(3, 2, 4), torch.randn(12)
    relevance.add(0, by_head)
    relevance.add(1, rows)
    assert torch.equal(relevance.by_place[0], by_head.sum(1))
    assert torch.equal(relevance.by_place[1], rows.view(3, 4))
