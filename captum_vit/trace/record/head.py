"""Where the head reads the tokens that leave the last block: the last place where each is still by itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from captum_vit.sites.mode import Mode

FREE_OF_SCALE = 1e-3  # the cosine; what a norm's epsilon leaves is about 1e-6 of the variance, and other maps about 1

Vertex = tuple[Node, int]
"""A tensor of the graph: the function that made it, and which of its results it is."""


class HeadTap(Mode):
    """Keeps the tensors (B, M, ...) that torch calls make while it is ``active``: behind the blocks.

    Args:
        batch: B.
    """

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch, self.active = batch, False
        self.made: list[Tensor] = []

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.dim() > 2 and len(result) == self.batch:
            self.made.append(result)
        return result


class ReadAt(NamedTuple):
    """Where the head reads the rows.

    Attributes:
        tokens: (B, M, ...), each made of one row.
        rows: (M,), the row of which each is made.
    """

    tokens: Tensor
    rows: Tensor

    def by_row(
        self,
        x: Tensor,  # shape: (B, M), of each token
        n_tokens: int,
    ) -> Tensor:  # shape: (B, N)
        """Each token's to its row; zero for rows of which none is made."""
        return x.new_zeros(len(x), n_tokens).index_copy(1, self.rows, x)


def read_at(
    rows: Tensor,  # shape: (B, N, D), what leaves the last block
    score: Tensor,  # a scalar
    made: list[Tensor],
    plain: bool = True,
) -> ReadAt:
    """Where the head reads the rows: behind the last norm that works token by token, if it has one.

    In front of a norm a token times its gradient is zero by algebra. The norm is found among the tensors through which
    every path from the rows to the score runs, each of whose tokens is made of one row. So the keys of an attention
    pooling, normalised or not, are no such place, since its values run past them.

    Args:
        rows: the leaf of the graph, or a tensor in it.
        score: what is differentiated.
        made: the tensors that the head makes.
        plain: the graph has the plain gradient. Under a rule that holds the deviation in norms constant they are as
            linear maps: the last tensor of this kind is the place then.
    """
    kept = {_vertex(x): x for x in made if x.requires_grad}
    cuts = [kept[vertex] for vertex in _cuts(rows, score) if vertex in kept]
    for x, before in zip(cuts, [*cuts, rows][1:], strict=True):
        if (not plain or _is_free_of_scale(x, before)) and (of := _row_of_each(rows, x)) is not None:
            return ReadAt(x, of)
    return ReadAt(rows, torch.arange(rows.shape[1], device=rows.device))


def _is_free_of_scale(x: Tensor, before: Tensor) -> bool:
    r"""Whether x stays as it is when all that it is made of is multiplied, as behind a norm.

    Of a function f of degree 0 the gradient of any :math:`v \cdot f(a)` is at right angles to a. Here v is x with
    weights from 1 to 2, which makes :math:`v \cdot x` of a linear map at least :math:`\|x\|^2`, far from 0. The first
    sample tells.
    """
    weights = 1.5 + 0.5 * torch.cos(torch.arange(x[0].numel(), device=x.device)).view(x[0].shape)
    (g,) = torch.autograd.grad(x[0], before, (x[0] * weights.to(x)).detach(), retain_graph=True)
    a, g = before[0].detach().double(), g[0].double()
    least = max(FREE_OF_SCALE, 3 * torch.finfo(x.dtype).eps)
    return bool((a * g).sum().abs() <= least * a.norm() * g.norm())


def _cuts(rows: Tensor, score: Tensor) -> list[Vertex]:
    """What lies on every path from the rows to the score, the last first.

    A tensor does if the number of paths to it times that from it is the number of all paths.
    """
    begin, end = _vertex(rows), _vertex(score)
    ordered = _ordered(end, begin)
    from_end = dict.fromkeys(ordered, 0) | {end: 1}
    for vertex in ordered:
        for below in _below(vertex, begin):
            from_end[below] += from_end[vertex]
    from_begin = dict.fromkeys(ordered, 0) | {begin: 1}
    for vertex in reversed(ordered):
        if vertex != begin:
            from_begin[vertex] = sum(from_begin[below] for below in _below(vertex, begin))
    paths = from_begin[end]
    return [vertex for vertex in ordered if vertex != begin and from_end[vertex] * from_begin[vertex] == paths]


def _ordered(end: Vertex, begin: Vertex) -> list[Vertex]:
    """Everything from the score back to the rows, each before what it is made of."""
    found: list[Vertex] = []
    seen: set[Vertex] = set()
    waiting = [(end, False)]
    while waiting:
        vertex, done = waiting.pop()
        if done:
            found.append(vertex)
        elif vertex not in seen:
            seen.add(vertex)
            waiting.append((vertex, True))
            waiting += [(below, False) for below in _below(vertex, begin)]
    return found[::-1]


def _below(vertex: Vertex, begin: Vertex) -> list[Vertex]:
    return [] if vertex == begin else [(fn, i) for fn, i in vertex[0].next_functions if fn is not None]


def _vertex(x: Tensor) -> Vertex:
    edge = get_gradient_edge(x)
    return edge.node, edge.output_nr


def _row_of_each(
    rows: Tensor,  # shape: (B, N, D)
    tokens: Tensor,  # shape: (B, M, ...)
) -> Tensor | None:  # shape: (M,)
    r"""The row of which each token is made; None unless that is one, and another for each. The first sample tells.

    With :math:`s = \sum_j v_j \cdot y_j` and :math:`s' = \sum_j c_j\,v_j \cdot y_j` the gradients at a row of which
    token j is made, and no other, are :math:`g' = c_j\,g`. So their ratio spells j, digit by digit.
    """
    first, number = tokens[0].flatten(1), torch.arange(tokens.shape[1], device=tokens.device)
    v = torch.cos(torch.arange(first.numel(), device=first.device)).view(first.shape).to(first)

    def gradient(c: Tensor) -> Tensor:  # (M,) -> (N, D)
        (g,) = torch.autograd.grad((first * v).sum(1) @ c.to(first), rows, retain_graph=True)
        return g[0].flatten(1).double()

    g = gradient(torch.ones_like(number))
    reached = g.any(1)
    if int(reached.sum()) != len(number):
        return None
    g, spelt = g[reached], torch.zeros_like(number)
    for place in _places(len(number), base := 4096 if torch.finfo(tokens.dtype).bits > 16 else 32):
        more = gradient(1 + number // place % base)[reached]
        digit = ((more * g).sum(1) / (g * g).sum(1) - 1).round()
        if ((more - (1 + digit).unsqueeze(1) * g).norm(dim=1) > 0.25 * g.norm(dim=1)).any():
            return None  # made of several rows
        spelt += place * digit.long()
    if not torch.equal(spelt.sort().values, number):
        return None
    return reached.nonzero().squeeze(1)[spelt.argsort()]


def _places(n: int, base: int) -> list[int]:
    """The values of the digits that n numbers need: 1, base, base squared, ..."""
    places = [1]
    while places[-1] * base < n:
        places.append(places[-1] * base)
    return places
