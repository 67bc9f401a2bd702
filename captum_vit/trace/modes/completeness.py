"""Whether tokens and biases sum to the score, where a rule says that they do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from captum_vit.errors import UnsupportedModelError

COMPLETE = ("frozen", "libra")
OWN = __name__.split(".")[0]


def refuse_gap(
    rule: str,
    score: Tensor,  # shape: (B,), with its graph
    products: Tensor,  # shape: (B, N, D), gradient x input
    biases: Tensor,  # shape: (B, N), bias x gradient
    eps: float,
) -> None:
    """Refuse what is off by more than half the digits of what is added.

    Args:
        eps: the rounding of the least precise sum.

    Raises:
        UnsupportedModelError: the sums differ; named are the functions that PyTorch does not know, if there are any.
    """
    wide = score.detach().to(products.dtype)
    found = products.sum((1, 2)) + biases.sum(1)
    size = products.abs().sum((1, 2)) + biases.abs().sum(1) + wide.abs()
    gap = (found - wide).abs()
    if not (gap > eps**0.5 * size).any():
        return
    row = int((gap / size).argmax())
    unknown = ", ".join(sorted(set(custom_functions(score.grad_fn))))
    raise UnsupportedModelError(
        f'A model in which tokens and biases sum to the score under rule="{rule}".',
        f"{found[row]:.4g} for a score of {wide[row]:.4g}"
        + (f", with a derivative of its own in {unknown}" * bool(unknown)),
        'rule="grad", under which they need not.',
    )


def custom_functions(root: Any) -> Iterator[str]:
    """Names of functions in a graph that bring their own derivative."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction):
            function: Any = vars(type(node))["_forward_cls"]
            if not function.__module__.startswith(OWN):
                yield function.__name__
        waiting += [following for following, _ in node.next_functions]
