"""What every function mode of this package shares."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Mode(TorchFunctionMode):
    """A mode that takes only itself off: torch may have lost it in an interrupt, which no other error may hide."""

    def __exit__(self, *error: Any) -> None:
        if torch.overrides._get_current_function_mode() is self:
            torch._C._pop_torch_function_stack()
