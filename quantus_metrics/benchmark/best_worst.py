"""The maps that a metric found best and worst, drawn: what the numbers look like."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_vit import viz
from captum_vit.inputs.class_names import class_names
from captum_vit.inputs.images import display_image
from captum_vit.named_method import NamedMethod
from captum_vit.viz.blending import large
from quantus_metrics.benchmark.factories import computing, make_model
from quantus_metrics.benchmark.group import read_group
from quantus_metrics.benchmark.measure import Maps
from quantus_metrics.benchmark.origin import check_weights, weights_digest
from quantus_metrics.benchmark.rows import Key, Row
from quantus_metrics.benchmark.runner import Bench

SHOWN = 3  # best ones, and as many worst ones


@dataclass(frozen=True)
class Picture:
    """A map over its picture, as a data URI, and its captions."""

    uri: str
    sample: str
    label: str
    score: float


@dataclass(frozen=True)
class Shelf:
    """A method's best and worst maps under one metric."""

    model: str
    method: str
    metric: str
    best: list[Picture]
    worst: list[Picture]


def gallery(bench: Bench, rows: Mapping[Key, Row], device: torch.device) -> list[Shelf]:
    """For every model and method, best and worst under the first metric that has a direction.

    Maps are made again, in the groups and with the seeds in which they were measured, so they are the same.
    """
    metric = next((name for name, found in bench.metrics.items() if _sign(found) is not None), None)
    if metric is None:
        return []
    sign = _sign(bench.metrics[metric]) or 1
    shelves = []
    for part in bench.spec.model:
        model = None
        for method in bench.methods:
            scored = [
                (sign * row.score, index)
                for index in range(bench.n)
                if (row := rows.get((part.name, method, metric, bench.data.name(index)))) and row.score is not None
            ]
            order = [index for _, index in sorted(scored, reverse=True)]
            if model is None:
                model = make_model(part, device, bench.spec.precision)
                check_weights(rows.values(), part.name, weights_digest(model))
            wanted = [order[:SHOWN], order[SHOWN:][-SHOWN:][::-1]]
            failed = {sample for (*at, _, sample), row in rows.items() if row.error and at == [part.name, method]}
            made = bench.method(part.name, method)
            drawn = _drawn(bench, model, made, {index for some in wanted for index in some}, failed)
            scores = {index: sign * score for score, index in scored}
            best, worst = ([Picture(*drawn[i], scores[i]) for i in some if i in drawn] for some in wanted)
            shelves.append(Shelf(part.name, method, metric, best, worst))
    return shelves


def _sign(metric: object) -> int | None:
    return {"higher": 1, "lower": -1}.get(getattr(metric, "score_direction").value)  # noqa: B009, Quantus's is untyped


def _drawn(
    bench: Bench, model: torch.nn.Module, made: NamedMethod, indices: set[int], failed: set[str]
) -> dict[int, tuple[str, str, str]]:  # by index: picture, sample, label
    """Maps of these samples, each made in its group; by itself where another of the group failed, as it was scored."""
    found, names = {}, class_names(model) or {}
    for group_indices in bench.groups:
        wanted = {bench.data.name(index): index for index in group_indices if index in indices}
        group = read_group(bench.data, group_indices, model, bench.spec.resize)[0] if wanted else None
        if group is None:
            continue
        for part in [group] if failed.isdisjoint(group.names) else group.singles():
            if wanted.keys().isdisjoint(part.names):
                continue
            with computing(bench.spec.precision, part.inputs.device):
                maps = Maps(made.make(model), made.options, part, bench.spec.seed).of(part.labels)
            pixels = display_image(model, part.inputs)
            for i, name in enumerate(part.names):
                if name in wanted:
                    number = int(part.labels[i])
                    found[wanted[name]] = (_uri(pixels[i], maps[i, 0]), name, names.get(number, str(number)))
    return found


def _uri(pixels: Tensor, relevance: Tensor) -> str:
    """A PNG of the map over the picture, within the page itself."""
    blended = viz.blend(large(pixels), relevance.float().cpu())
    file = io.BytesIO()
    Image.fromarray((255 * blended).round().astype(np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
