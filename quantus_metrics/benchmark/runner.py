"""Running a spec: groups of samples shared out among processes, results appended as they come."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import PartialState
from captum.attr import Attribution
from quantus.metrics.base import Metric
from torch import nn
from tqdm.auto import tqdm

from captum_vit.errors import InputError
from captum_vit.named_method import NamedMethod
from quantus_metrics.benchmark.choice import Chooser, Chosen, check_chosen, choose, chooser_of, settings_of
from quantus_metrics.benchmark.data import Drawn, Samples, data_digest
from quantus_metrics.benchmark.factories import computing, make_data, make_metric, make_model
from quantus_metrics.benchmark.group import Group, read_group
from quantus_metrics.benchmark.measure import Finding, Maps, measure, now
from quantus_metrics.benchmark.memory import peak_bytes
from quantus_metrics.benchmark.origin import check_data, check_weights, weights_digest
from quantus_metrics.benchmark.rows import Key, Row, RowWriter, read_rows
from quantus_metrics.benchmark.toml_spec import ModelSpec, Spec, read_spec, write_spec
from quantus_metrics.metrics import Passes

RESOURCES = "(resources)"
"""Under this name each group's rows hold what the maps cost."""

PACKAGES = ("torch", "captum", "quantus", "timm", "transformers", "captum-vit")


@dataclass(frozen=True)
class Bench:
    """A spec whose parts are made, so that every name and option in it is known to be right.

    Args:
        spec: what is run.
        data: the samples.
        methods: by the names of the spec.
        metrics: by the names of the spec.
        n: how many of the samples.
        chooser: what options are chosen by, where methods have a grid; of these `methods` holds the first setting.
        chosen: by model and method, what was chosen.
    """

    spec: Spec
    data: Samples
    methods: dict[str, NamedMethod]
    metrics: dict[str, Metric]
    n: int
    chooser: Chooser | None = None
    chosen: Mapping[tuple[str, str], Chosen] = field(default_factory=dict)

    def method(self, model: str, name: str) -> NamedMethod:
        """A method, for a model in the setting that was chosen."""
        chosen = self.chosen.get((model, name))
        if chosen is None or self.chooser is None:
            return self.methods[name]
        return self.chooser.settings[name][chosen.setting]

    @property
    def groups(self) -> list[range]:
        """Places of the samples that are worked on together, whatever the number of processes."""
        size = self.spec.batch_size
        return [range(start, min(start + size, self.n)) for start in range(0, self.n, size)]


def bench_of(spec: Spec, limit: int | None = None) -> Bench:
    """Make the parts of a spec; only models wait, since they are large.

    Of more samples than `limit` so many are drawn, by the spec's seed.

    Raises:
        OptionError: a name or an option that is not known.
        InputError: data that cannot be read, or none.
    """
    methods = {part.name: next(iter(settings_of(part).values())) for part in spec.method}
    metrics = {part.name: make_metric(part) for part in spec.metric}
    data = make_data(spec.data)
    if limit is not None and 0 < limit < len(data):
        data = Drawn(data, limit, spec.seed)
    if len(data) < 1 or (limit is not None and limit < 1):
        got = f"--limit {limit}" if len(data) else "none in the data"
        raise InputError("At least one sample.", got, "--limit 10, or no limit.")
    return Bench(spec, data, methods, metrics, len(data), chooser_of(spec, data))


def run(bench: Bench, folder: Path, state: PartialState, retry: bool = False) -> Bench:
    """Choose the options that have a grid, then measure what is not in the folder yet; this process's share of it.

    Killed at any moment and run again, with as many processes or with others, nothing is lost and nothing counts
    twice. A sample that fails gets a row with its error; `retry` tries such samples again.

    Returns:
        the bench with the options that were chosen.

    Raises:
        InputError: the folder holds results of another spec, of other weights or of other data.
    """
    remember(bench.spec, folder, state)
    if bench.chooser is not None:
        bench = replace(bench, chosen=choose(bench.chooser, bench.spec, folder, state))
    rows, data = read_rows(folder, bench.spec.hash), data_digest(bench.data)
    check_data(rows.values(), data)
    done = {key for key, row in rows.items() if not (retry and row.error)}
    state.wait_for_everyone()  # nobody writes before everybody has read
    writer = RowWriter(folder, state.process_index)
    mine = bench.groups[state.process_index :: state.num_processes]
    facts = Row(bench.spec.hash, bench.spec.seed, versions(), "", "", "", "", data=data)
    with tqdm(
        total=len(mine) * len(bench.spec.model) * len(bench.methods), unit="group", disable=not state.is_main_process
    ) as bar:
        for model_spec in bench.spec.model:
            bar.set_description(model_spec.name)
            left = [group for group in mine if _left(bench, model_spec, group, done)]
            bar.update((len(mine) - len(left)) * len(bench.methods))
            if left:
                model = make_model(model_spec, state.device, bench.spec.precision)
                at_model = replace(facts, model=model_spec.name, weights=weights_digest(model))
                check_weights(rows.values(), at_model.model, at_model.weights)
                check_chosen(bench.chosen.values(), at_model.model, at_model.weights)
                with computing(bench.spec.precision, state.device):
                    for group in left:
                        for found in _work(bench, model, at_model, group, done):
                            writer.write(found)
                            bar.update()
    state.wait_for_everyone()
    return bench


def remember(spec: Spec, folder: Path, state: PartialState) -> None:
    """Keep the spec beside its results; refuse a folder of another one."""
    path = folder / "spec.toml"
    if path.exists() and (other := read_spec(path)).hash != spec.hash:
        raise InputError(
            "A folder of only this spec.", f"{str(folder)!r}, of {other.title!r} ({other.hash})", "another --out."
        )
    state.wait_for_everyone()
    if state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(write_spec(spec), encoding="utf-8")
        new.replace(path)
    state.wait_for_everyone()


def versions() -> str:
    """What the numbers were made with."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)])


def _left(bench: Bench, model: ModelSpec, group: range, done: set[Key]) -> bool:
    """Whether anything of this group is missing."""
    return any(
        (model.name, method, metric, bench.data.name(index)) not in done
        for method in bench.methods
        for metric in bench.metrics
        for index in group
    )


def _work(bench: Bench, model: nn.Module, facts: Row, indices: range, done: set[Key]) -> Iterator[list[Row]]:
    """The missing rows of a group, method by method."""
    group, failed = read_group(bench.data, indices, model, bench.spec.resize)
    plain = None if group is None else forward_seconds(model, group)
    passes, names = Passes(model), [bench.data.name(index) for index in indices]
    for method_name in bench.methods:
        method = bench.method(facts.model, method_name)
        at_method = replace(facts, method=method_name)
        missing = {
            name: metric
            for name, metric in bench.metrics.items()
            if any((facts.model, method_name, name, sample) not in done for sample in names)
        }
        found = [Finding(metric, sample, error=why) for metric in missing for sample, why in failed.items()]
        rows = []
        if group is not None and missing:
            made: list[Maps] = []
            attribution = method.make(model)
            found += measure(
                partial(_maps, made, attribution, method, bench.spec.seed), group, missing, passes, bench.spec.seed
            )
            peak = _peak(attribution, method, group) if indices.start == 0 and made[0].images else None
            rows.append(_resources(at_method, group, made[0], plain, peak))
        rows += [
            replace(at_method, metric=f.metric, sample=f.sample, score=f.score, kept=f.kept, error=f.error)
            for f in found
        ]
        yield [row for row in rows if row.key not in done]


def _maps(made: list[Maps], attribution: Attribution, method: NamedMethod, seed: int, group: Group) -> Maps:
    """The maps of a group, remembered so that their cost is known."""
    made.append(Maps(attribution, method.options, group, seed))
    return made[-1]


def _peak(attribution: Attribution, method: NamedMethod, group: Group) -> int:
    """The memory in bytes that the map of one image needs, above what there was before."""
    one, seed = next(group.singles()), 0
    return peak_bytes(lambda: Maps(attribution, method.options, one, seed).of(one.labels), one.inputs.device)


def _resources(facts: Row, group: Group, maps: Maps, forward: float | None, peak: int | None) -> Row:
    """What the maps of a group cost: seconds for each image; bytes, where they were measured."""
    kept: dict[str, float | list[float]] = {"images": maps.images}
    if maps.images and forward is not None:
        kept |= {"seconds": maps.seconds / maps.images, "forward_seconds": forward}
    if peak is not None:
        kept["peak_bytes"] = peak
    return replace(facts, metric=RESOURCES, sample=group.names[0], kept=kept)


@torch.inference_mode()
def forward_seconds(model: nn.Module, group: Group) -> float:
    """Wall time of a plain forward pass, for each image; the second of two, since the first warms up."""
    for _ in range(2):
        start = now(group.inputs.device)
        model(group.inputs)
    return (now(group.inputs.device) - start) / len(group)
