"""A pass in which no branch adds anything to the stream: what is left reads the input place by place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from captum_vit.models.transformer import Addition
from captum_vit.sites.calls import Calls, name_of, other_code, works_in_place
from captum_vit.sites.nests import tensors_in


class WithoutBranches(Calls):
    """Every addition gives the stream as it was.

    The embedding, and layers that merge cells between blocks, run as ever: tokens then read what these let them read.
    """

    def __init__(self, additions: Iterable[Addition]) -> None:
        super().__init__()
        self.additions = {addition.number: addition for addition in additions}

    def made(self, func: Any, args: Any, kwargs: Any) -> Any:
        addition = self.additions.get(self.number)
        if addition is None:
            return func(*args, **kwargs)
        name, given = name_of(func), tensors_in((args, kwargs))
        if name != addition.name or len(given) <= addition.stream:
            raise other_code(f"{name} as call {self.number}", addition.name)
        stream = given[addition.stream]
        if not works_in_place(name):
            return stream.clone()
        return stream if addition.stream == 0 else given[0].copy_(stream)
