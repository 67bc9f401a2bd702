"""What comparisons with other packages share: how far two maps are apart, told to whoever runs pytest with -s."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[Tensor, Tensor], float]:
    """The largest difference by the largest value; printed, for docs/how-each-method-was-checked.md."""

    def off(found: Tensor, wanted: Tensor) -> float:
        assert found.shape == wanted.shape
        found, wanted = found.detach(), wanted.detach()
        largest = float((found - wanted).abs().max() / wanted.abs().max())
        print(f"\n{request.node.name}: {largest:.1e}")
        return largest

    return off
