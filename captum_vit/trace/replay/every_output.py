"""Maps of all outputs at once: what differs from class to class is a small Jacobian."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_vit.errors import TargetError
from captum_vit.trace.record.products import over_channels
from captum_vit.trace.replay.cls_tail import ClsTail
from captum_vit.trace.replay.projections import AnswerAttention

ROWS_AT_ONCE = 4096  # of probes times samples: what a layer's batch would be


def maps_of_every_output(
    tokens: Tensor,  # shape: (B, N, D), a leaf
    output: Tensor,  # shape: (B, C), with a graph
    standing: slice | Tensor,  # the tokens that stand for a place
) -> Tensor:  # shape: (B, N, C)
    """Gradient x input of every output, by a backward pass for each through one graph."""
    with torch.enable_grad():
        columns = columns_of(output).sum(0).unbind()
    grads = (torch.autograd.grad(c, tokens, retain_graph=True, allow_unused=True)[0] for c in columns)
    maps = [torch.zeros_like(tokens[..., 0]) if g is None else over_channels(tokens * g, standing) for g in grads]
    return torch.stack(maps, -1).detach()


def columns_of(output: Tensor) -> Tensor:  # (B, C), or (B,) for one output
    """Outputs that have one number for each sample and class."""
    if output.dim() > 2:
        raise TargetError(
            "A model whose output is one score for each class, (B, C).",
            f"output of shape {tuple(output.shape)}",
            "captum_vit.Scalar(model, lambda output: ...) that picks the place to explain.",
        )
    return output if output.dim() == 2 else output.unsqueeze(-1)


class EveryOutput:
    r"""All maps of a CLS-pooled model, :math:`S^c_i = \sum_m \partial_{z_m} F_c\;\partial_{\lambda_i} z_m`.

    ``z`` is what the CLS row's heads attend to. The second factor has a closed form and is the same for all
    classes; the first takes a backward probe through the CLS tail for every class, or, where a linear head
    ends the model, for every feature that it reads.
    """

    def __init__(self, tail: ClsTail) -> None:
        self.tail = tail
        self.tokens = tail.prefix.tokens.to(tail.projections.keys.dtype)  # shape: (B, N, D)

    def maps(self) -> Tensor:  # shape: (B, N, C)
        """The maps of all outputs."""
        with self.tail.behind(self._cls_row) as attention:
            attention.answer = self._context
            output = columns_of(self.tail.run())
            features, head = _head(attention, output)
            by_context, by_row = (x.squeeze(-2) for x in _jacobian(features, [self.context, self.row]))
        S = torch.einsum("pbhd,bnhd->bnp", by_context, self._slopes())
        S[:, 0] += torch.einsum("pbhd,bhd->bp", by_context, self._slopes_by_query())
        S[:, 0] += torch.einsum("pbe,be->bp", by_row, self.tokens[:, 0])
        return S if head is None else S @ head.to(S.dtype).T

    def _cls_row(self) -> Tensor:
        self.row = self.tail.prefix.tokens[:, :1].detach().requires_grad_()
        return self.row

    def _context(self, query: Tensor) -> Tensor:  # (B, H, 1, d) -> (B, H, 1, d)
        """The CLS row's context, as a leaf: its query is followed apart."""
        project = self.tail.projections
        self.query_slope = _derivative_along(query, self.row, self.tail.prefix.tokens[:, :1])
        with torch.no_grad():
            self.s = project.pulled(query) @ self.tokens.mT  # shape: (B, H, N)
            self.A = self.s.softmax(-1)
            self.values = torch.einsum("bne,hde->bnhd", self.tokens, project.values)
            z = torch.einsum("bhn,bnhd->bhd", self.A, self.values)
            self.deviation = self.values - z.unsqueeze(1)  # shape: (B, N, H, d)
            self.context = (z + project.bias).unsqueeze(2).to(query.dtype).requires_grad_()
        return self.context

    def _slopes(self) -> Tensor:  # shape: (B, N, H, d)
        r""":math:`A_i\,(v_i + s_i (v_i - z))`: the token's value, and where its key draws attention."""
        s, A = (x.mT.unsqueeze(-1) for x in (self.s, self.A))
        return A * (self.values + s * self.deviation)

    def _slopes_by_query(self) -> Tensor:  # shape: (B, H, d)
        """How the context moves with the CLS token through its query."""
        s = self.tail.projections.pulled(self.query_slope) @ self.tokens.mT  # shape: (B, H, N)
        return torch.einsum("bhn,bnhd->bhd", self.A * s, self.deviation)


def _head(attention: AnswerAttention, output: Tensor) -> tuple[Tensor, Tensor | None]:
    """The features that a last linear layer reads, and its weight; the output itself where there are fewer of it."""
    for linear in attention.linears:
        x = linear.input
        if linear.output is output and x.dim() == 2 and x.shape[1] < output.shape[1]:
            return x, linear.weight.detach()
    return output, None


def _jacobian(
    output: Tensor,  # shape: (B, P)
    leaves: list[Tensor],  # shapes: (B, ...)
) -> list[Tensor]:  # shapes: (P, B, ...)
    """Backward probes, many at a time."""
    batch, width = output.shape
    probes = torch.eye(width, dtype=output.dtype, device=output.device).unsqueeze(1).expand(-1, batch, -1)
    wide = torch.promote_types(output.dtype, torch.float32)
    found: list[list[Tensor]] = []
    for some in probes.split(max(1, ROWS_AT_ONCE // batch)):
        grads = torch.autograd.grad(output, leaves, some, retain_graph=True, is_grads_batched=True, allow_unused=True)
        found.append([_or_zeros(g, len(some), x).to(wide) for g, x in zip(grads, leaves, strict=True)])
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def _or_zeros(grads: Tensor | None, times: int, x: Tensor) -> Tensor:
    return x.new_zeros(times, *x.shape) if grads is None else grads


def _derivative_along(y: Tensor, x: Tensor, direction: Tensor) -> Tensor:
    """The derivative of y along a direction of x, by two backward passes."""
    if not y.requires_grad:
        return torch.zeros_like(y)
    w = torch.zeros_like(y, requires_grad=True)
    (g,) = torch.autograd.grad(y, x, w, create_graph=True)
    return torch.autograd.grad(g, w, direction, retain_graph=True)[0]
