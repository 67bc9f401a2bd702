"""Options of methods, chosen on samples that the table is not made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from quantus.metrics.base import Metric
from torch import nn

from captum_vit.errors import InputError, OptionError
from captum_vit.named_method import NamedMethod
from captum_vit.viz.files import write_whole
from quantus_metrics.benchmark.data import Samples, data_digest
from quantus_metrics.benchmark.factories import computing, make_data, make_method, make_metric, make_model
from quantus_metrics.benchmark.group import Group, read_group
from quantus_metrics.benchmark.origin import HINT, weights_digest
from quantus_metrics.benchmark.toml_spec import MethodSpec, Spec
from quantus_metrics.bridge import explain_func, to_array, wrap
from quantus_metrics.option_sweep import OptionSweep, sweep_option

FILE = "choices.json"

Settings = Mapping[str, NamedMethod]
"""A method with each combination of the values of its grid, by what it is called: ``"stdev=0.5"``."""


@dataclass(frozen=True)
class Chooser:
    """What options are chosen by.

    Args:
        data: the held-out samples.
        metric: what is best under it is taken.
        name: the metric's, in the spec.
        settings: by method.
    """

    data: Samples
    metric: Metric
    name: str
    settings: Mapping[str, Settings]


@dataclass(frozen=True)
class Chosen:
    """The setting of a method for a model, and the scores that it was chosen by.

    Args:
        scores: of each setting the mean over the held-out samples, and its interval.
        as_good: settings in which no difference from the best was found.
        data: digest of the held-out samples.
        weights: digest of the model's.
    """

    model: str
    method: str
    setting: str
    metric: str
    scores: dict[str, list[float]]
    as_good: list[str]
    n: int
    data: str
    weights: str

    def __str__(self) -> str:
        others = [setting for setting in self.as_good if setting != self.setting]
        equals = f" (no difference from {', '.join(others)})" if others else ""
        return f"{self.method}: {self.setting}{equals}, by {self.metric} on {self.n} held-out samples"


def settings_of(part: MethodSpec) -> Settings:
    """The method of a spec with each combination of the values of its grid.

    Raises:
        OptionError: an option that is fixed, a value twice, or what the method refuses.
    """
    where = f"method {part.name!r}, grid"
    if fixed := [option for option in part.grid if option in part.options]:
        hint = f"{fixed[0]} in the grid only."
        raise OptionError(f"{where}: options that are not fixed.", f"{fixed[0]!r} in `options` too", hint)
    found: dict[str, NamedMethod] = {}
    for values in product(*part.grid.values()):
        setting = dict(zip(part.grid, values, strict=True))
        name = ", ".join(f"{option}={value}" for option, value in setting.items())
        if name in found:
            raise OptionError(f"{where}: each value once.", f"{name} twice", "one of each.")
        found[name] = make_method(replace(part, options=part.options | setting))
    return found


def chooser_of(spec: Spec, data: Samples) -> Chooser | None:
    """What the spec chooses options by; None where it chooses none.

    Args:
        spec: the spec.
        data: the samples of the table.

    Raises:
        OptionError: an unknown name or option, or a value that a method refuses.
        InputError: data that cannot be read, or that has pictures of the table.
    """
    if spec.choose is None:
        return None
    held_out = make_data(spec.choose.data)
    refuse_overlap(held_out, data)
    settings = {part.name: settings_of(part) for part in spec.method if part.grid}
    return Chooser(held_out, make_metric(spec.choose.metric), spec.choose.metric.name, settings)


def refuse_overlap(held_out: Samples, data: Samples) -> None:
    """Refuse held-out samples with a picture of the table, whatever it is called. Each picture is read once.

    Raises:
        InputError: the first that is found.
    """
    seen = {digest: held_out.name(index) for index in range(len(held_out)) if (digest := _digest(held_out, index))}
    for index in range(len(data)):
        if (other := seen.get(_digest(data, index))) is not None:
            raise InputError(
                "Held-out samples, of pictures that `data` does not have.",
                f"{other!r} of `choose.data`, the picture of {data.name(index)!r} in `data`",
                "another seed, split or folder in `choose.data`.",
            )


def _digest(data: Samples, index: int) -> str:
    """Of a picture as it is read; of one that cannot be read nothing: it has no score, and its row holds the reason."""
    try:
        picture = data[index].picture
    except Exception:
        return ""
    return hashlib.sha256(f"{picture.mode} {picture.size} ".encode() + picture.tobytes()).hexdigest()


def choose(chooser: Chooser, spec: Spec, folder: Path, state: PartialState) -> dict[tuple[str, str], Chosen]:
    """The settings by model and method: those in the folder, and what is missing, chosen by the main process.

    Raises:
        InputError: the folder's choices were made on other samples, or no held-out sample can be read.
    """
    if state.is_main_process:
        data = data_digest(chooser.data)
        known = read_choices(folder)
        if others := [one for one in known.values() if one.data != data]:
            got = f"samples with the digest {data}; {others[0].method!r} was chosen on {others[0].data}"
            raise InputError("The held-out samples that options were chosen on.", got, HINT)
        for part in spec.model:
            missing = [method for method in chooser.settings if (part.name, method) not in known]
            model = make_model(part, state.device, spec.precision) if missing else None
            for method in missing:
                with computing(spec.precision, state.device):
                    known[part.name, method] = _best(chooser, spec, part.name, model, method, data)
                write_choices(folder, known)
    state.wait_for_everyone()
    return read_choices(folder)


def _best(chooser: Chooser, spec: Spec, name: str, model: Any, method: str, data: str) -> Chosen:
    group, failed = read_group(chooser.data, range(len(chooser.data)), model, spec.resize)
    if group is None:
        raise InputError("A held-out sample that can be read.", "; ".join(failed.values()), "another `choose.data`.")
    found = sweep(chooser, spec, model, method, group)
    summaries = dict(zip(found.values, found.means, strict=True))
    scores = {setting: [one.mean, one.low, one.high] for setting, one in summaries.items()}
    n = summaries[found.best].n
    return Chosen(name, method, found.best, chooser.name, scores, found.as_good, n, data, weights_digest(model))


def sweep(chooser: Chooser, spec: Spec, model: nn.Module, method: str, group: Group) -> OptionSweep:
    """A method's scores under every setting; with the same images, and the same draws where it draws."""
    settings = chooser.settings[method]

    def explain(model: nn.Module, inputs: Any, targets: Any, setting: str, **_: Any) -> np.ndarray:
        made = settings[setting]
        return explain_func(made.make)(model, inputs, targets, **made.options)

    return sweep_option(
        chooser.metric,
        explain,
        wrap(model),
        to_array(group.inputs),
        group.labels,
        "setting",
        list(settings),
        s_batch=group.masks,
        batch_size=spec.batch_size,
        seed=spec.seed,
    )


def check_chosen(chosen: Iterable[Chosen], model: str, digest: str) -> None:
    """Choices, if there are any for a model, with the weights that have this digest.

    Raises:
        InputError: the model's weights have changed since.
    """
    if others := [one for one in chosen if one.model == model and one.weights != digest]:
        got = f"weights with the digest {digest}; {others[0].method!r} was chosen with {others[0].weights}"
        raise InputError(f"The weights of {model!r} that options were chosen with.", got, HINT)


def read_choices(folder: Path) -> dict[tuple[str, str], Chosen]:
    """The choices in a folder of results, by model and method.

    Raises:
        InputError: a file that is damaged.
    """
    path = folder / FILE
    try:
        found = [Chosen(**one) for one in json.loads(path.read_text("utf-8"))] if path.exists() else []
    except (OSError, ValueError, TypeError) as error:
        hint = "removing that file; options are chosen again."
        raise InputError("Choices, as a run wrote them.", f"{str(path)!r} ({error})", hint) from error
    return {(one.model, one.method): one for one in found}


def write_choices(folder: Path, choices: Mapping[tuple[str, str], Chosen]) -> None:
    """All choices, whole or not at all."""
    text = json.dumps([asdict(one) for one in choices.values()], indent=1) + "\n"
    write_whole(folder / FILE, lambda path: path.write_text(text, encoding="utf-8"))
