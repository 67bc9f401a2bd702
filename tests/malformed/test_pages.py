"""No code out of a file of weights, no markup out of a name, no file replaced unasked."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import captum_vit as cv
from captum_vit import cli, viz
from quantus_metrics.benchmark.formats import markdown
from quantus_metrics.benchmark.table import Cell, Cost, Table
from tests.malformed.bad import BERT, IDS

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for package in ("captum_vit", "quantus_metrics", "examples") for path in (ROOT / package).rglob("*.py")
)
NEVER = {
    "eval", "exec", "compile", "pickle.load", "pickle.loads", "joblib.load", "dill.load", "yaml.load",
    "yaml.unsafe_load", "marshal.loads", "shelve.open", "pandas.read_pickle", "os.system", "subprocess.call",
}  # fmt: skip


def unsafe(source: str) -> Iterator[str]:
    """Calls that run what they read, by name."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, keywords = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        safely = {
            "torch.load": keywords.get("weights_only") == "True",
            "np.load": keywords.get("allow_pickle") != "True",
        }
        if name in NEVER or not safely.get(name, True) or keywords.get("trust_remote_code", "False") != "False":
            yield f"line {node.lineno}: {name}"


def test_nothing_that_is_read_is_run():
    found = {str(path.relative_to(ROOT)): list(unsafe(path.read_text("utf-8"))) for path in SOURCES}
    assert len(found) > 150
    assert not {path: calls for path, calls in found.items() if calls}


@pytest.mark.parametrize("call", [
    "torch.load(path)", "torch.load(path, weights_only=False)", "pickle.load(file)", "eval(text)", "yaml.load(file)",
    "np.load(path, allow_pickle=True)", "AutoModel.from_pretrained(name, trust_remote_code=True)",
])  # fmt: skip
def test_that_test_would_see_it(call: str):
    assert list(unsafe(call)) and not list(unsafe("torch.load(path, weights_only=True); np.load(path)"))


# -- markup --------------------------------------------------------------------------------------------------------

NASTY = '<script>alert("1")</script>'


def harmless(page: str) -> None:
    """The name is there, as words."""
    assert "<script" not in page and page.count("&lt;script&gt;") >= 1


def test_tokens_and_labels_in_html():
    shown = viz.text([NASTY, f"##{NASTY}", NASTY], torch.rand(2, 3), rows=[NASTY, "plain"], words=True)
    harmless(shown.html)
    harmless(shown._repr_html_())


def test_records_for_captum():
    for record in viz.text([NASTY], torch.rand(1)).records(pred_class=NASTY, true_class=NASTY, attr_class=NASTY):
        for field in (record.pred_class, record.true_class, record.attr_class, *record.raw_input_ids):
            harmless(field)


def test_the_page_of_an_explanation(tmp_path: Path):
    """Its tokens, the names of its classes, and the name of its file."""
    found = cv.explain(BERT, IDS[:1], 0, tokens=[NASTY] * IDS.shape[1])
    found.labels[0] = NASTY
    path = found.save(tmp_path / "<script>map.html")
    page = path.read_text("utf-8")
    harmless(page)
    assert "<title>&lt;script&gt;map</title>" in page


def test_the_table_of_a_benchmark():
    """Markdown hands markup on to the page that it becomes."""
    key = (NASTY, NASTY, NASTY)
    cell, cost = Cell(None, errors=1), Cost({})
    table = Table(NASTY, {NASTY: True}, {key: cell}, {(NASTY, NASTY): cost})
    page = markdown(table)
    harmless(page)
    assert page.count("&lt;script&gt;") == 4


# -- files that are there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "file"),
    [
        (["explain", "photo.png", "--model", "timm:test_vit", "--out", "map.npy"], "map.npy"),
        (["explain", "photo.png", "--model", "timm:test_vit"], "photo-map.png"),
        (["demo", "--sections", "digits"], "explanations.png"),
        (["demo", "--sections", "reviews"], "reviews.html"),
        (["demo", "--sections", "captions"], "captions.png"),
        (["benchmark", "small.toml"], "results/small/table.md"),
        (["benchmark", "small.toml", "--out", "here"], "here/notes.txt"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_file_of_the_user_stays(line: list[str], file: str, tmp_path: Path, monkeypatch, capsys):
    """It is found before the work, and named."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40)).save("photo.png")
    Path("small.toml").write_text((ROOT / "examples/tables/demo/all.toml").read_text("utf-8"))
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("mine")
    assert cli.main(line) == cli.REFUSED
    said = capsys.readouterr().err
    assert Path(file).read_text() == "mine" and str(Path(file).parent if line[0] == "benchmark" else file) in said
    assert re.search("overwrite|--out", said)
