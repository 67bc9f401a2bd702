"""A notebook as a page: its text, its code, and the texts and pictures that its cells gave when it was saved."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat


def as_markdown(path: Path) -> str:
    """One Markdown text, pictures inside."""
    return "\n\n".join(part for cell in nbformat.read(path, as_version=4).cells for part in _parts(cell)) + "\n"


def _parts(cell: Any) -> Iterator[str]:
    if cell.cell_type != "code":
        yield cell.source
        return
    yield f"```python\n{cell.source}\n```"
    for output in cell.outputs:
        shown = output.get("data", {"text/plain": output.get("text", "")})
        if "image/png" in shown:
            yield f"![what the cell shows](data:image/png;base64,{shown['image/png'].replace(chr(10), '')})"
        elif "text/html" in shown:
            yield textwrap.dedent(shown["text/html"])
        else:
            yield f"```text\n{shown['text/plain'].rstrip()}\n```"
