"""f_l: the part of a model from block l to its output, run by the model's own code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import MISFITS, CaptumVitError, TraceError, UnsupportedModelError
from captum_vit.models.modules import modules_of
from captum_vit.models.output import scores_of
from captum_vit.models.per_sample import is_of_each_sample
from captum_vit.models.transformer import Transformer
from captum_vit.sites.site import running
from captum_vit.tokens import TokenLayout
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import refuse_opaque
from captum_vit.trace.run.watch import UNHIDDEN, model_errors_as_ours

COPIES = 64  # of a picture, at once


@contextmanager
def entering(
    transformer: Transformer,
    layer: int,
    tokens: Tensor,  # shape: (B', N', D), at the input of the block; the depth means after the last block
) -> Iterator[None]:
    """Inside, the model runs its embedding, skips the blocks before ``layer``, and goes on with ``tokens``.

    Blocks that are no modules of their own run, and what they make is not used.
    """
    blocks, returns = transformer.blocks, transformer.returns
    skipped = tokens if returns is None else returns(tokens)
    with ExitStack() as stack:
        before = transformer.modules()[:layer] if transformer.stacked else ()
        stack.enter_context(running(lambda *args, **kwargs: skipped, before))
        if layer < len(blocks):
            stack.callback(blocks[layer].entrance.hook(lambda x: tokens).remove)
        elif not transformer.stacked:
            stack.callback(blocks[-1].out.hook(lambda x: tokens).remove)
        yield


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
            refuse_opaque(modules_of(self.model))
        scores = self.scores(x if self.dtype is None else x.to(self.dtype), *inputs)
        if torch.is_grad_enabled() and x.requires_grad and not scores.requires_grad:
            hint = f"a method that reads tokens, such as LayerCDAM, or {UNHIDDEN}"
            raise TraceError("Scores that depend on the input with a gradient.", "scores without a graph", hint)
        return scores

    def scores(self, x: Tensor, *inputs: Any) -> Tensor:
        with model_errors_as_ours(self.model, x, *inputs):
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
        with model_errors_as_ours(self.model, *inputs), entering(self.transformer, self.layer, x):
            return scores_of(self.model(*inputs))


def readout(
    call: Pass,
    tokens: Tensor,  # shape: (B, N, D), as they leave a block
    layout: TokenLayout,
) -> Tensor:  # shape: (B, N, K)
    r"""What the head says of every token by itself, nu(x_i), by the model's own code after the blocks.

    The head is given sequences whose rows are all x_i, so any pooling (CLS, mean, attention, distilled)
    returns x_i's own reading. One row for each kind of token will do; a text, with its masks, is cut to one word
    of its own. A head that scores every token gives (B, N, 1, K).

    Pictures and other arguments are those of two samples, which is enough for a head that does not read them. One
    that reads them beside the tokens cannot use two for all: each sample is then read with its own, and if need be
    with a copy of them for each token.

    Raises:
        UnsupportedModelError: the head does not read such sequences.
    """
    batch = len(tokens)
    try:
        return _readings(call, tokens, layout, n_given=2)
    except torch.OutOfMemoryError:
        raise
    except MISFITS:
        if batch == 1:
            return _readings_with_copies(call, tokens, layout)
    rows = torch.arange(batch, device=tokens.device).split(1)
    return torch.cat([readout(call.of(row), tokens[row], _of_sample(layout, row)) for row in rows])


def _readings(
    call: Pass,
    tokens: Tensor,
    layout: TokenLayout,
    n_given: int | None,
    whole: bool = False,
) -> Tensor:  # shape: (B, N, K)
    """One pass of the head over all tokens, with the pictures and arguments of the first ``n_given`` samples.

    Sequences are as short as the head may take them, or as long as the model's (``whole``).
    """
    batch, n_tokens, _ = tokens.shape
    whole = whole or not layout.in_front  # a head may count to the tokens that it reads
    length = layout.n_tokens if whole else layout.prefix + 1
    alone = tokens.flatten(0, 1).unsqueeze(1).expand(-1, length, -1)

    def given(x: Any) -> Any:
        if not is_of_each_sample(x, batch):
            return x
        if not _is_text(x, layout):
            return x[:n_given]
        return (x if whole else _first_words(x, layout)).repeat_interleave(n_tokens, 0)

    handed, transformer = list(map(given, (*call.inputs, *call.args))), call.transformer
    with torch.no_grad(), entering(transformer, len(transformer.blocks), alone):
        return scores_of(call.model(*handed)).unflatten(0, (batch, n_tokens))


def _readings_with_copies(
    call: Pass,
    tokens: Tensor,  # shape: (1, N, D)
    layout: TokenLayout,
    whole: bool = False,
) -> Tensor:  # shape: (1, N, K)
    """Each token as a sample by itself, some at a time, with its own copy of the picture and the arguments.

    Where that is refused too, sequences are as long as the model's: positions may be added between blocks, and code
    may depend on their number.
    """

    def copied(some: Tensor, x: Any) -> Any:
        return x.expand(len(some), *x.shape[1:]) if is_of_each_sample(x, 1) else x

    said = []
    try:
        for some in tokens.movedim(0, 1).split(COPIES):
            each = replace(layout, keep=copied(some, layout.keep))
            own, others = (tuple(copied(some, x) for x in given) for given in (call.inputs, call.args))
            said.append(_readings(replace(call, inputs=own, args=others), some, each, None, whole))
    except torch.OutOfMemoryError:
        raise
    except MISFITS as error:
        if not whole:
            return _readings_with_copies(call, tokens, layout, whole=True)
        if isinstance(error, CaptumVitError):
            raise
        raise UnsupportedModelError(
            "A head that reads a sequence of copies of one token.",
            f"{type(call.model).__name__}, whose own code refuses it with {type(error).__name__}: {error}",
            "a method that gives the head the whole sequence, such as LayerCDAM.",
        ) from error
    return torch.cat(said).movedim(0, 1)


def _of_sample(layout: TokenLayout, row: Tensor) -> TokenLayout:
    """The layout of one sample of a batch."""
    return layout if layout.keep is None else replace(layout, keep=layout.keep[row])


def _is_text(x: Tensor, layout: TokenLayout) -> bool:
    """Ids, and what lies beside them word by word, such as masks."""
    return layout.grid is None and x.dim() == 2 and x.shape[1] == layout.n_tokens


def _first_words(
    x: Tensor,  # shape: (B, T)
    layout: TokenLayout,
) -> Tensor:  # shape: (B, 1)
    """Of each text its first word that is no padding, and what lies beside it."""
    return x[:, :1] if layout.keep is None else x.gather(1, layout.keep.int().argmax(1, keepdim=True))
