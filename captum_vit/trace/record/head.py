"""Where the head reads the tokens that leave the last block: the last place where each is still by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from captum_vit.sites.mode import Mode

FREE_OF_SCALE = 1e-3  # the cosine; what a norm's epsilon leaves is about 1e-6 of the variance, and other maps about 1

Vertex = tuple[Node, int]
"""A tensor of the graph: the function that made it, and which of its results it is."""


class HeadTap(Mode):
    """Keeps the tensors that torch calls make."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Tensor] = []

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.dim() > 1 and result.is_floating_point():
            self.made.append(result)
        return result


class ReadAt(NamedTuple):
    """Where the head reads the rows.

    Attributes:
        x: the tensor that holds the tokens.
        tokens: x, or its gradient, as tokens (M, C).
        rows: (R,), those of which a token is made, sample after sample.
        made: (R,), the token that is made of each.
    """

    x: Tensor
    tokens: Callable[[Tensor], Tensor]
    rows: Tensor
    made: Tensor

    def by_row(
        self,
        of_each: Tensor,  # shape: (M,), of each token
        shape: tuple[int, int],
    ) -> Tensor:  # shape: (B, N)
        """Each token's to its row; zero for rows of which none is made."""
        return of_each.new_zeros(shape).flatten().index_copy(0, self.rows, of_each[self.made]).view(shape)


def read_at(
    rows: Tensor,  # shape: (B, N, D), what leaves the last block
    score: Tensor,  # a scalar
    made: list[Tensor],
    plain: bool = True,
) -> ReadAt:
    """Where the head reads the rows: behind the last norm that works token by token, if it has one.

    In front of a norm a token times its gradient is zero by algebra. The norm is found among the tensors through which
    every path from the rows to the score runs, each of whose tokens is made of one row. So the keys of an attention
    pooling, normalised or not, are no such place, since its values run past them. Tokens may lie in the tensor in any
    order, as a grid, with the channels first, or without those that a mask hides.

    Args:
        rows: the leaf of the graph, or a tensor in it.
        score: what is differentiated.
        made: the tensors that the head makes.
        plain: the graph has the plain gradient. Under a rule that holds the deviation in norms constant they are as
            linear maps: the last tensor of this kind is the place then.
    """
    kept = {_vertex(x): x for x in made if x.requires_grad}
    cuts = [kept[vertex] for vertex in _cuts(rows, score) if vertex in kept]
    for i, (x, before) in enumerate(zip(cuts, [*cuts, rows][1:], strict=True)):
        if not plain or _is_free_of_scale(x, before):
            x = _with_weight(x, cuts[:i])
            for view in VIEWS if x.dim() > 2 else VIEWS[:1]:
                if (found := _made_of_one_each(rows, view(x))) is not None:
                    return ReadAt(x, view, *found)
    every = torch.arange(rows.shape[:2].numel(), device=rows.device)
    return ReadAt(rows, _channels_last, every, every)


def _channels_last(x: Tensor) -> Tensor:
    return x.flatten(0, -2)


def _channels_behind(x: Tensor) -> Tensor:
    """Of a tensor (B, M, ...) those behind the second dimension."""
    return x.flatten(0, 1).flatten(1)


def _channels_first(x: Tensor) -> Tensor:
    """Of a tensor (B, C, ...)."""
    return x.movedim(1, -1).flatten(0, -2)


VIEWS = (_channels_last, _channels_behind, _channels_first)
"""A tensor as tokens (M, C)."""


def _is_free_of_scale(x: Tensor, before: Tensor) -> bool:
    r"""Whether x stays as it is when all that it is made of is multiplied, as behind a norm.

    Of a function f of degree 0 the gradient of any :math:`v \cdot f(a)` is at right angles to a. Here v is x with
    weights from 1 to 2, which makes :math:`v \cdot x` of a linear map at least :math:`\|x\|^2`, far from 0.
    """
    weights = 1.5 + 0.5 * torch.cos(torch.arange(x.numel(), device=x.device)).view(x.shape)
    (g,) = torch.autograd.grad(x, before, (x * weights.to(x)).detach(), retain_graph=True)
    a, g = before.detach().double(), g.double()
    least = max(FREE_OF_SCALE, 3 * torch.finfo(x.dtype).eps)
    return bool((a * g).sum().abs() <= least * a.norm() * g.norm())


def _with_weight(x: Tensor, behind: list[Tensor]) -> Tensor:
    """The last of the tensors behind a norm, the last first, that its own weight and bias make of it, written out."""
    for y in reversed(behind):
        if y.shape != x.shape:
            break
        weights = 1.5 + 0.5 * torch.cos(torch.arange(y.numel(), device=y.device)).view(y.shape).to(y)
        (g,) = torch.autograd.grad(y, x, weights, retain_graph=True)
        slopes = (g / weights).flatten(0, -2)  # of each channel the same for all tokens
        if not (slopes - slopes[:1]).abs().max() <= torch.finfo(x.dtype).eps ** 0.5 * slopes.abs().max():
            break
        x = y
    return x


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


def _made_of_one_each(
    rows: Tensor,  # shape: (B, N, D)
    tokens: Tensor,  # shape: (M, C)
) -> tuple[Tensor, Tensor] | None:  # shapes: (R,)
    r"""The rows of which a token is made, and which one; None unless each is of one, and another for each.

    With :math:`s = \sum_j v_j \cdot y_j` and :math:`s' = \sum_j c_j\,v_j \cdot y_j` the gradients at a row of which
    token j is made, and no other, are :math:`g' = c_j\,g`. So their ratio spells j, digit by digit. Weights c without
    an order then show whether it is the only one.
    """
    number = torch.arange(len(tokens), device=tokens.device)
    v = torch.cos(torch.arange(tokens.numel(), device=tokens.device)).view(tokens.shape).to(tokens)

    def gradient(c: Tensor) -> Tensor:  # (M,) -> (B N, D)
        (g,) = torch.autograd.grad((tokens * v).sum(1) @ c.to(tokens), rows, retain_graph=True)
        return g.flatten(0, 1).double()

    g = gradient(torch.ones_like(number))
    reached = g.any(1).nonzero().squeeze(1)
    if not 0 < len(reached) <= len(number):
        return None
    g, spelt = g[reached], torch.zeros_like(reached)

    def is_scaled(more: Tensor, c: Tensor) -> bool:
        return bool(((more - c.unsqueeze(1) * g).norm(dim=1) <= 0.25 * g.norm(dim=1)).all())

    for place in _places(len(number), base := 4096 if torch.finfo(tokens.dtype).bits > 16 else 32):
        more = gradient(1 + number // place % base)[reached]
        digit = ((more * g).sum(1) / (g * g).sum(1) - 1).round()
        if not is_scaled(more, 1 + digit):
            return None
        spelt += place * digit.long()
    if spelt.max() >= len(number) or len(spelt.unique()) < len(spelt):
        return None
    c = 2 + 2 * torch.cos(number.double().square())
    return (reached, spelt) if is_scaled(gradient(c)[reached], c[spelt]) else None


def _places(n: int, base: int) -> list[int]:
    """The values of the digits that n numbers need: 1, base, base squared, ..."""
    places = [1]
    while places[-1] * base < n:
        places.append(places[-1] * base)
    return places
