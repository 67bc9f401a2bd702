"""Bad calls of every method: inputs, targets and further arguments of ``attribute``, and every option."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from captum.attr import InputXGradient, Saliency
from torch import nn

import captum_vit as cv
from tests.contracts.pairs import SLICE_METHODS
from tests.malformed.bad import BERT, CONVNET, IDS, IMAGES, MASK, VIT, Bad, in_training, options, said, spoilt

INPUTS = [
    None, "photo.jpg", 3, [IMAGES], (), (IMAGES, None), IMAGES.numpy(), IMAGES[:0], torch.tensor(1.0),
    spoilt(torch.nan), spoilt(torch.inf),
]  # fmt: skip
TARGETS = [
    "cat", 1.5, True, 99, -99, [], [0], [0, 1], [0, 1, 99], [0.5, 1.0, 2.0], (), ("cat",), {"target": 1},
    torch.tensor([0.0, 1.0, 2.0]), torch.tensor([True, False, True]), torch.tensor([[0, 1, 2]]),
]  # fmt: skip
SHAPES = [IMAGES[0], IMAGES[:, :1], IMAGES[..., :20], IMAGES[:, :, :, :, None], IMAGES.bool(), IMAGES.long()]
ARGS = [IMAGES, "mask", (torch.ones(3, 9), {"a": 1})]
MODELS = {
    "None": None,
    "a name": "vit_tiny",
    "the class": nn.Module,
    "a function": VIT.forward_features,
    "a ConvNet": CONVNET,
}

SCORES, LAYERS = ["probability", None, 1], ["blocks", 3, [], [99], [1.5], [None]]
FLAGS: list[Any] = ["no", 1, None]
VALUES: dict[str, list[Any]] = {
    "output": ["map", None, 4, ("grid",)],
    "layer": ["blocks.99", "", 99, -99, 1.5, True, VIT, CONVNET, object()],
    "start_layer": ["blocks.0", 99, -99, 1.5, True],
    "layers": LAYERS,
    "attention_layers": LAYERS,
    "score": SCORES,
    "similarity": ["euclid", None],
    "attention": ["max", None, 0],
    "temperature": [0, -1.0, float("nan"), float("inf"), "1", None],
    "rule": ["lrp", None, 0],
    "rows": ["all", None],
    "readout": ["cls", None],
    "explains": ["patches", None],
    "reduce": ["max", None],
    "weights": ["attention", None, 1],
    "signed": FLAGS,
    "heads": ["max", None],
    "head": [0.5, "0", True],
    "alignment": ["mid", None],
    "aggregation": ["mean", None],
    "norm": ["l3", None, 2],
    "variant": ["libra", None],
    "generator": [0, "seed"],
    "checkpoint": FLAGS,
    "method": ["Saliency", 3],
    **dict.fromkeys(
        ("absolute", "include_prefix", "prediction", "aggregate", "length", "direction", "feed_forward"), FLAGS
    ),
    "include_ln2": ["no", 1],
    **{name: [-0.1, 1.5, "half", None] for name in ("flip", "noise", "shift")},
    "rotate": [-1, 181, float("nan"), "20"],
    "scale": [1.0, -0.1, None],
    "average": ["median", None],
    "seed": [-1, 0.5, None],
    # of attribute
    "perturbations_per_eval": [0, 1.5, None],
    "n_samples": [0, -1, 2.5, "50", True],
    "stdev": [-0.1, float("nan"), float("inf"), "0.5", None],
    "n_steps": [0, -1, 2.5, "50"],
    "internal_batch_size": [0, -3, 1.5, "8"],
    "baselines": ["zeros", float("nan"), IMAGES[..., :9], (IMAGES, IMAGES), spoilt(torch.inf)],
    "grad_kwargs": ["retain_graph", {"retain": True}, [1]],
    **dict.fromkeys(
        ("attribute_to_layer_input", "relu_attributions", "return_convergence_delta", "show_progress"), FLAGS
    ),
}
METHOD_OF_INTEGRATION = ["simpson", None, 1]
FREE = {"self", "forward_func", "device_ids", "inputs", "target", "additional_forward_args", "arguments"}
"""Arguments that are no options, or of which every value is good."""

CLASSES = {
    name: kind for name, kind in vars(cv).items() if isinstance(kind, type) and issubclass(kind, cv.TokenAttribution)
}
MADE = {name: kind for name, kind in CLASSES.items() if name not in ("TokenAttribution", "PLUS", "SkipPLUS")}


def taken(function: Callable[..., Any]) -> list[str]:
    """The options of a function; each has its bad values in the table."""
    return [name for name in inspect.signature(function).parameters if name not in FREE]


def calls_of_every_method() -> Iterator[Bad]:
    """Some methods with every bad value; the others with every sixth of them, so that each value meets several."""
    for place, (name, make) in enumerate(cv.METHODS.items()):
        some = slice(None) if name in SLICE_METHODS else slice(place % 6, None, 6)
        for x in INPUTS[some]:
            yield Bad(f"{name}.attribute({said(x)})", lambda m=make, x=x: m(VIT).attribute(x, target=0))
        for target in TARGETS[some]:
            yield Bad(
                f"{name}.attribute(target={said(target)})", lambda m=make, t=target: m(VIT).attribute(IMAGES, target=t)
            )
        for x in SHAPES[some]:
            yield Bad(f"{name}.attribute({said(x)})", lambda m=make, x=x: m(VIT).attribute(x, target=0), asks=True)
        for args in ARGS[some]:
            call = lambda m=make, a=args: m(VIT).attribute(IMAGES, 0, additional_forward_args=a)  # noqa: E731
            yield Bad(f"{name}.attribute(additional_forward_args={said(args)})", call, asks=True)
        for what, model in list(MODELS.items())[some]:
            yield Bad(f"{name}({what})", lambda m=make, f=model: m(f).attribute(IMAGES, 0))
        yield Bad(f"{name}(a model in training)", lambda m=make: m(in_training(VIT)).attribute(IMAGES, 0))


def calls_on_texts() -> Iterator[Bad]:
    for place, (name, make) in enumerate(cv.METHODS.items()):
        some = slice(None) if name in SLICE_METHODS else slice(place % 4, None, 4)
        for x in (IDS.float(), IDS + 90, IDS.repeat(1, 9), IDS[0])[some]:
            yield Bad(
                f"{name}.attribute({said(x)} up to {x.max()})", lambda m=make, x=x: m(BERT).attribute(x, 0), asks=True
            )
        for mask in (MASK[:, :4], MASK[:2], MASK.unsqueeze(2), "mask")[some]:
            call = lambda m=make, a=mask: m(BERT).attribute(IDS, 0, additional_forward_args=a)  # noqa: E731
            yield Bad(f"{name}.attribute(a text, mask {said(mask)})", call, asks=True)


def options_of_constructors() -> Iterator[Bad]:
    met: Counter[str] = Counter()
    for name, kind in MADE.items():
        make = lambda kind=kind, **option: kind(VIT, **option).attribute(IMAGES, 0)  # noqa: E731
        yield from options(name, make, taken(kind), VALUES, met)
    inner = (cv.DecompX(VIT), InputXGradient(VIT))
    for kind, values in ((cv.PLUS, {"layers": LAYERS}), (cv.SkipPLUS, {"start_layer": VALUES["start_layer"]})):
        for method in inner:
            make = lambda kind=kind, m=method, **option: kind(m, **option).attribute(IMAGES, 0)  # noqa: E731
            yield from options(f"{kind.__name__}({type(method).__name__})", make, list(values), values)
        for method in (None, "DecompX", cv.DecompX, cv.PredictionMap(VIT), VIT):
            yield Bad(f"{kind.__name__}({said(method)[:20]})", lambda kind=kind, m=method: kind(m).attribute(IMAGES, 0))
    yield Bad("RawAttention(head=99)", lambda: cv.RawAttention(VIT, head=99).attribute(IMAGES), asks=True)
    yield Bad("PredicAtt of nothing", lambda: cv.PredicAtt(VIT, attention="none", prediction=False))
    yield Bad("VTranM(tokentm, prob)", lambda: cv.VTranM(VIT, variant="tokentm", score="prob"))
    yield Bad("InputGradient(output=channels)", lambda: cv.InputGradient(VIT, Saliency, output="channels"))
    yield Bad("pixels of a text", lambda: cv.LayerCDAM(BERT, output="pixels").attribute(IDS, 0), asks=True)


def options_of_attribute() -> Iterator[Bad]:
    met: Counter[str] = Counter()
    for name, kind in MADE.items():
        values = VALUES | {"method": METHOD_OF_INTEGRATION}
        make = lambda kind=kind, **option: kind(VIT).attribute(IMAGES, target=0, **option)  # noqa: E731
        yield from options(f"{name}.attribute", make, taken(kind.attribute), values, met)


def further_methods() -> Iterator[Bad]:
    cdam, maps = cv.LayerCDAM(VIT), cv.PredictionMap(VIT)
    for x in INPUTS:
        yield Bad(f"LayerCDAM.all_classes({said(x)})", lambda x=x: cdam.all_classes(x))
        yield Bad(f"PredictionMap.all_classes({said(x)})", lambda x=x: maps.all_classes(x))
        yield Bad(f"LayerCDAM.value_and_key_terms({said(x)})", lambda x=x: cdam.value_and_key_terms(x, 0))
        yield Bad(f"LRP.pixels({said(x)})", lambda x=x: cv.LRP(VIT).pixels(x, 0))
    for target in TARGETS:
        yield Bad(
            f"LayerCDAM.value_and_key_terms(target={said(target)})",
            lambda t=target: cdam.value_and_key_terms(IMAGES, t),
        )
        yield Bad(f"LRP.pixels(target={said(target)})", lambda t=target: cv.LRP(VIT).pixels(IMAGES, t))
    channels = cv.LayerCDAM(VIT, output="channels")
    yield Bad("LayerCDAM.all_classes of channels", lambda: channels.all_classes(IMAGES))
    named = cv.LayerCDAM(VIT, "blocks.1")
    yield Bad("LayerCDAM.value_and_key_terms of a name", lambda: named.value_and_key_terms(IMAGES, 0))


def in_quick_loop(bad: Bad) -> bool:
    """Of calls of every method those of a few."""
    return bad.what.startswith(tuple(f"{name}{sign}" for name in SLICE_METHODS for sign in ".("))


METHOD_CALLS = [
    *(bad._replace(slow=not in_quick_loop(bad)) for bad in (*calls_of_every_method(), *calls_on_texts())),
    *options_of_constructors(), *options_of_attribute(), *further_methods()
]  # fmt: skip
