"""What every function mode of this package shares."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from captum_vit.sites.multi_head import unpacked_multi_head

PACKED = F.multi_head_attention_forward


class Mode(TorchFunctionMode):
    """Sees torch calls inside its context, while it is ``active``; a mode says in ``call`` what it does with one.

    It sees those of the functions that it names in ``reads``; all, if it names none. ``nn.MultiheadAttention``'s
    packed call comes as the calls that it is made of. A mode takes only itself off: torch may have lost it in an
    interrupt, which no other error may hide.
    """

    active = True  # else calls run as they are
    reads: Collection[Any] | None = None

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Runs one call, or another in its place."""
        return func(*args, **kwargs)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        unread = self.reads is not None and func not in self.reads and func is not PACKED
        if unread or not self.active or torch.compiler.is_compiling():  # a kernel that is compiled as it is called
            return func(*args, **kwargs)
        if func is PACKED:
            with self:
                return unpacked_multi_head(*args, **kwargs)
        return self.call(func, args, kwargs)

    def __exit__(self, *error: Any) -> None:
        if torch.overrides._get_current_function_mode() is self:
            torch._C._pop_torch_function_stack()
