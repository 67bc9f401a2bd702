"""How much rounding changes: in the scores by trying, in a sum from its terms.

Roundings are independent of each other. Those of a sum of terms t add up to eps times the root of the sum of
t squared, whatever is left of the sum when large terms cancel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_vit.errors import TraceError
from captum_vit.sites.arranged import Visit
from captum_vit.sites.mode import Mode
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import dtype_of
from captum_vit.trace.run.watch import Watch

DRAWS = 4
"""So many times the sample is disturbed by as much as rounding does."""

FACTOR = 8.0
"""An identity holds up to so many standard deviations of rounding."""

_SHORT = {"high": 2.0**-10, "medium": 2.0**-7}  # TensorFloat32 and bfloat16 inside float32 products


class _Precision(Mode):
    """The coarsest precision of what depends on the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.requires_grad:
            self.eps = max(self.eps, torch.finfo(result.dtype).eps)
        return result


def precision(call: Pass) -> float:
    """The eps of a model's arithmetic: a float32 model may compute in half precision inside, a float64 one in float32.

    One pass with a graph; of a model that allows none, the precision of its weights.
    """
    seen, watch = _Precision(), Watch(call)

    def leaf(x: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        return x.detach().requires_grad_()

    watch.at(call.transformer.blocks[0].entrance, leaf)
    try:
        watch.run(seen)
    except TraceError:
        pass
    finally:
        torch.set_grad_enabled(False)
    eps = max(seen.eps, torch.finfo(dtype_of(call.model) or torch.float32).eps)
    single = eps == torch.finfo(torch.float32).eps
    return max(eps, _SHORT.get(torch.get_float32_matmul_precision(), 0.0)) if single else eps


def noise(call: Pass, eps: float) -> float:
    """How far scores move, all together, where every block reads tokens that are off by rounding: one deviation.

    A plain pass and ``DRAWS`` disturbed ones, all from the same state of the generators: what a random model
    does by itself is not taken for rounding.

    Raises:
        TraceError: the scores of a disturbed pass are not finite.
    """
    plain = _disturbed(call, 0.0, draw=0)
    draws = [_disturbed(call, eps, draw) for draw in range(DRAWS)]
    moved = torch.stack([(scores - plain).square().sum() for scores in draws]).mean()
    if not torch.isfinite(moved):
        hint = "a wider precision: model.float(), or bfloat16 in place of float16."
        raise TraceError("Scores that are finite for what rounding makes of the tokens.", "NaN or infinite ones", hint)
    return float((moved + eps**2 * plain.square().sum()).sqrt())


def _disturbed(call: Pass, eps: float, draw: int) -> Tensor:
    watch = Watch(call)
    generator = torch.Generator().manual_seed(draw)

    def disturb(by: float) -> Visit:
        def visit(x: Tensor) -> Tensor:
            relative = torch.randn(x.shape, generator=generator).to(
                x.device, torch.promote_types(x.dtype, torch.float32)
            )
            return (x * (1 + by * relative)).to(x.dtype)

        return visit

    convolved = max(eps, _of_convolutions(call.inputs[0].device, eps))
    for layer, block in enumerate(call.transformer.blocks):
        watch.at(block.entrance, disturb(eps if layer else convolved))
    torch.manual_seed(0)
    return watch.run().detach().double()


def _of_convolutions(device: torch.device, eps: float) -> float:
    """On a GPU those of float32 are shorter, unless that is switched off."""
    short = device.type == "cuda" and torch.backends.cudnn.allow_tf32 and eps == torch.finfo(torch.float32).eps
    return _SHORT["high"] if short else 0.0


def smallest(dtype: torch.dtype) -> float:
    """The step between numbers near zero, where eps is no longer their distance."""
    return float(torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps)
