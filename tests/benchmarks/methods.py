"""The table of methods in the README, from the methods themselves.

    python -m tests.benchmarks.methods [--repeats 5] [--only NAME ...]

*Source* is the name in the docstring. What stands in the other columns is tried: whether maps of two targets differ;
whether a backward pass runs; whether a map is anywhere negative; on which kinds of model it works (the small ones of
the exam: a timm ViT, a padded BERT, CLIP with TextSimilarity); and the cost, as ``tests.benchmarks.cost`` measures it.
"""

from __future__ import annotations

import argparse
import inspect
import re
import warnings
from unittest.mock import patch

import timm
import torch
from captum.attr import Attribution
from torch import nn

import captum_vit as cv
from captum_vit.errors import CaptumVitError
from tests.benchmarks.cost import ratio
from tests.models import CASES, Case

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of methods; all by default")
    options = parser.parse_args()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    case = CASES["timm ViT"]()
    model: nn.Module = timm.create_model("vit_small_patch16_224").eval()
    x = torch.randn(4, 3, 224, 224)
    yes = {True: "yes", False: "no"}
    print("| method | source | knows the target | gradient-free | signed | forwards | works on |")
    print("|---|---|:-:|:-:|:-:|--:|---|")
    for name, make in cv.METHODS.items():
        if options.only and name not in options.only:
            continue
        method = make(case.forward_func)
        one, other = explain(method, case, 0), explain(method, case, 3)
        knows = not torch.equal(one, other)
        free = not backward_passes(method, case)
        signed = bool((one < 0).any() or (other < 0).any())
        made = make(model)
        cost = ratio(model, lambda batch, made=made: made.attribute(batch, target=3), x, options.repeats)
        kinds = ", ".join(kind for kind in KINDS if works(name, kind))
        cells = [f"`{name}`", source(name), yes[knows], yes[free], yes[signed], f"{cost:.2f}", kinds]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
