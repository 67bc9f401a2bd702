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
    data: str = ""  # the digest of what was explained
    weights: str = ""  # the digest of the model that was explained

    @property
    def key(self) -> Key:
        """What the result is of."""
        return self.model, self.method, self.metric, self.sample


class RowWriter:
    """Appends rows to a file of this process only."""

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
    place = folder / FOLDER
    if place.exists() and not place.is_dir():
        raise InputError("A folder of results.", f"{str(place)!r}, which is a file", "another --out folder.")
    for path in sorted(place.glob("*.jsonl")):
        for row in _rows_of(path):
            if row.spec != spec:
                raise InputError(
                    "A folder with results of only this spec.",
                    f"results of spec {row.spec} in {str(folder)!r}, and the spec is {spec}",
                    "another --out folder.",
                )
            if row.key not in found or (found[row.key].error is not None and row.error is None):
                found[row.key] = row
    return found


def _rows_of(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), 1):
        try:
            row = Row(**json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise _damaged(f"line {number} of {str(path)!r} ({error})") from error
        if not _sound(row):
            raise _damaged(f"line {number} of {str(path)!r}, with values of other kinds")
        yield row


def _lines(path: Path) -> list[str]:
    """Those that were written to their end: what follows the last line break is empty, or cut short by a kill."""
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(f"{str(path)!r} ({error})") from error


def _sound(row: Row) -> bool:
    names = (row.spec, row.versions, *row.key, row.data, row.weights)
    return (
        all(isinstance(name, str) for name in names)
        and (row.score is None or isinstance(row.score, int | float))
        and isinstance(row.error, str | None)
        and isinstance(row.kept, dict)
    )


def _damaged(where: str) -> InputError:
    return InputError("Files of results, as a run wrote them.", where, "removing that one; its results are made again.")
