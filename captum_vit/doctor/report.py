"""What the doctor found, as data and as a table for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from textwrap import fill

from captum_vit.errors import CaptumVitError
from captum_vit.tokens import TokenLayout

DEFECT = "DEFECT"


@dataclass
class Identity:
    """Something that must hold on any model, tried on this one.

    Args:
        name: what must hold.
        methods: whose maps rest on it: names in ``METHODS``, and such with an option.
        residual: how far the two sides are apart, as a share of what is compared; None where it could not be tried.
        bound: how far they may be apart by rounding, as a share of the same.
        reason: why it could not be tried, or what is wrong where it does not hold.
    """

    name: str
    methods: tuple[str, ...]
    residual: float | None = None
    bound: float | None = None
    reason: str | None = None

    @property
    def holds(self) -> bool | None:
        """Whether both sides agree up to rounding; None where it could not be tried."""
        if self.residual is None or self.bound is None:
            return None
        return self.residual <= self.bound


@dataclass
class Report:
    """A model as this package sees it. What could not be found out is None, and ``problems`` holds the reason.

    ``methods`` holds for each name in ``METHODS`` why it refuses the model, or None where it works. A reason
    that begins with ``DEFECT`` is no refusal but an error nobody foresaw: worth an issue. ``identities`` are what the
    formulas claim of any model, tried on this one; a method that works may still rest on one that does not hold.
    ``blunt`` are those whose map is nearly what the head reads in the last block, on this very input.
    ``attention`` says where the model itself writes it out: there no kernel can be run some rows at a time.
    ``stages`` and ``complete`` are of a network whose attention cannot be followed: how many blocks have how many
    cells, and the rules under which tokens and biases sum to the score.
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
    attention: str | None = None
    weights: str | None = None
    stages: str | None = None
    complete: str | None = None
    problems: list[str] = field(default_factory=list)
    identities: list[Identity] = field(default_factory=list)
    methods: dict[str, str | None] = field(default_factory=dict)
    blunt: dict[str, str] = field(default_factory=dict)

    @property
    def tokens(self) -> int | None:
        """Length of the sequence, prefix included."""
        return None if self.layout is None else self.layout.n_tokens

    @property
    def grid(self) -> tuple[int, ...] | None:
        """Rows and columns of patches, or their numbers along each axis of a film; None for text."""
        return None if self.layout is None else self.layout.grid

    @property
    def prefix(self) -> int | None:
        """Number of special tokens, which stand for no patch; in front of the patches, as a rule."""
        return None if self.layout is None else len(self.layout.special)

    def __str__(self) -> str:
        """A table for people."""
        facts = {
            "family": self.family,
            "tower": self.tower,
            "blocks": f"{self.depth} x {self.blocks}, width {self.width or '?'}, {self.heads or '?'} heads",
            "tokens": _tokens(self.layout),
            "stages": self.stages,
            "pooling": self.pooling,
            "attention": self.attention,
            "complete": self.complete,
            "weights": self.weights,
        }
        lines = [self.model, *(_line(name, fact) for name, fact in facts.items() if fact and self.family)]
        lines += [_line("problem", problem) for problem in self.problems]
        if self.identities:
            lines += ["", *self._identities()]
        working = sum(reason is None for reason in self.methods.values())
        lines += ["", f"{working} of {len(self.methods)} methods work"]
        width = max(map(len, self.methods), default=0) + 1
        lines += [_line(name, self._verdict(name), width) for name in self.methods]
        return "\n".join(lines)

    def _identities(self) -> list[str]:
        """The table of identities; what does not hold has its reason below its row."""
        width = max(len(identity.name) for identity in self.identities) + 1
        verdicts = [identity.holds for identity in self.identities]
        title = f"{verdicts.count(True)} of {len(verdicts) - verdicts.count(None)} identities hold"
        title += f", {verdicts.count(None)} not tried" if None in verdicts else ""
        lines = [f"{title:<{width + 2}}residual  bound    verdict   rests on it"]
        for one in self.identities:
            if one.residual is None or one.bound is None:
                lines.append(_line(one.name, f"not tried: {self._reason(one.reason or '')}", width))
                continue
            verdict = "holds" if one.holds else "FAILS"
            figures = f"{one.residual:<8.1e}  {one.bound:<7.1e}  {verdict:<8}  "
            rest = self._named(one.methods)
            lines.append(_line(one.name, figures + rest, width, hanging=width + 2 + len(figures)))
            if one.reason:
                lines.append(_line("", one.reason, width))
        return lines

    def _named(self, methods: tuple[str, ...]) -> str:
        return "all methods" if set(self.methods) <= set(methods) else ", ".join(methods)

    def _verdict(self, name: str) -> str:
        reason = self.methods[name]
        if reason is not None:
            return self._reason(reason) if reason.startswith(DEFECT) else f"refused: {self._reason(reason)}"
        failed = [f"{one.name!r}" for one in self.identities if one.holds is False and name in one.methods]
        if not failed:
            return f"works, but {self.blunt[name]}" if name in self.blunt else "works"
        return f"works, but rests on {' and '.join(failed)}, which does not hold here"

    def _reason(self, reason: str) -> str:
        return "see the problem above" if reason in self.problems else reason


def reason_of(error: Exception) -> str:
    """Our own errors hold what to do; any other one is a defect."""
    message = " ".join(line if line.endswith(".") else f"{line}." for line in str(error).splitlines())
    return message if isinstance(error, CaptumVitError) else f"{DEFECT} {type(error).__name__}: {message}"


def _tokens(layout: TokenLayout | None) -> str | None:
    if layout is None:
        return None
    if layout.grid is None or layout.image_size is None:
        return f"{layout.n_tokens} of text"
    cells, pixels = (" x ".join(map(str, sizes)) for sizes in (layout.grid, layout.image_size))
    kind = "prefix" if layout.in_front else "special"
    return f"{layout.n_tokens}: {len(layout.special)} {kind}, {cells} patches of {pixels} pixels"


def _line(name: str, text: str, width: int = 9, hanging: int | None = None) -> str:
    indent = " " * (width + 2 if hanging is None else hanging)
    return fill(text, 118, initial_indent=f"  {name:<{width}}", subsequent_indent=indent)
