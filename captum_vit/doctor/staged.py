"""Of a network whose attention cannot be followed: its stages, and which rules are complete on it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_vit.errors import CaptumVitError
from captum_vit.models.transformer import Transformer
from captum_vit.trace.modes.completeness import COMPLETE
from captum_vit.trace.replay.proof import proof
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed


def stages(transformer: Transformer) -> str:
    """How many blocks have how many cells."""
    return ", ".join(
        f"{len(stage)} on {' x '.join(map(str, transformer.blocks[stage[0]].cells))} cells"
        for stage in transformer.stages
    )


def complete(model: nn.Module, transformer: Transformer, sample: tuple[Tensor, ...], args: tuple[Any, ...]) -> str:
    """For each rule that says so, whether tokens and biases sum to the score behind the first block's entrance."""
    return "; ".join(f"{rule} {_verdict(model, transformer, sample, args, rule)}" for rule in COMPLETE)


def _verdict(
    model: nn.Module, transformer: Transformer, sample: tuple[Tensor, ...], args: tuple[Any, ...], rule: str
) -> str:
    try:
        with undisturbed(model):
            found = proof(Pass(model, sample, args, transformer), transformer.blocks[0].entrance, rule)
    except CaptumVitError as error:
        return f"not proved: {error.got}"
    if found.closes:
        return f"is complete (residual {found.residual:.1e})"
    return f"is not complete: {found.outside[0] if found.outside else f'residual {found.residual:.1e}'}"
