"""Some samples of a data set, drawn by a seed."""

from __future__ import annotations

import numpy as np

from captum_vit.options import integer, integer_or_none
from quantus_metrics.benchmark.data.digests import data_digest
from quantus_metrics.benchmark.data.samples import Sample, Samples


def drawn(
    total: int,
    n: int | None,
    seed: int = 0,
) -> list[int]:
    """Places of n samples of `total`, drawn without putting back, in their order; all where n is None or no less.

    Raises:
        OptionError: `n` or `seed` is no whole number of that kind.
    """
    integer_or_none("n", n, hint="n = 200, or no n for all.")
    draw = np.random.default_rng(integer("seed", seed, least=0, hint="seed = 0"))
    few = n is not None and n < total
    return sorted(draw.choice(total, n, replace=False).tolist()) if few else list(range(total))


class Drawn:
    """A few samples of a data set, for a first look: the first `n` of its samples in a random order.

    So more of them by the same seed are these and others, and the groups that were full stay as they are.

    Args:
        data: the data set.
        n: how many.
        seed: of the order.
    """

    def __init__(self, data: Samples, n: int, seed: int) -> None:
        self.data, self.places = data, np.random.default_rng(seed).permutation(len(data))[:n].tolist()

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        """That of the whole data set."""
        return self.data.name(self.places[index])

    def digest(self) -> str:
        """Of the whole data set, since its results may stand beside these."""
        return data_digest(self.data)

    def __getitem__(self, index: int) -> Sample:
        return self.data[self.places[index]]
