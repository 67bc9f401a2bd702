"""What a run would do, without doing it: how much, how many forward passes, how long."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from accelerate import PartialState
from quantus.metrics.base import Metric
from torch import nn

from captum_vit.errors import InputError
from quantus_metrics.benchmark.factories import computing, make_model
from quantus_metrics.benchmark.group import Group, read_group
from quantus_metrics.benchmark.measure import Maps, measure
from quantus_metrics.benchmark.runner import Bench
from quantus_metrics.metrics import Passes

TRIED = 2  # samples on which the cost is measured


def estimate(bench: Bench, state: PartialState) -> str:
    """A table of what would run. Every method and metric is tried on two samples, and what they cost is counted.

    A trial of two gives passes exactly and time roughly: full groups are faster for each image.
    """
    lines = ["| model | method | metric | image passes | seconds | on the trial |", "|---|---|---|--:|--:|---|"]
    passes, seconds = 0.0, 0.0
    for part in bench.spec.model:
        model = make_model(part, state.device, bench.spec.precision)
        group, failed = read_group(bench.data, range(min(TRIED, bench.n)), model, bench.spec.resize)
        if group is None:
            raise InputError("A first sample that can be read.", "; ".join(failed.values()), "another `[data]`.")
        shared = Passes(model)
        for name, metrics, n in _work(bench):
            method = bench.methods[name]
            make = partial(_maps, Maps(method.make(model), method.options, group, bench.spec.seed))
            for metric_name, metric in metrics.items():
                with counted(model) as count, computing(bench.spec.precision, state.device):
                    start = time.perf_counter()
                    found = list(measure(make, group, {metric_name: metric}, shared, bench.spec.seed))
                    spent = (time.perf_counter() - start) / len(group) * n
                errors = [each.error for each in found if each.error]
                here = count.images / len(group) * n
                passes, seconds = passes + here, seconds + spent
                said = errors[0] if errors else "works"
                lines.append(f"| {part.name} | {name} | {metric_name} | {here:,.0f} | {spent:,.0f} | {said} |")
    world = state.num_processes
    return "\n".join(
        [
            f"{bench.spec.title}: {bench.n} samples in {len(bench.groups)} groups, {world} process(es).",
            "Maps, and passes that several metrics need, are counted with the first that asks for them.",
            "",
            *lines,
            "",
            f"In all about {passes:,.0f} image passes and {seconds / 60:,.1f} minutes"
            + (f", {seconds / 60 / world:,.1f} with {world} processes." if world > 1 else "."),
        ]
    )


def _work(bench: Bench) -> Iterator[tuple[str, Mapping[str, Metric], int]]:
    """Each method with metrics, and of how many samples: those of the choice, under each setting, and the table's."""
    for name in bench.methods:
        if bench.chooser is not None and name in bench.chooser.settings:
            n = len(bench.chooser.data) * len(bench.chooser.settings[name])
            yield name, {f"{bench.chooser.name}, to choose": bench.chooser.metric}, n
        yield name, bench.metrics, bench.n


def _maps(whole: Maps, group: Group) -> Maps:
    """The same maps for every metric, as in a run; a single sample gets its own."""
    return whole if group is whole.group else Maps(whole.method, whole.options, group, whole.seed)


class Count:
    """How many images a model saw."""

    images = 0


@contextmanager
def counted(model: nn.Module) -> Iterator[Count]:
    """Counts the images of every forward pass inside."""
    count = Count()

    def see(_: nn.Module, inputs: tuple[object, ...]) -> None:
        first = inputs[0] if inputs else None
        count.images += len(first) if hasattr(first, "__len__") else 1

    handle = model.register_forward_pre_hook(see)
    try:
        yield count
    finally:
        handle.remove()
