r"""The CLS tail: all that the last block of a CLS-pooled model does for its output, at a share of its price.

Only the CLS row of the last block reaches the output. With its query pulled into token space, scores are
products with the tokens themselves and the context is a mean of tokens, projected last:

.. math::
    s_i = T_i \cdot W_K^\top q, \qquad z = \Big(\sum_i A_i T_i\Big) W_V + b_V

so attention costs N D H, not N D^2, and everything after it runs for one row, by the model's own code. Whether
this is what a model computes is found by looking and by comparing outputs, never by a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from captum._utils.typing import TargetType
from torch import Tensor, nn

from captum_vit.errors import MISFITS, CaptumVitError
from captum_vit.models.modules import modules_of
from captum_vit.models.output import scores_of
from captum_vit.sites.calls import ValueSite
from captum_vit.sites.nests import first_tensor, holds_tensor, swap
from captum_vit.sites.site import Place, Site, reached, running
from captum_vit.trace.replay.gradient import gradient_of, refuse_several
from captum_vit.trace.replay.projections import AnswerAttention, LookAtAttention, Projections, alike
from captum_vit.trace.replay.replay import Prefix, Slopes, repeat_samples, run_prefix
from captum_vit.trace.replay.subnetwork import entering
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.score import repeat_target, select
from captum_vit.trace.run.watch import model_errors_as_ours


def may_have_cls_tail(call: Pass, site: Place) -> bool:
    """Whether it is worth looking: the last block's attention is read, nothing else depends on the sample, no hooks."""
    transformer = call.transformer
    if transformer.refusal is not None or transformer.calls or transformer.post_norm:
        return False
    if len(call.inputs) != 1 or holds_tensor(call.args):
        return False
    last = transformer.blocks[-1]
    at_attention = isinstance(site, Site) and site.of == 1 and site == last.attn_in
    by_call = any(isinstance(place, ValueSite) for b in transformer.blocks for place in (b.entrance, b.out))
    if last.module is None or not at_attention or by_call:  # a tail makes other calls than the block
        return False
    before = [module for module in transformer.modules() if module is not last.module]
    return all(map(_untouched, modules_of(call.model, without=before)))


def _untouched(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return not any(hooks) and "forward" not in vars(module)


def cls_tail(call: Pass, site: Place) -> tuple[Prefix | None, ClsTail | None]:
    """The prefix, and the CLS tail behind it: None where it does not give the output that the model gives.

    Costs the blocks but the last, and the last for the first sample alone: its output is what the tail is held to.
    A head that reads its input beside the tokens shows there, since it is given rows of another number than samples:
    it gives another number of scores, or fails, and then there is no prefix either.
    """
    block = call.transformer.modules()[-1]
    last = _FirstSample(block, site)
    try:
        prefix = run_prefix(call, site, running(last, [block]))
    except (CaptumVitError, torch.OutOfMemoryError):
        raise
    except MISFITS:
        return None, None
    projections = None if last.look is None else last.look.projections(prefix.tokens[:1])
    if projections is None or not last.is_read_at_cls_alone(prefix.output):
        return prefix, None
    tail = ClsTail(prefix, projections)
    found, wanted = tail.here[:1].detach(), prefix.output.detach()
    return prefix, tail if len(wanted) == last.n_rows and alike(found, wanted[:1]) else None


class _FirstSample:
    """A block that runs as far as its attention for all samples, and to the end for the first one, under watch.

    A block that is given more tensors than its tokens runs as ever.
    """

    def __init__(self, block: nn.Module, site: Place) -> None:
        self.block, self.forward, self.site, self.times = block, block.forward, site, 0
        self.look: LookAtAttention | None = None
        self.rows: Tensor | None = None  # what leaves the block, a leaf
        self.n_rows = 0  # how many samples the head is given: not as many as there are

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.times += 1
        refuse_several(self.times, type(self.block).__name__)
        if not args or not isinstance(args[0], Tensor) or holds_tensor((args[1:], kwargs)):
            return self.forward(*args, **kwargs)
        reached(self.site, partial(self.forward, *args, **kwargs))
        with LookAtAttention() as self.look:
            output = self.forward(args[0][:1], *args[1:], **kwargs)
        rows = first_tensor(output)
        assert rows is not None
        torch.set_grad_enabled(True)
        self.rows = rows.detach().requires_grad_()
        self.n_rows = 2 if len(args[0]) == 1 else 1
        return swap(output, rows, self.rows.expand(self.n_rows, -1, -1))

    def is_read_at_cls_alone(self, output: Tensor) -> bool:
        """Whether no other row has a gradient of a fixed mixture of all outputs."""
        if self.rows is None or not output.requires_grad:
            return False
        with torch.enable_grad():
            weights = torch.arange(1, output.numel() + 1, device=output.device, dtype=output.dtype).cos()
            score = (output.flatten() * weights).sum()
        (grad,) = torch.autograd.grad(score, self.rows, allow_unused=True)
        return grad is not None and bool(grad[:, 0].any()) and not grad[:, 1:].any()


class ClsTail:
    r"""The output as a function of one number for each token, :math:`F(\lambda)`, at tokens base + lambda slope.

    By the chain rule :math:`\partial F / \partial \lambda_i = \sum_j s_{ij}\,\partial F / \partial T_{ij}`: gradient x
    input, and no gradient is ever carried back to the width of the tokens.
    """

    slope_rows = 48  # each holds a sequence of its own
    point_rows = 2048  # the sequence is shared: a row of attention for each

    def __init__(self, prefix: Prefix, projections: Projections) -> None:
        self.prefix, self.projections = prefix, projections
        self.n_special = len(prefix.watch.layout(prefix.tokens.shape[1]).special)
        self.ones = self._leaf(prefix.tokens, prefix.tokens.new_ones(1))
        self.here = self.outputs(self.ones, prefix.tokens)  # with a graph

    def at_tokens(self, target: TargetType) -> Tensor:  # shape: (B, N)
        """Slopes at the tokens as they are, from zero."""
        with torch.enable_grad():
            score = select(self.here, target)
        return gradient_of(score, self.ones, retain_graph=True).squeeze(1)

    def along(
        self,
        target: TargetType,
        slope: Tensor,  # shape: (M, B, N, D)
        points: Tensor,  # shape: (S,), values of lambda
        base: Tensor | None = None,  # shape: (B, N, D), where M is 1
    ) -> Slopes:
        """Slopes at the tokens ``base + lambda * slope``, for every slope and lambda."""
        shape = *slope.shape[:2], len(points)
        slope = slope.flatten(0, 1)
        lam = self._leaf(slope, points)
        output = self.outputs(lam, slope, base)
        with torch.enable_grad():
            score = select(output, repeat_target(target, shape[2], shape[0]))
        return Slopes(gradient_of(score, lam).view(*shape, -1), score.detach().view(shape))

    def _leaf(self, slope: Tensor, points: Tensor) -> Tensor:  # shape: (G, S, N)
        points = points.to(slope.device, self.projections.keys.dtype)
        return points.view(1, -1, 1).repeat(len(slope), 1, slope.shape[1]).requires_grad_()

    def outputs(
        self,
        lam: Tensor,  # shape: (G, S, N)
        slope: Tensor,  # shape: (G, N, D): the samples, G = B, or several slopes for all of them, G = M * B
        base: Tensor | None = None,  # shape: (G, N, D)
    ) -> Tensor:  # shape: (G * S, K)
        """What the model returns."""
        wide = self.projections.keys.dtype
        slope = slope.to(wide)
        base = None if base is None else base.to(wide)

        def cls_row() -> Tensor:
            row = lam[..., :1, None] * slope[:, None, :1]
            row = row if base is None else row + base[:, None, :1]
            return row.flatten(0, 1)  # shape: (G * S, 1, D)

        with self.behind(cls_row, steps=lam.shape[1], times=len(lam) // len(self.prefix.tokens)) as attention:
            attention.answer = partial(self.context, lam, slope, base)
            return self.run()

    def context(
        self, lam: Tensor, slope: Tensor, base: Tensor | None, query: Tensor
    ) -> Tensor:  # shape: (G * S, H, 1, d), as the query's
        """What the CLS row's heads attend to."""
        pulled = self.projections.pulled(query).unflatten(0, lam.shape[:2])  # shape: (G, S, H, D)
        lam = lam.unsqueeze(2)  # shape: (G, S, 1, N)

        def product(x: Tensor, y: Tensor) -> Tensor:  # (G, S, H, .), (G, ., ..) -> (G, S, H, ..)
            return (x.flatten(1, 2) @ y).unflatten(1, x.shape[1:3])

        s = lam * product(pulled, slope.mT)
        A = (s if base is None else s + product(pulled, base.mT)).softmax(-1)
        attended = product(A * lam, slope)
        attended = attended if base is None else attended + product(A, base)
        return self.projections.values_of(attended.flatten(0, 1)).unsqueeze(2).to(query.dtype)

    @contextmanager
    def behind(self, cls_row: Callable[[], Tensor], steps: int = 1, times: int = 1) -> Iterator[AnswerAttention]:
        """Inside, the model starts at its last block with CLS rows alone, whose attention is answered."""
        at, call, transformer = self.prefix, self.prefix.call, self.prefix.call.transformer
        assert at.stream is not None  # the site lies in the last block
        stream = repeat_samples(at.stream[:, :1], steps, times)

        def put(x: Tensor) -> Tensor:
            torch.set_grad_enabled(True)
            return cls_row().to(x.dtype)

        def as_many_as_prefixes(x: Tensor) -> Tensor:
            return x.expand(-1, max(self.n_special, 1), -1)  # a head may ask for rows that it does not use

        with model_errors_as_ours(call.model, *call.inputs, *call.args), torch.no_grad(), ExitStack() as stack:
            stack.enter_context(entering(transformer, len(transformer.blocks) - 1, stream))
            if at.watch.embedded is not None:  # not used, so not computed again
                module, picture = at.watch.embedded
                stack.enter_context(running(lambda *_, **__: picture, [module]))
            stack.callback(at.site.hook(put).remove)
            stack.callback(transformer.blocks[-1].out.hook(as_many_as_prefixes).remove)
            yield stack.enter_context(AnswerAttention())

    def run(self) -> Tensor:
        """The model's own code; its embedding, which is not used, sees one sample."""
        call = self.prefix.call
        return scores_of(call.model(call.inputs[0][:1], *call.args))
