"""From the names in a spec to the things themselves: data, model, methods, metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial
from typing import Any

import quantus
import torch
from quantus.metrics.base import Metric
from torch import nn

import captum_vit as cv
from captum_vit import demo
from captum_vit.errors import OptionError
from captum_vit.inputs.loading import load_model
from captum_vit.named_method import NamedMethod, method_named
from quantus_metrics import perturb
from quantus_metrics.benchmark.data import READERS, Samples
from quantus_metrics.benchmark.toml_spec import DataSpec, MethodSpec, MetricSpec, ModelSpec
from quantus_metrics.bridge import of_classes
from quantus_metrics.metrics import METRICS

DEMOS: dict[str, Callable[[], nn.Module]] = {
    "digits": demo.demo_vit,
    "label": partial(demo.demo_vit, objective="label"),
    "mean": partial(demo.demo_vit, pooling="mean"),
    "attention": partial(demo.demo_vit, pooling="attention"),
    "swin": demo.demo_swin,
    "answers": lambda: demo.DigitAnswers(demo.demo_vlm()),
}
HEADS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "auto": lambda model: model,
    "labels": cv.MultiLabel,
    "logit": cv.TwoClasses,
}


def make_data(spec: DataSpec) -> Samples:
    """The data set, opened."""
    reader = _named("data.use", spec.use, READERS)
    return _made("data.options", reader, _accepted("data.options", spec.options, _arguments(reader)))


def make_model(spec: ModelSpec, device: torch.device, precision: str) -> nn.Module:
    """The model in eval mode, on the device and in the precision of the run."""
    library, _, name = spec.load.partition(":")
    if library == "demo":
        model = _named(f"model {spec.name!r}, load", name, DEMOS)()
    else:
        model = load_model(spec.load, pretrained=spec.pretrained, checkpoint=spec.checkpoint)
    model = of_classes(HEADS[spec.head](model))
    return model.to(device, torch.float32 if precision.endswith("-mixed") else getattr(torch, precision)).eval()


def computing(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a model of this precision works: autocast where it is mixed."""
    name, mixed, _ = precision.partition("-mixed")
    return torch.autocast(device.type, getattr(torch, name) if mixed else None, enabled=bool(mixed))


def make_method(spec: MethodSpec) -> NamedMethod:
    """The method. Its options are those of the constructor and of ``attribute``, in the table or in the name."""
    try:
        return method_named(spec.method, spec.options)
    except OptionError as error:
        raise OptionError(f"method {spec.name!r}: {error.wanted}", error.got, error.hint) from error


def make_metric(spec: MetricSpec) -> Metric:
    """The metric. In its options a table with a ``use`` is made too: ``remover = {use = "Fill", value = 0}``, and a
    ``metric`` within a metric.
    """
    key = f"metric {spec.name!r}, use"
    if spec.metric.startswith("quantus."):
        kind = _named(key, spec.metric, {f"quantus.{name}": getattr(quantus, name) for name in _quantus_names()})
    else:
        kind = _named(key, spec.metric, METRICS)
    options = _accepted(f"metric {spec.name!r}, options", spec.options, _arguments(kind))
    options = {name: _part(spec.name, name, value) for name, value in options.items()}
    if "return_curves" in _arguments(kind):
        options.setdefault("return_curves", True)
    return kind(**options)


def _quantus_names() -> list[str]:
    return [name for name, kind in vars(quantus).items() if inspect.isclass(kind) and issubclass(kind, Metric)]


def _part(metric: str, option: str, value: Any) -> Any:
    """What a table in a metric's options stands for: a metric, or a remover; any other value is itself."""
    if not (isinstance(value, dict) and "use" in value):
        return value
    if option == "metric":
        rest = {name: each for name, each in value.items() if name != "use"}
        return make_metric(MetricSpec(f"{metric}, metric", value["use"], rest))
    known = {name: getattr(perturb, name) for name in perturb.__all__ if inspect.isclass(getattr(perturb, name))}
    known = {name: kind for name, kind in known.items() if issubclass(kind, perturb.Remover)}
    kind = _named(f"metric {metric!r}, remover", value["use"], known)
    rest = {name: option for name, option in value.items() if name != "use"}
    where = f"metric {metric!r}, remover"
    return _made(where, kind, _accepted(where, rest, _arguments(kind)))


def _made(key: str, kind: Callable[..., Any], options: dict[str, Any]) -> Any:
    """The thing, if no option is missing without which it cannot be."""
    parameters = inspect.signature(kind).parameters.values()
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if missing := [name for name in needed if name not in options]:
        raise OptionError(f"{key}: {', '.join(needed)}.", f"no {missing[0]!r}", f'{missing[0]} = "..." in the spec.')
    return kind(**options)


def _named(key: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        near = get_close_matches(name, known, n=5, cutoff=0.4)
        raise OptionError(f"{key}: a known name.", repr(name), "one of " + ", ".join(near or known))
    return known[name]


def _accepted(key: str, options: dict[str, Any], known: list[str]) -> dict[str, Any]:
    """The options, if all of them are known."""
    if unknown := [name for name in options if name not in known]:
        hint = "one of " + ", ".join(known) if known else "no options: it takes none"
        raise OptionError(f"{key}: names that it takes.", repr(unknown[0]), hint)
    return options


def _arguments(made: Any) -> list[str]:
    """The names of the options of a class, its ancestors' included where it hands keywords on, or of a function."""
    if made is None:
        return []
    kinds: Iterable[Any] = [made] if not inspect.isclass(made) else [k for k in made.__mro__ if "__init__" in vars(k)]
    found: dict[str, None] = {}
    for kind in kinds:
        parameters = inspect.signature(kind).parameters.values()
        named = (p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        found |= dict.fromkeys(name for name in named if name not in _NOT_FOR_SPECS)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(found)


_NOT_FOR_SPECS = ("self", "model", "generator")
