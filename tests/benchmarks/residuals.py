"""By how much gradient x token and all biases miss the score, from a place in the middle, for many families.

    python -m tests.benchmarks.residuals [--only NAME ...] [--rule frozen]

Small models with random weights in float64, biases and statistics included. A row is the family, the module whose
input is the place, its shape, the residual (see `captum_vit.trace.replay.proof.Proof`), or what refused.
"""

from __future__ import annotations

import argparse
import warnings

import torch
from torch import nn

from captum_vit.errors import CaptumVitError
from captum_vit.sites.site import Site
from captum_vit.trace.replay.proof import Proof, proof
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.models.whole_networks import NETWORKS, Network


def proved(network: Network, rule: str = "frozen") -> tuple[Proof, tuple[int, ...]]:
    """The proof for a network at its place, and the shape that is there."""
    model = shaken(network.make())
    place, shapes = Site(model.get_submodule(network.module), "input"), list[tuple[int, ...]]()
    handle = place.hook(lambda x: shapes.append(tuple(x.shape)))
    try:
        with undisturbed(model):
            return proof(Pass(model, (network.example,), ()), place, rule, network.score), shapes[-1]
    finally:
        handle.remove()


def shaken(model: nn.Module) -> nn.Module:
    """In float64, with weights and statistics under which every bias and every scale matters."""
    g = torch.Generator().manual_seed(0)
    model = model.double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_((0.2 if p.dim() < 2 else 0.02) * torch.randn(p.shape, generator=g, dtype=p.dtype))
        for name, b in model.named_buffers():
            if "running_mean" in name:
                b.add_(0.1 * torch.randn(b.shape, generator=g, dtype=b.dtype))
    return model


def row(name: str, rule: str) -> str:
    """One row of the table."""
    torch.manual_seed(0)
    try:
        found, shape = proved(NETWORKS[name], rule)
    except CaptumVitError as error:
        return f"{name:36s} {type(error).__name__}: {error.got}"
    note = f"  {found.outside[0]}" if found.outside else ""
    return f"{name:36s} {NETWORKS[name].module:30s} {shape!s:20s} {found.residual:.0e}{note}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(NETWORKS))
    parser.add_argument("--rule", default="frozen")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for chosen in options.only:
        print(row(chosen, options.rule), flush=True)
