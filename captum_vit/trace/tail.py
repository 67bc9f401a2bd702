"""f_l: the part of a model from block l to its output, run by the model's own code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.models.output import scores_of
from captum_vit.models.spec import Transformer
from captum_vit.tokens import TokenLayout
from captum_vit.trace.site import Site


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
    """Inside, the module runs ``forward`` in place of its own; its hooks fire as ever."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


class SubNetwork(nn.Module):
    """The network f_l as a function of the tokens at block ``layer``, for any attribution method.

    The model's own inputs follow as further arguments: masks and positions are computed from them.
    """

    def __init__(self, model: nn.Module, transformer: Transformer, layer: int) -> None:
        super().__init__()
        self.model, self.transformer, self.layer = model, transformer, layer
        self.training = model.training

    def forward(self, tokens: Tensor, *inputs: Any) -> Tensor:
        with entering(self.transformer, self.layer, tokens):
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
    A head that scores every token gives (B, N, 1, K).
    """
    batch, n_tokens, _ = tokens.shape
    alone = tokens.flatten(0, 1).unsqueeze(1).expand(-1, layout.prefix + 1, -1)
    first = [_first(x, batch, layout) for x in (*inputs, *args)]
    with torch.no_grad(), entering(transformer, len(transformer.blocks), alone):
        return scores_of(model(*first)).unflatten(0, (batch, n_tokens))


def _first(x: Any, batch: int, layout: TokenLayout) -> Any:
    """Of a batch of arguments the first sample's; of a text, its first word that is no padding."""
    if not isinstance(x, Tensor) or x.dim() == 0 or len(x) != batch:
        return x
    if layout.grid is not None or x.dim() != 2 or x.shape[1] != layout.n_tokens:
        return x[:1]
    word = 0 if layout.keep is None else int(layout.keep[0].int().argmax())
    return x[:1, word : word + 1]
