"""Maps in batches, what they cost, and the table."""

import pytest
import torch
from torch import nn
from tqdm import tqdm

from quantus_metrics.demo import marks
from quantus_metrics.demo.marks import BATCH, FEW, SLOW, Asked, Mark, explained, table


class Model(nn.Module):
    def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return x + shift


class Method:
    """Gives back what it was asked, and notes how many inputs came at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def attribute(self, x: torch.Tensor, target: torch.Tensor, additional_forward_args: tuple) -> torch.Tensor:
        assert len(x) == len(target) == len(additional_forward_args[0])
        self.batches.append(len(x))
        return x * target[:, None] + additional_forward_args[0]


def asked(n: int) -> Asked:
    return Asked(torch.randn(n, 3), torch.arange(n), (torch.randn(n, 3),))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """Process time that goes on by a second for a plain pass, and by as many as a method costs for its maps."""

    def set_to(cost: float) -> None:
        ticks = iter([step for _ in range(100) for step in (0.0, 1.0, 1.0, 1.0 + cost)])
        monkeypatch.setattr(marks.time, "process_time", lambda: next(ticks))

    return set_to


@pytest.mark.parametrize("n", [1, FEW, FEW + 1, FEW + BATCH, FEW + BATCH + 7])
def test_every_input_is_explained_once_and_in_order(clock, n: int) -> None:
    clock(3.0)
    inputs, method = asked(n), Method()
    with tqdm(total=n, disable=True) as progress:
        maps, cost = explained(method, Model(), inputs, progress)
    torch.testing.assert_close(maps, inputs.maps(Method()))
    assert cost == 3.0 and max(method.batches) <= max(FEW, BATCH)


def test_dear_methods_explain_a_few(clock) -> None:
    clock(SLOW + 1.0)
    inputs = asked(2 * BATCH)
    with tqdm(total=len(inputs), disable=True) as progress:
        maps, cost = explained(Method(), Model(), inputs, progress)
    torch.testing.assert_close(maps, inputs.rows(slice(FEW)).maps(Method()))
    assert cost == SLOW + 1


def test_a_table_has_a_row_for_each_mark() -> None:
    lines = table([Mark("A", {"x": 0.5, "y": 2.0}), Mark("B", {"y": 1.0, "x": 0.25})], {"x": ".3f", "y": "+.1f"})
    assert lines.splitlines() == ["| method | x | y |", "|---|--:|--:|", "| A | 0.500 | +2.0 |", "| B | 0.250 | +1.0 |"]
