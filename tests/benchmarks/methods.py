"""The table of methods in docs/methods.md, from the methods themselves.

    python -m tests.benchmarks.methods [--only NAME ...] [--repeats 5] [--write]

*Source* is the name in the docstring. Other columns are found by running each method: whether maps of two targets
differ; whether a backward pass runs; whether a map is anywhere negative; on which kinds of model it works (small ones
of `tests.models`: a timm ViT, a padded BERT, CLIP with TextSimilarity). Two hold figures: the cost, as
``tests.benchmarks.cost`` measures it, and the share of maps that point at the digit, as ``tests.benchmarks.pointing``.

``--write`` puts the table into that page. It makes the rows of the methods that are named; without names those that
are missing, or all if none is. Others stay as they are.
"""

from __future__ import annotations

import argparse
import inspect
import re
import warnings
from pathlib import Path
from unittest.mock import patch

import timm
import torch
from captum.attr import Attribution

import captum_vit as cv
from captum_vit.demo import demo_vit
from captum_vit.errors import CaptumVitError
from tests.benchmarks.cost import ratio
from tests.benchmarks.pointing import hits, scenes
from tests.models import CASES, Case

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
HEAD = "| method | source | uses the target | gradient-free | signed | forwards | works on | pointing |"
RULE = "|---|---|:-:|:-:|:-:|--:|---|--:|"
COLUMNS = [column.strip() for column in HEAD.strip("|").split("|")]
FIGURES = ("forwards", "pointing")  # measured; all other columns are the same on every machine
KINDS = {"images": "timm ViT", "text": "HF BERT", "image-text": "HF CLIP"}
SOURCES = {  # of what has no docstring of its own
    "PLUS": "SkipPLUS paper",
    "SkipPLUS": "SkipPLUS paper",
    "Saliency": "Captum",
    "InputXGradient": "Captum",
    "IntegratedGradients": "Captum",
    "SmoothGrad": "Captum",
    "RandomAttribution": "baseline",
}


def source(name: str) -> str:
    """Whose method it is, in a few words."""
    head = name.partition("(")[0]
    if head in SOURCES:
        return SOURCES[head]
    text = " ".join((inspect.getdoc(cv.METHODS[name]) or "").split())
    found = re.search(r"Source: (.*)", text)
    if found is None:
        return ""
    first = re.split(r"[,;(]|\\. ", found[1])[0].strip(" .")
    if "SkipPLUS paper" in first:
        return "SkipPLUS paper"
    return first.removeprefix("the attention map of ").replace(" et al", " et al.")


def explain(method: Attribution, case: Case, target: int) -> torch.Tensor:
    torch.manual_seed(0)
    found = method.attribute(case.inputs, target=target, additional_forward_args=case.additional_forward_args or None)
    return found[0] if isinstance(found, tuple) else found


def backward_passes(method: Attribution, case: Case) -> int:
    """How often autograd goes backwards."""
    engine = torch.autograd.graph._engine_run_backward
    count = 0

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal count
        count += 1
        return engine(*args, **kwargs)

    with (
        patch("torch.autograd.graph._engine_run_backward", counted),
        patch("torch.autograd._engine_run_backward", counted),
        patch("torch.autograd.functional._engine_run_backward", counted, create=True),
    ):
        explain(method, case, 1)
    return count


def works(name: str, kind: str) -> bool:
    """Whether a method explains a kind of model; what it refuses, it refuses in words."""
    case = CASES[KINDS[kind]]()
    try:
        explain(cv.METHODS[name](case.forward_func), case, 0)
    except CaptumVitError:
        return False
    return True


def facts(name: str) -> dict[str, str]:
    """What the same code always gives: every column but the figures."""
    case = CASES["timm ViT"]()
    method = cv.METHODS[name](case.forward_func)
    one, other = explain(method, case, 0), explain(method, case, 3)
    yes = {True: "yes", False: "no"}
    return {
        "method": f"`{name}`",
        "source": source(name),
        "uses the target": yes[not torch.equal(one, other)],
        "gradient-free": yes[not backward_passes(method, case)],
        "signed": yes[bool((one < 0).any() or (other < 0).any())],
        "works on": ", ".join(kind for kind in KINDS if works(name, kind)),
    }


def figures(name: str, repeats: int) -> dict[str, str]:
    """What a machine and chance have a part in."""
    model, small = timm.create_model("vit_small_patch16_224").eval(), demo_vit()
    method, pointing = cv.METHODS[name](model), cv.METHODS[name](small)
    cost = ratio(model, lambda batch: method.attribute(batch, target=3), torch.randn(4, 3, 224, 224), repeats)
    torch.manual_seed(0)  # some methods draw from the global generator
    right, _ = hits(pointing, scenes(200, 1))
    return {"forwards": f"{cost:.2f}", "pointing": f"{right.double().mean():.3f}"}


def published() -> dict[str, dict[str, str]]:
    """The page's rows by method."""
    lines = PAGE.read_text("utf-8").partition(f"{HEAD}\n{RULE}\n")[2].partition("\n\n")[0].splitlines()
    rows = (dict(zip(COLUMNS, (cell.strip() for cell in line.strip("|").split("|")), strict=True)) for line in lines)
    return {row["method"].strip("`"): row for row in rows}


def line(row: dict[str, str]) -> str:
    return f"| {' | '.join(row[column] for column in COLUMNS)} |"


def write(rows: dict[str, dict[str, str]]) -> None:
    """Rows in the order of METHODS, in place of the page's."""
    before, head, rest = PAGE.read_text("utf-8").partition(f"{HEAD}\n{RULE}\n")
    after = rest.partition("\n\n")[2]
    PAGE.write_text(before + head + "\n".join(line(rows[name]) for name in cv.METHODS) + "\n\n" + after, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=cv.METHODS, help="names of methods; all by default")
    parser.add_argument("--write", action="store_true", help="into docs/methods.md")
    options = parser.parse_args()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    old = published()
    missing = cv.METHODS.keys() - old.keys() if options.write else set()
    wanted = options.only or missing or cv.METHODS
    print(f"{HEAD}\n{RULE}")
    made = {}
    for name in cv.METHODS:
        if name in wanted:
            made[name] = facts(name) | figures(name, options.repeats)
            print(line(made[name]), flush=True)
    if options.write:
        write(old | made)


if __name__ == "__main__":
    main()
