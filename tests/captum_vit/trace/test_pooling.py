"""Which rows a head reads, where it reads none."""

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from tests.models import redrawn
from tests.models.arranged import GRID, WIDTH, Vek

PICTURES = (2, 3, 24, 32)


class Recorded(Vek):
    """Its head reads what it recorded of its first block, as heads for depth and segmentation do."""

    def __init__(self) -> None:
        super().__init__(None, 1, GRID, nn.Conv2d(3, WIDTH, 8, 8))
        self.recorded: list[Tensor] = []
        self.zums[0].register_forward_hook(lambda module, args, output: self.recorded.append(output))

    def forward(self, x: Tensor) -> Tensor:
        self.recorded.clear()
        super().forward(x)
        return self.end(self.fin(self.recorded[0]).mean(1))


@pytest.mark.parametrize("method", ["RawAttention", "AttentionRollout", "GenAtt"])
def test_a_head_that_reads_recorded_states_is_named(method: str):
    with pytest.raises(cv.TraceError, match="tokens of other blocks, such as recorded hidden states"):
        cv.METHODS[method](redrawn(Recorded())).attribute(torch.randn(PICTURES), target=1)


def test_what_the_refusal_advises_works():
    found = cv.DecompX(redrawn(Recorded())).attribute(torch.randn(PICTURES), target=1)
    assert found.shape == (2, 1, *GRID) and found.all()
