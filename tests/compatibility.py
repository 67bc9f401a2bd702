"""Which method works on which model: everything is tried, and the table in docs/compatibility.md is what was seen.

    python -m tests.compatibility        rewrites that table

A method works on a model if its map of one sample is finite, has the shape of the patch grid (of the words), differs
from place to place, and leaves model and input as they were. It may refuse with an error of this package, whose first
line is the reason given. Anything else ends the script: the table has no word for it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import captum_vit as cv
from tests.captum_vit.models.families import MORE, UNSUPPORTED
from tests.contracts.fingerprint import fingerprint
from tests.contracts.pairs import rows
from tests.models import CASES, Case, image, redrawn

PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"
HEADING = "## Every method on every model\n"
COMMAND = "python -m tests.compatibility"
LIBRARIES = {"timm": "timm", "HF": "Hugging Face", "torchvision": "torchvision", "open_clip": "open_clip"}
FOREIGN = "Input Tensor 0 did not already require gradients"  # Captum's own word to whoever calls Saliency


class Verdict(NamedTuple):
    """What a method said to a model: nothing, a warning, or why it refuses and what it found."""

    works: bool = True
    said: str = ""
    got: str = ""


Verdicts = dict[str, dict[str, Verdict]]  # model -> method -> verdict


def families() -> Iterator[tuple[str, Case]]:
    """Every model of the exam, one sample each; then what is not supported."""
    for name, build in (CASES | MORE).items():
        torch.manual_seed(0)
        yield name, rows(build(), slice(0, 1))
    for name, build_model in UNSUPPORTED.items():
        yield name, Case(redrawn(build_model()).eval(), image()[:1], target=[0])


def tried(methods: Iterable[str], name: str, case: Case) -> dict[str, Verdict]:
    """Some methods on one model, each of which must leave it as the first found it."""
    before = fingerprint(case.forward_func, case.inputs, *case.additional_forward_args, rng=False)
    return {method: _tried(method, name, case, before) for method in methods}


def _tried(method: str, name: str, case: Case, before: dict[str, Any]) -> Verdict:
    model, inputs, args, target = case
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            found = cv.METHODS[method](model).attribute(inputs, target=target, additional_forward_args=args or None)
        except cv.CaptumVitError as error:
            found, verdict = None, Verdict(works=False, said=error.wanted, got=error.got)
        except Exception as error:
            raise AssertionError(f"{method} on {name} neither works nor refuses") from error
        else:
            words = [str(w.message).splitlines()[0] for w in heard if FOREIGN not in str(w.message)]
            verdict = Verdict(said=words[0] if words else "")
    assert fingerprint(model, inputs, *args, rng=False) == before, f"{method} does not leave {name} as it was found"
    if found is not None:
        assert is_a_map(found, name, model, inputs), f"{method} on {name}: shape {tuple(found.shape)}"
        assert torch.isfinite(found).all() and len(found.unique()) > 1, f"{method} on {name}: not finite, or constant"
    return verdict


def is_a_map(found: Tensor, name: str, model: nn.Module, inputs: Tensor) -> bool:
    """Whether it is of the patches or the words; of networks with stages, of no more cells than the first one has."""
    if name not in UNSUPPORTED:
        return tuple(found.shape) == shape_of_map(model, inputs)
    stem = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    most = [size // stride for size, stride in zip(inputs.shape[-2:], stem.stride, strict=True)]
    return found.shape[:-2] == (1, 1) and all(1 < n <= m for n, m in zip(found.shape[-2:], most, strict=True))


def shape_of_map(model: nn.Module, inputs: Tensor) -> tuple[int, ...]:
    """(1, 1, h, w) for images, whose patches are embedded by the first convolution; (1, T) for words."""
    if not inputs.is_floating_point():
        return tuple(inputs.shape)
    height, width = next(m.kernel_size for m in model.modules() if isinstance(m, nn.Conv2d))
    return 1, 1, inputs.shape[-2] // height, inputs.shape[-1] // width


def verdicts() -> Verdicts:
    """Everything, tried: thousands of pairs of tiny models and methods."""
    return {name: tried(cv.METHODS, name, case) for name, case in families()}


# -- the page --------------------------------------------------------------------------------------------------


def page(found: Verdicts) -> str:
    """What stands below the heading."""
    columns, reasons = alike(found), reasons_of(found)
    works = {name: row for name, row in found.items() if any(v.works for v in row.values())}
    supported = {name: row for name, row in works.items() if name not in UNSUPPORTED}
    of_tokens = {name: row for name, row in works.items() if name in UNSUPPORTED}
    refused = {name: row for name, row in found.items() if name not in works}
    silent = [v == Verdict() for row in supported.values() for v in row.values()]
    parts = [
        f"`{COMMAND}` wrote what follows. It tried {len(found) * len(cv.METHODS):,} pairs: {len(cv.METHODS)} methods, "
        f"{len(supported)} kinds of models whose attention is followed, {len(of_tokens)} in which methods that need "
        f"only tokens and gradients work, and {len(refused)} that are refused, all of them tiny, with random weights. "
        "**✓** means: the method gave a map that is finite, of the right shape and not constant, and left the model as "
        "it was. **✓ ⚠**: it also warned. **–**: it refused. Numbers lead to the reasons, each the first line of the "
        f"message. Of the pairs with models whose attention is followed {sum(silent):,} of {len(silent):,} are ✓.",
        "Methods that fare alike everywhere share a column:",
        "\n".join(f"- **{label}** ({len(methods)}): {', '.join(f'`{m}`' for m in methods)}"
                  for label, methods in columns.items()),
    ]  # fmt: skip
    for sign, library in LIBRARIES.items():
        mine = {name: row for name, row in supported.items() if name.split()[0] == sign}
        parts += [f"### {library}: {len(mine)}", table(mine, columns, reasons)]
    parts += [f"### Attention that cannot be followed: {len(of_tokens)}", table(of_tokens, columns, reasons)]
    parts += [f"### Refused by every method: {len(refused)}", table(refused, columns, reasons)]
    parts += ["### Reasons", "\n".join(f"{i}. {reason}" for i, reason in enumerate(reasons, 1))]
    return "\n\n".join(parts) + "\n"


def alike(found: Verdicts) -> dict[str, list[str]]:
    """Letters for groups of methods that got the same verdict from every model."""
    groups: dict[tuple[tuple[bool, str], ...], list[str]] = {}
    for method in cv.METHODS:
        groups.setdefault(tuple((row[method].works, row[method].said) for row in found.values()), []).append(method)
    return {chr(ord("A") + i): methods for i, methods in enumerate(groups.values())}


def reasons_of(found: Verdicts) -> list[str]:
    """What was said, each once, in the order of the table."""
    return list(dict.fromkeys(v.said for row in found.values() for v in row.values() if v.said))


def table(found: Verdicts, columns: dict[str, list[str]], reasons: list[str]) -> str:
    """A row for each model, a column for each group of methods."""
    lines = [f"| model | {' | '.join(columns)} | what was found |", "|---|" + ":-:|" * len(columns) + "---|"]
    for name, row in found.items():
        cells = [cell(row[methods[0]], reasons) for methods in columns.values()]
        got = next((v.got for v in row.values() if v.got), "")
        lines.append(f"| {name} | {' | '.join(cells)} | {got} |")
    return "\n".join(lines)


def cell(verdict: Verdict, reasons: list[str]) -> str:
    mark = "–" if not verdict.works else "✓ ⚠" if verdict.said else "✓"
    return f"{mark} {reasons.index(verdict.said) + 1}" if verdict.said else mark


def published() -> tuple[str, str]:
    """The page in two parts: what people wrote, heading included, and the table below it."""
    written, heading, table = PAGE.read_text("utf-8").partition(HEADING)
    return written + heading, table.lstrip("\n")


def main() -> None:
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    written, _ = published()
    PAGE.write_text(f"{written}\n{page(verdicts())}", "utf-8")


if __name__ == "__main__":
    main()
