"""Whether a data set is still the same: a digest of what its samples are read from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from quantus_metrics.benchmark.data.samples import Samples

CHUNK = 2**20
DIGITS = 16


@runtime_checkable
class Digested(Protocol):
    """A data set that knows whether it has changed."""

    def digest(self) -> str:
        """Another text where a picture, a label or the order is another one."""


def data_digest(data: Samples) -> str:
    """The data set's own digest; of one that has none the digest of its names."""
    return data.digest() if isinstance(data, Digested) else digest_of(map(data.name, range(len(data))))


def digest_of(facts: Iterable[object], files: Iterable[Path] = ()) -> str:
    """A digest of facts, in this order, and of the contents of files. A file that cannot be read counts as such."""
    found = hashlib.sha256()
    for fact in facts:
        found.update(fact if isinstance(fact, bytes) else str(fact).encode("utf-8", "surrogateescape") + b"\0")
    for path in dict.fromkeys(files):
        found.update(_content(path))
    return found.hexdigest()[:DIGITS]


def _content(path: Path) -> bytes:
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
    except OSError:  # the sample will fail by itself, and its row holds the reason
        return b"unreadable"
    return found.digest()
