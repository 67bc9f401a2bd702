"""Results as they come: JSON lines, which survive being killed at any moment.

Every process of every run appends to a file of its own and writes the lines of a group of samples at once. So a
line cut short by a kill can only be the last of its file; it is passed over and made again, and a result that
stands twice counts once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from captum_vit.errors import InputError

FOLDER = "rows"

Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Row:
    """One sample under one metric: a score and what the metric kept beside it, or why there is none."""

    spec: str  # the hash of what was run
    seed: int
    versions: str
    model: str
    method: str
    metric: str
    sample: str
    score: float | None = None
    kept: dict[str, float | list[float]] = field(default_factory=dict)
    error: str | None = None

    @property
    def key(self) -> Key:
        """What the result is of."""
        return self.model, self.method, self.metric, self.sample


class RowWriter:
    """Appends rows to a file of this process alone."""

    def __init__(self, folder: Path, process: int = 0) -> None:
        self.path = folder / FOLDER / f"{time.time_ns()}-{process}-{os.getpid()}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, rows: Iterable[Row]) -> None:
        """Append, and wait until the disk has it."""
        lines = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
        if lines:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())


def read_rows(folder: Path, spec: str) -> dict[Key, Row]:
    """All results in a folder, each once: the first score that was written, or the first error where there is none.

    Raises:
        InputError: results of another spec, or a file that is damaged elsewhere than at its end.
    """
    found: dict[Key, Row] = {}
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        for row in _rows_of(path):
            if row.spec != spec:
                raise InputError(
                    "A folder with results of this spec alone.",
                    f"results of spec {row.spec} in {str(folder)!r}, and the spec is {spec}",
                    "another --out folder.",
                )
            if row.key not in found or (found[row.key].error is not None and row.error is None):
                found[row.key] = row
    return found


def _rows_of(path: Path) -> Iterator[Row]:
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if number == len(lines):  # after the last line break: empty, or cut short by a kill
            return
        try:
            yield Row(**json.loads(line))
        except (json.JSONDecodeError, TypeError) as error:
            where = f"line {number} of {str(path)!r} ({error})"
            raise InputError("A file of results.", where, "removing that file.") from error
