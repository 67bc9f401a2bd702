"""What depends on the tokens, and has no graph: what a kernel without a derivative makes, or a detached branch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_vit.errors import UnsupportedModelError
from captum_vit.sites.calls import called_by
from captum_vit.sites.mode import Mode
from captum_vit.sites.site import Place
from captum_vit.trace.modes.entrywise import taken_constant
from captum_vit.trace.modes.functions import IN_PLACE, SUMS
from captum_vit.trace.modes.rules import under
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.watch import OTHER_KERNELS, Watch

CHANGED = 1e-6  # of the largest entry; a constant is the same to the last digit


class Added(Mode):
    """Looks at constants that are added to a stream, in a pass over two samples that differ in their tokens alone."""

    def __init__(self) -> None:
        super().__init__()
        self.found = ""

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if not self.found and (func in SUMS or IN_PLACE.get(func) in SUMS) and isinstance(result, Tensor):
            with torch._C.DisableTorchFunction():
                constant = taken_constant(result) if result.requires_grad else None
                added = None if constant is None else constant()
            if isinstance(added, Tensor) and added.dim() > 1 and len(added) == 2 == len(result) and _differ(*added):
                self.found = called_by()
        return result


def _differ(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > CHANGED * torch.maximum(one.abs(), other.abs()).max())


def refuse_hidden(call: Pass, place: Place, rule: str) -> None:
    """Refuse a model that adds something without a graph which changes with the tokens at a place.

    Costs a pass of one sample twice, the second time with other tokens at the place. Call it inside ``undisturbed``.

    Raises:
        UnsupportedModelError: the module in which it is added.
    """
    twice = torch.zeros(2, dtype=torch.long)

    def leaf(x: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        first, second = x.detach().chunk(2)
        return torch.cat([first, second + second.roll(1, -1)]).requires_grad_()

    watch = Watch(call.of(twice).without_transformer(), place=place)
    watch.at(place, leaf)
    with under(rule), (mode := Added()):
        watch.run()
    if mode.found:
        raise UnsupportedModelError(
            "A forward that can be followed backwards.",
            f"a tensor without a graph that changes with the tokens, added in {mode.found}",
            OTHER_KERNELS,
        )
