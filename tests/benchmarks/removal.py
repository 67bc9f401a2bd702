"""What a deletion curve costs with dropped tokens: process time as a ratio to as many plain forward passes.

    python -m tests.benchmarks.removal [--model vit_small_patch16_224] [--batch 8] [--repeats 5]

One torch thread; for every share of patches that are gone pairs of (plain forward, answer without them), the median
of their ratios. Process time, since wall time on shared cores measures the neighbours. Shorter sequences cost less
(the aim, over shares from 0.1 to 0.9, is 0.6 of the plain passes); hidden keys and painted pixels cost at least as
much as the plain pass. The last line is the whole of a curve, the trial of how tokens can be removed included.
"""

from __future__ import annotations

import argparse
import statistics

import timm
import torch
from torch import Tensor, nn

from quantus_metrics.perturb import Blur, DropTokens, MaskKeys, Remover, curves
from tests.benchmarks.cost import process_time

SHARES = tuple(k / 10 for k in range(1, 10))
REMOVERS = {"dropped": DropTokens(), "hidden": MaskKeys(), "blurred": Blur()}
AIM = 0.6


def plain(model: nn.Module, x: Tensor) -> float:
    """Seconds of one forward pass."""
    with torch.inference_mode():
        return process_time(lambda: model(x))


def ratios(model: nn.Module, remover: Remover, x: Tensor, repeats: int) -> list[float]:
    """For each share, the median over pairs of the answer's time by the plain forward's."""
    grid = model.patch_embed.grid_size
    n_patches, rows = grid[0] * grid[1], torch.arange(len(x))
    answer = remover.bind(model, x)
    found = []
    with torch.inference_mode():
        for share in SHARES:
            order = torch.rand(len(x), n_patches).argsort(1)
            gone = (order < int(share * n_patches + 0.5)).unflatten(1, grid)
            answer(rows, gone)
            pairs = [(plain(model, x), process_time(lambda gone=gone: answer(rows, gone))) for _ in range(repeats)]
            found.append(statistics.median(mine / base for base, mine in pairs))
    return found


def whole_curve(model: nn.Module, remover: Remover, x: Tensor, repeats: int) -> float:
    """A curve over all shares, everything included, by as many plain passes."""
    relevance = torch.rand(len(x), *model.patch_embed.grid_size)

    def work() -> None:
        curves(model, x, 0, relevance, ("mif",), remover=remover, fractions=SHARES)

    work()
    return statistics.median(
        process_time(work) / sum(plain(model, x) for _ in SHARES) for _ in range(max(1, repeats // 2))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224", help="a timm model")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model(options.model).eval()
    x = torch.randn(options.batch, 3, *model.patch_embed.img_size)
    print(f"{options.model}, batch {options.batch}, one thread, torch {torch.__version__}: ratio to the plain forwards")
    found = {name: ratios(model, remover, x, options.repeats) for name, remover in REMOVERS.items()}
    print(f"| gone | {' | '.join(REMOVERS)} |\n|---|{'---|' * len(REMOVERS)}")
    for share, row in zip(SHARES, zip(*found.values(), strict=True), strict=True):
        print(f"| {share:.1f} | {' | '.join(f'{ratio:.2f}' for ratio in row)} |")
    print(f"| mean | {' | '.join(f'{statistics.mean(column):.2f}' for column in found.values())} |", flush=True)
    costs = [whole_curve(model, remover, x, options.repeats) for remover in REMOVERS.values()]
    print(f"| curve | {' | '.join(f'{cost:.2f}' for cost in costs)} |")
    print(f"aim for dropped tokens: {AIM}")


if __name__ == "__main__":
    main()
