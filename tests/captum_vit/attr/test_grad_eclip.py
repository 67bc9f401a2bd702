"""GradECLIP: identities, both towers, queries and keys wherever they are multiplied, refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.trace.modes.queries import QueryTap
from tests.contracts.closeness import assert_close
from tests.contracts.pairs import in_float64
from tests.references.models import DEPTH, reference_images, reference_vit

TARGETS = [1, 4]


@pytest.fixture
def model() -> nn.Module:
    return reference_vit(layer_scale=True)


def explained(model: nn.Module, **options: object) -> Tensor:
    return cv.GradECLIP(model, **options, output="tokens").attribute(reference_images(), target=TARGETS)


def test_with_equal_values_it_is_the_slope_of_the_context(model: nn.Module) -> None:
    """If all values are the same vector v, the context is v, and each token has the slope along it."""
    attn = model.blocks[-1].attn
    width = attn.qkv.weight.shape[1]
    with torch.no_grad():
        attn.qkv.weight[2 * width :] = 0
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor]) -> None:
        seen.append(args[0])

    handle = attn.proj.register_forward_pre_hook(keep)
    score = model(reference_images())[[0, 1], TARGETS].sum()
    handle.remove()
    (g,) = torch.autograd.grad(score, seen)
    slope = (g[:, 0] * seen[0][:, 0]).sum(1, keepdim=True)
    assert_close(explained(model, weights="none"), slope.detach().expand(-1, 17), "float64")


def test_blocks_are_summed_before_they_are_rectified(model: nn.Module) -> None:
    signed = [explained(model, layers=[layer]) for layer in range(DEPTH)]
    assert_close(explained(model, layers=None), sum(signed), "float64")
    assert_close(explained(model, layers=None, signed=False), sum(signed).clamp(min=0), "float64")
    assert torch.equal(explained(model), signed[-1])


def test_rows_at_a_time_give_the_same(model: nn.Module) -> None:
    whole = explained(model, layers=None)
    with cv.attention_memory(0.05):
        assert_close(explained(model, layers=None), whole, "float64")


@pytest.mark.parametrize("name", ["HF CLIP", "HF CLIP words", "open_clip"])
def test_both_towers_have_a_map(name: str) -> None:
    case = in_float64(name)
    method = cv.GradECLIP(case.forward_func, layers=[-2, -1], output="tokens")
    found = method.attribute(case.inputs, target=1, additional_forward_args=case.additional_forward_args or None)
    assert found.any(1).all()


def test_of_several_rows_it_is_the_sum_of_their_maps() -> None:
    """Mean pooling: each row's own gradient, and its own scale of cosines, by hand."""
    case = in_float64("timm ViT mean, no CLS")
    attn, seen = case.forward_func.blocks[-1].attn, {}
    handles = [
        attn.qkv.register_forward_hook(lambda module, args, out: seen.update(qkv=out)),
        attn.proj.register_forward_pre_hook(lambda module, args: seen.update(context=args[0])),
    ]
    score = case.forward_func(case.inputs)[:, 1].sum()
    for handle in handles:
        handle.remove()
    (g,) = torch.autograd.grad(score, seen["context"])
    q, k, v = seen["qkv"].chunk(3, -1)
    cosine = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
    least, most = cosine.amin(-1, keepdim=True), cosine.amax(-1, keepdim=True)
    wanted = ((g @ v.mT) * (cosine - least) / (most - least)).sum(1)
    found = cv.GradECLIP(case.forward_func, output="tokens").attribute(case.inputs, target=1)
    assert_close(found, wanted.detach(), "float64")


# -- queries and keys ----------------------------------------------------------------------------------------------


def by_einsum(q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("bhqd,bhkd->bhqk", q, k).softmax(-1)


def heads_in_one_axis(q: Tensor, k: Tensor) -> Tensor:
    scores = torch.bmm(q.flatten(0, 1) * 0.3, k.flatten(0, 1).mT)
    return F.softmax(scores.view(*q.shape[:2], 5, 5) + 1.0, dim=-1)


def with_a_mask_added(q: Tensor, k: Tensor) -> Tensor:
    mask = torch.zeros(5, 5).triu(1)
    return torch.baddbmm(mask, q.flatten(0, 1), k.flatten(0, 1).mT).masked_fill_(mask.bool(), -1e9).softmax(-1)


@pytest.mark.parametrize("written", [by_einsum, heads_in_one_axis, with_a_mask_added])
def test_queries_and_keys_are_found_where_attention_is_written_out(
    written: Callable[[Tensor, Tensor], Tensor],
) -> None:
    q, k = torch.randn(2, 2, 3, 5, 4)
    seen: list[tuple[Tensor, Tensor]] = []
    with QueryTap(lambda *factors: seen.append(factors), batch=2):
        written(q, k)
    ((queries, keys),) = seen
    torch.testing.assert_close(F.normalize(queries, dim=-1), F.normalize(q, dim=-1))
    assert torch.equal(keys, k)


def test_scores_that_are_turned_over_are_not_taken_for_others() -> None:
    q, k = torch.randn(2, 2, 3, 5, 4)
    seen: list[Tensor] = []
    with QueryTap(lambda *factors: seen.extend(factors), batch=2):
        (q @ k.mT).mT.softmax(-1)
        (q @ k.mT).softmax(-2)
    assert not seen


class Distances(nn.Module):
    """Attention by the distance of queries and keys, of which no product is formed."""

    def __init__(self, attn: nn.Module) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = attn.qkv, attn.proj, attn.num_heads

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (-(q.unsqueeze(3) - k.unsqueeze(2)).square().sum(-1)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


def test_attention_without_queries_and_keys_is_refused(model: nn.Module) -> None:
    model.blocks[-1].attn = Distances(model.blocks[-1].attn).eval()
    with pytest.raises(cv.TraceError, match=r"queries|keys"):
        explained(model)
