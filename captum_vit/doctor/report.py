"""What the doctor found, as data and as a table for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from textwrap import fill

from captum_vit.tokens import TokenLayout

DEFECT = "DEFECT"


@dataclass
class Report:
    """A model as this package sees it. What could not be found out is None, and ``problems`` says why.

    ``methods`` tells for each name in ``METHODS`` why it refuses the model, or None where it works. A reason
    that begins with ``DEFECT`` is no refusal but an error nobody foresaw: worth an issue.
    """

    model: str
    family: str | None = None
    tower: str | None = None
    blocks: str | None = None
    depth: int | None = None
    width: int | None = None
    heads: int | None = None
    layout: TokenLayout | None = None
    pooling: str | None = None
    weights: str | None = None
    problems: list[str] = field(default_factory=list)
    methods: dict[str, str | None] = field(default_factory=dict)

    @property
    def tokens(self) -> int | None:
        """Length of the sequence, prefix included."""
        return None if self.layout is None else self.layout.n_tokens

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of patches; None for text."""
        return None if self.layout is None else self.layout.grid

    @property
    def prefix(self) -> int | None:
        """Number of tokens in front of the patches."""
        return None if self.layout is None else self.layout.prefix

    def __str__(self) -> str:
        """A table for people."""
        facts = {
            "family": self.family,
            "tower": self.tower,
            "blocks": f"{self.depth} x {self.blocks}, width {self.width or '?'}, {self.heads or '?'} heads",
            "tokens": _tokens(self.layout),
            "pooling": self.pooling,
            "weights": self.weights,
        }
        lines = [self.model, *(_line(name, fact) for name, fact in facts.items() if fact and self.family)]
        lines += [_line("problem", problem) for problem in self.problems]
        working = sum(reason is None for reason in self.methods.values())
        lines += ["", f"{working} of {len(self.methods)} methods work"]
        width = max(map(len, self.methods), default=0) + 1
        lines += [_line(name, self._verdict(reason), width) for name, reason in self.methods.items()]
        return "\n".join(lines)

    def _verdict(self, reason: str | None) -> str:
        if reason is None:
            return "works"
        if reason in self.problems:
            return "refused: see the problem above"
        return reason if reason.startswith(DEFECT) else f"refused: {reason}"


def _tokens(layout: TokenLayout | None) -> str | None:
    if layout is None:
        return None
    if layout.grid is None or layout.image_size is None:
        return f"{layout.n_tokens} of text"
    (h, w), (height, width) = layout.grid, layout.image_size
    return f"{layout.n_tokens}: {layout.prefix} prefix, {h} x {w} patches of {height} x {width} pixels"


def _line(name: str, said: str, width: int = 9) -> str:
    return fill(said, 118, initial_indent=f"  {name:<{width}}", subsequent_indent=" " * (width + 2))
