"""What each test says of the maps of a method on one of the models."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.errors import CaptumVitError
from captum_vit.viz.files import write_whole
from tests.benchmarks.verdict.subjects import RANDOMISED, TRUTH, Subject, arrays, subject

Scores = dict[str, list[float]]
"""By test, one for each sample."""


class Explained:
    """The maps of a method, each made once; as Quantus calls it."""

    def __init__(self, one: Subject, name: str) -> None:
        self.one, self.method, self._known = one, cv.METHODS[name](one.model), dict[bytes, Tensor]()

    def of(self, target: Tensor) -> Tensor:  # shape: (S, 1, h, w) or (S, T)
        """The maps of all samples for these targets."""
        key = target.numpy().tobytes()
        if key not in self._known:
            torch.manual_seed(0)  # some methods draw from the global generator
            self._known[key] = self.method.attribute(self.one.inputs, target=target)
        return self._known[key]

    def __call__(self, model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        return self.of(torch.as_tensor(targets).long()).numpy()


@cache
def passes_of(name: str, n: int) -> qm.Passes:
    """What all methods share in this process."""
    return qm.Passes(subject(name, n).model)


def scores(name: str, method: str, n: int) -> Scores | str:
    """Of each test, or why the method refuses the model."""
    one = subject(name, n)
    try:
        explained = Explained(one, method)
        maps = explained.of(one.target)
    except CaptumVitError as error:
        return str(error)
    found = {TRUTH: one.points(maps).double().tolist()}
    for test, metric in one.tests.items():
        anew = metric.explains_anew
        given = arrays(one, slice(RANDOMISED if anew else None))
        explain = qm.explain_func(explained.method) if anew else explained
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # samples without a score are NaN
            try:
                torch.manual_seed(0)
                shared = None if anew else passes_of(name, n)
                found[test] = metric(one.model, **given, explain_func=explain, batch_size=n, passes=shared)
            except CaptumVitError as error:
                print(f"{name}, {method}, {test}: {' '.join(str(error).split())}")
    return found


def kept(folder: Path, name: str, method: str, n: int) -> tuple[str, str, Scores | str]:
    """The same, from a file if it was measured before."""
    torch.set_num_threads(1)
    path = folder / f"{name}-{n}" / f"{method}.json"
    if not path.exists():
        found = scores(name, method, n)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda draft: draft.write_text(json.dumps(found)))
    return name, method, json.loads(path.read_text())
