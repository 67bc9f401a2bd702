"""One block's attention held constant, so that its tokens count through their values alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch.nn import functional as F

from captum_vit.errors import TraceError
from captum_vit.models.transformer import Block
from captum_vit.sites.mode import Mode
from captum_vit.trace.modes.attention_weights import SOFTMAX
from captum_vit.trace.modes.explicit import BEGINNINGS
from captum_vit.trace.modes.frozen import frozen_attention


class _Held(Mode):
    """While ``active``, attention probabilities carry no gradient."""

    reads = BEGINNINGS

    def __init__(self) -> None:
        super().__init__()
        self.active, self.seen = False, 0

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.scaled_dot_product_attention:
            self.seen += 1
            return frozen_attention(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in SOFTMAX and result.dim() >= 3:
            self.seen += 1
            return result.detach()
        return result


@contextmanager
def attention_held(block: Block) -> Iterator[None]:
    """Inside, the attention probabilities of this block count as constants in a backward pass.

    Raises:
        TraceError: no attention was seen in the block.
    """
    with ExitStack() as stack:
        mode = stack.enter_context(_Held())  # before the hooks, which count the model's calls, not those of the mode
        stack.callback(block.entrance.hook(lambda x: setattr(mode, "active", True)).remove)
        stack.callback(block.out.hook(lambda x: setattr(mode, "active", False)).remove)
        yield
    if not mode.seen:
        raise TraceError(
            "An attention in the block, as softmax or PyTorch's scaled_dot_product_attention.",
            f"none seen behind {block.entrance.label}",
            'a model loaded with attn_implementation="sdpa" or "eager".',
        )
