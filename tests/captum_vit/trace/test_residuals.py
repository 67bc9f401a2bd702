"""Whole networks: gradient x token at a place in the middle and every bias behind it sum to the score."""

import pytest
import torch

from tests.benchmarks.residuals import proved
from tests.models.whole_networks import NETWORKS

SAMPLE = [
    "timm Swin", "timm Hiera", "timm SAM", "timm XCiT", "timm DaViT", "HF Segformer, pixel", "HF TimeSformer", "HF AST",
    "HF DPT, pixel", "HF Wav2Vec2, convolutions", "torchvision ViT", "torchvision Swin", "torchvision MaxViT",
]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_the_identity_closes(name: str) -> None:
    torch.manual_seed(0)
    found, _ = proved(NETWORKS[name])
    assert found.closes
    assert found.residual < 1e-12


def test_a_product_of_two_streams_is_complete_under_libra_alone() -> None:
    torch.manual_seed(0)
    frozen, _ = proved(NETWORKS["HF Focalnet"], "frozen")
    assert not frozen.closes
    assert "mul" in frozen.outside[0]
    assert 'rule="libra"' in frozen.hint
    assert proved(NETWORKS["HF Focalnet"], "libra")[0].residual < 1e-12
