"""f_l: the part of a model from block l to its output, run by the model's own code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import TraceError
from captum_vit.models.output import scores_of
from captum_vit.models.spec import Transformer
from captum_vit.tokens import TokenLayout
from captum_vit.trace.site import Forward, Site
from captum_vit.trace.state import refuse_opaque
from captum_vit.trace.watch import UNHIDDEN, own_refusals


@contextmanager
def entering(
    transformer: Transformer,
    layer: int,
    tokens: Tensor,  # shape: (B', N', D), at the input of the block; the depth means after the last block
) -> Iterator[None]:
    """Inside, the model runs its embedding, skips the blocks before ``layer``, and goes on with ``tokens``."""
    blocks, returns = transformer.blocks, transformer.spec.returns
    skipped = tokens if returns is None else returns(tokens)
    with ExitStack() as stack:
        for block in blocks[:layer]:
            stack.enter_context(forward_replaced(block, lambda *args, **kwargs: skipped))
        if layer < len(blocks):
            stack.callback(Site(transformer.entrance(layer), "input").hook(lambda x: tokens).remove)
        yield


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside, the module runs ``forward`` in place of its own, in this thread; its hooks fire as ever."""
    replaced = Forward(module, forward)
    try:
        yield
    finally:
        replaced.remove()


class Network(nn.Module):
    """The network f as a function of its input, for any attribution method: f(x, *further arguments) is its scores.

    With a ``dtype``, what Captum adds to ``x`` in float32 (its noise) reaches the model in that precision.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype
        self.training = model.training

    def forward(self, x: Tensor, *inputs: Any) -> Tensor:
        if x.requires_grad:
            refuse_opaque(self.model)
        scores = self.scores(x if self.dtype is None else x.to(self.dtype), *inputs)
        if torch.is_grad_enabled() and x.requires_grad and not scores.requires_grad:
            raise TraceError("Scores that depend on the input with a gradient.", "scores without a graph", UNHIDDEN)
        return scores

    def scores(self, x: Tensor, *inputs: Any) -> Tensor:
        with own_refusals(self.model, x, *inputs):
            return scores_of(self.model(x, *inputs))


class SubNetwork(Network):
    """The network f_l as a function of the tokens at block ``layer``.

    The model's own inputs follow as further arguments: masks and positions are computed from them.
    """

    def __init__(
        self, model: nn.Module, transformer: Transformer, layer: int, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(model, dtype)
        self.transformer, self.layer = transformer, layer

    def scores(self, x: Tensor, *inputs: Any) -> Tensor:
        with own_refusals(self.model, *inputs), entering(self.transformer, self.layer, x):
            return scores_of(self.model(*inputs))


def readout(
    model: nn.Module,
    transformer: Transformer,
    tokens: Tensor,  # shape: (B, N, D), as they leave a block
    layout: TokenLayout,
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
) -> Tensor:  # shape: (B, N, K)
    r"""What the head says of every token by itself, nu(x_i), by the model's own code after the blocks.

    The head is given sequences whose rows are all x_i, so any pooling (CLS, mean, attention, distilled)
    returns x_i's own reading. One row for each kind of token will do; a text, with its masks, is cut to one word.
    A head that scores every token gives (B, N, 1, K). Where arguments differ from sample to sample, and the head
    may read them, samples are read one by one.
    """
    batch, n_tokens, _ = tokens.shape
    if batch > 1 and any(is_of_each_sample(x, batch) and not _is_text(x, layout) for x in args):
        return torch.cat([_readout_of(i, model, transformer, tokens, layout, inputs, args) for i in range(batch)])
    alone = tokens.flatten(0, 1).unsqueeze(1).expand(-1, layout.prefix + 1, -1)
    first = [_first(x, batch, layout) for x in (*inputs, *args)]
    with torch.no_grad(), entering(transformer, len(transformer.blocks), alone):
        return scores_of(model(*first)).unflatten(0, (batch, n_tokens))


def _readout_of(
    i: int,
    model: nn.Module,
    transformer: Transformer,
    tokens: Tensor,
    layout: TokenLayout,
    inputs: tuple[Tensor, ...],
    args: tuple[Any, ...],
) -> Tensor:  # shape: (1, N, K)
    """One sample of a batch, with its own arguments."""
    own = [tuple(x[i : i + 1] if is_of_each_sample(x, len(tokens)) else x for x in given) for given in (inputs, args)]
    keep = None if layout.keep is None else layout.keep[i : i + 1]
    return readout(model, transformer, tokens[i : i + 1], replace(layout, keep=keep), *own)


def is_of_each_sample(x: Any, batch: int) -> bool:
    """Whether an argument holds one value for each sample, by Captum's rule: a tensor as long as the batch."""
    return isinstance(x, Tensor) and x.dim() > 0 and len(x) == batch


def _is_text(x: Tensor, layout: TokenLayout) -> bool:
    """Ids, and what lies beside them word by word, such as masks."""
    return layout.grid is None and x.dim() == 2 and x.shape[1] == layout.n_tokens


def _first(x: Any, batch: int, layout: TokenLayout) -> Any:
    """Of a batch of arguments the first sample's; of a text, its first word that is no padding."""
    if not is_of_each_sample(x, batch):
        return x
    if not _is_text(x, layout):
        return x[:1]
    word = 0 if layout.keep is None else int(layout.keep[0].int().argmax())
    return x[:1, word : word + 1]
