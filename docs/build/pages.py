"""What happens to a page on its way to the site: tables from the code, files from outside docs/, formulas drawn.

A line ``<!-- methods -->`` (or another name in ``tables.TABLES``) becomes that table. A link out of docs/, such as
``../examples/hf_vit.py``, works on the site as it does in the repository: the file is carried along, and a notebook is
shown as a page. Formulas become MathML, which browsers draw by themselves.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import notebooks
import tables
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
CARRIED = ("examples/*.py", "examples/tables/README.md", "captum_vit/**/*.md", "CHANGELOG.md")

MARKER = re.compile(r"^<!-- (\w+) -->$", re.MULTILINE)
OUTWARD = re.compile(r"(?<=\]\()(?:\.\./)+")
NOTEBOOK = re.compile(r"(?<=\w)\.ipynb(?=\))")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
SPELT = {
    r"\setminus": r"\backslash",  # a sign that many fonts lack
    r"\arg": r"\mathrm{arg}\,",  # a word that the converter does not know
}


def on_files(files: Files, config: Any) -> Files:
    """Files from outside docs/ that pages may link to, where they lie in the repository."""
    for path in sorted({path for pattern in CARRIED for path in ROOT.glob(pattern)}):
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    for path in sorted(ROOT.glob("examples/*.ipynb")):
        files.append(File.generated(config, f"examples/{path.stem}.md", content=notebooks.as_markdown(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Tables filled in; a link out of docs/ leads one folder less far up, since the site begins there."""
    depth = page.file.src_uri.count("/")
    markdown = OUTWARD.sub(lambda up: up[0].removeprefix("../") if up[0].count("/") > depth else up[0], markdown)
    markdown = NOTEBOOK.sub(".md", markdown)
    return MARKER.sub(lambda marker: tables.TABLES[marker[1]](), markdown)


def on_page_content(html_of_page: str, /, **_: Any) -> str:
    """LaTeX as MathML."""

    def mathml(found: re.Match[str]) -> str:
        latex = html.unescape(found[2])
        for word, known in SPELT.items():
            latex = latex.replace(word, known)
        return convert(latex, display="block" if found[1] == "div" else "inline")

    return FORMULA.sub(mathml, html_of_page)
