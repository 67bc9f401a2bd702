"""Bad calls of metrics, of what takes parts of inputs away, and of what is told from scores."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from captum.attr import Saliency

import captum_vit as cv
import quantus_metrics as qm
from quantus_metrics import perturb
from quantus_metrics.metrics import METRICS
from quantus_metrics.metrics.base import TokenMetric
from tests.malformed.bad import BERT, CONVNET, IDS, IMAGES, MASK, VIT, Bad, in_training, options, said

X, Y = IMAGES.numpy(), np.array([1, 4, 2])
LOST = np.full_like(X, np.nan)
MAPS = np.random.default_rng(0).random((3, 1, 4, 4), dtype=np.float32)
MASKS = np.zeros((3, 1, 32, 32))
MASKS[..., 8:20, 8:20] = 1
HOLED = np.where(MAPS > 0.9, np.nan, MAPS)
EXPLAIN = qm.explain_func(cv.LayerCDAM)

FLAGS: list[Any] = ["no", 1, None]
VALUES: dict[str, list[Any]] = {
    **dict.fromkeys(
        ("abs", "normalise", "return_aggregate", "return_curves", "normalised", "absolute", "include_zero"), FLAGS
    ),
    "normalise_func": ["max", 3],
    "aggregate_func": ["mean", 3],
    "score": ["best", None, 1],
    "explained": ["truth", None],
    "average": ["median", None],
    "threshold": [0, -1, 1.5, "0.05", float("nan")],
    "patch_size": [0, -8, 1.5, "8", (8,), (8, 0)],
    "remover": ["blur", perturb.Blur, 0.5],
    "reference": ["black", perturb.Fill, 0],
    "fractions": [(), "0.5", (0.5, 0.5), (0.5, 0.1), (0, 1.1), (-0.1, 1), (0, float("nan")), ("0", "1"), 0.5],
    "internal_batch_size": [0, -1, 1.5, "8"],
    "metric": ["Fidelity", qm.Fidelity, Saliency],
    "sizes": [(), (1,)],
    "n_boxes": [0, 2, 9.5, "many"],
    "seed": [-1, 0.5, "a"],
    "on_grid": FLAGS,
    "order": ["bottom_up", None],
    "similarity": ["cosine", None],
    "n_samples": [-1, 0.5, "many"],
    "noise": [0, -1.0, "much", float("nan")],
    "enlarge": ["nearest", True],
    "least_kept": [-0.1, 1.5, "most"],
    "n_draws": [0, 2.5, "many"],
    "alpha": [0, 1.5, "half"],
    "beta": [0, 1, "half"],
    "reads": ["logit", None],
    "wrong": ["next", -1, 1.5, True, None],
}
FREE = {"self", "kwargs", "normalise_func_kwargs", "default_plot_func", "disable_warnings", "display_progressbar"}


def taken(metric: type[TokenMetric]) -> list[str]:
    """The options of a metric, those of its ancestors included."""
    kinds = [kind for kind in metric.__mro__ if issubclass(kind, TokenMetric) and "__init__" in vars(kind)]
    names = dict.fromkeys(name for kind in kinds for name in inspect.signature(kind).parameters)
    return [name for name in names if name not in FREE]


def options_of_metrics() -> Iterator[Bad]:
    met: Counter[str] = Counter()
    for metric in METRICS.values():
        yield from options(metric.__name__, metric, taken(metric), VALUES, met)
        yield Bad(f"{metric.__name__}(an unknown option)", lambda metric=metric: metric(patchsize=8))


def calls_of_metrics() -> Iterator[Bad]:
    good = {"model": VIT, "x_batch": X, "y_batch": Y, "a_batch": MAPS, "s_batch": MASKS}
    bad: dict[str, list[Any]] = {
        "model": [None, "vit", VIT.forward, in_training(VIT)],
        "x_batch": [None, "photo.jpg", 3, X[:0], X[:2], X[0], LOST, X.astype(str), X.astype(object), X + 1j],
        "y_batch": [None, 1, "cat", Y[:2], Y + 0.5, Y - 3, Y + 3, Y[:, None], ["a", "b", "c"], np.eye(5)[Y]],
        "a_batch": [3, "map", MAPS[:2], MAPS[:0], MAPS[0, 0], HOLED, np.ones_like(MAPS), MAPS.astype(str)],
        "batch_size": [0, -1, 1.5, "64", None],
        "classes": [5],
    }  # fmt: skip
    for place, metric in enumerate(METRICS.values()):
        made = metric() if metric is not qm.ClassDiscrimination else qm.ClassDiscrimination(wrong=0)
        name = metric.__name__
        some = slice(place % 3, None, 3) if place else slice(None)  # the base class reads them for all
        for argument, values in bad.items():
            for value in values[some]:
                call = {**good, "explain_func": EXPLAIN, argument: value}
                yield Bad(f"{name}()(..., {argument}={said(value)})", lambda made=made, call=call: made(**call))
        for explain in (None, "LayerCDAM", 3):
            call = {**good, "a_batch": None, "explain_func": explain}
            yield Bad(f"{name}()(..., explain_func={explain!r})", lambda made=made, call=call: made(**call))
    for metric in (qm.Segmentation, qm.GridPointing):
        for masks in (None, MASKS[:2], MASKS[..., :9], 0 * MASKS, 1 + MASKS, np.full_like(MASKS, np.nan), "masks", 3):
            call = {**good, "s_batch": masks}
            yield Bad(
                f"{metric.__name__}()(..., s_batch={said(masks)})", lambda metric=metric, call=call: metric()(**call)
            )
    for metric in METRICS.values():
        yield Bad(f"{metric.__name__}().summary() before a call", lambda metric=metric: metric().summary())


def curves() -> Iterator[Bad]:
    target, relevance = torch.from_numpy(Y), torch.from_numpy(MAPS)
    good: dict[str, Any] = {"model": VIT, "inputs": IMAGES, "target": target, "relevance": relevance}
    bad: dict[str, list[Any]] = {
        "inputs": [IMAGES[:0], IMAGES[0], IMAGES[:2], X],
        "target": [[1, 2], target[:2], target.float(), "cat", None],
        "relevance": [relevance[:2], relevance / 0, torch.ones(3, 4, 4), relevance[..., :3], MAPS],
        "orders": [("best",), "random order", (None,)],
        **{name: VALUES[name] for name in ("remover", "fractions", "patch_size", "internal_batch_size")},
        "generator": [0, "seed"],
        "among": [torch.ones(3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.bool), torch.ones(3, 2, 2, dtype=torch.bool)],
    }  # fmt: skip
    for argument, values in bad.items():
        for value in values:
            call = {**good, "orders": ("random",), argument: value}
            grid = argument == "relevance" and value.shape[-1] == 3  # the model may have such patches
            yield Bad(f"curves({argument}={said(value)})", lambda call=call: perturb.curves(**call), asks=grid)
    yield Bad("curves(target=99)", lambda: perturb.curves(**{**good, "target": 99}), asks=True)
    for remover in (perturb.DropTokens(), perturb.MaskKeys()):
        for model in (CONVNET, lambda x: x, in_training(VIT)):
            call = {**good, "remover": remover, "model": model}
            yield Bad(f"curves({remover}, {said(model)[:12]})", lambda call=call: perturb.curves(**call))
    words = {"model": BERT, "input_ids": IDS, "attention_mask": MASK, "target": target, "relevance": torch.rand(3, 9)}
    for argument, values in {
        "relevance": [relevance, torch.rand(3, 4), torch.ones(3, 9)],
        "attention_mask": [0 * MASK, MASK[:, :4]],
        "remover": [perturb.Blur(), "mask"],
    }.items():
        for value in values:
            call = {**words, argument: value}
            yield Bad(f"text_curves({argument}={said(value)})", lambda call=call: qm.text_curves(**call))


def removers() -> Iterator[Bad]:
    colours = ["red", None, float("nan"), (), (0.1, "a"), (0.1, float("inf"))]
    yield from options("Blur", perturb.Blur, ["sigma"], {"sigma": [0, -1.0, "14", float("nan"), float("inf")]})
    yield from options(
        "Fill", perturb.Fill, ["value", "mean", "std"], {"value": colours, "mean": colours, "std": [0, -1, *colours]}
    )
    black = lambda **given: perturb.Black(**({"mean": 0.5, "std": 0.5} | given))  # noqa: E731
    yield from options("Black", black, ["mean", "std"], {"mean": colours, "std": [0, *colours]})
    yield from options("DropTokens", perturb.DropTokens, ["fallback"], {"fallback": FLAGS})
    yield from options("ReplaceTokens", perturb.ReplaceTokens, ["token_id"], {"token_id": [-1, 1.5, "[MASK]", None]})
    yield Bad("Fill of two channels", lambda: perturb.Fill((0.1, 0.2)).bind(VIT, IMAGES))
    yield Bad("Blur wider than the image", lambda: perturb.Blur(50).bind(VIT, IMAGES))
    yield Bad("Black of a model without statistics", lambda: perturb.Black().bind(lambda x: x, IMAGES))
    yield Bad("Blur of words", lambda: perturb.Blur().bind(BERT, IDS))
    yield Bad("ReplaceTokens of a picture", lambda: perturb.ReplaceTokens(4).bind(VIT, IMAGES))
    for order in ("best", None, 1):
        yield Bad(f"rank(order={order!r})", lambda order=order: perturb.rank(torch.rand(1, 4, 4), order))
    for size in VALUES["patch_size"]:
        yield Bad(
            f"ranking_map(patch_size={size!r})", lambda s=size: perturb.ranking_map(torch.rand(1, 8, 8), (8, 8), s)
        )


def doors() -> Iterator[Bad]:
    for factory in (None, "LayerCDAM", 3):
        yield Bad(f"explain_func({factory!r})", lambda f=factory: qm.explain_func(f))
    for model in (None, "vit", CONVNET, in_training(VIT)):
        yield Bad(f"explain_func(...)({said(model)[:12]})", lambda m=model: EXPLAIN(model=m, inputs=X, targets=Y))
    for x in (None, "photo.jpg", X[:0], LOST, [X[0], "a"]):
        yield Bad(f"explain_func(...)(inputs={said(x)})", lambda x=x: EXPLAIN(model=VIT, inputs=x, targets=Y))
    for y in ("cat", Y[:2], Y + 9, None, ["a"] * 3):
        yield Bad(f"explain_func(...)(targets={said(y)})", lambda y=y: EXPLAIN(model=VIT, inputs=X, targets=y))
    strange = qm.explain_func(lambda model: model)
    yield Bad("explain_func(no attribution)", lambda: strange(model=VIT, inputs=X, targets=Y))
    other = qm.explain_func(cv.LayerCDAM(CONVNET))
    yield Bad("explain_func(an instance for another model)", lambda: other(model=VIT, inputs=X, targets=Y))
    for model in (None, "vit", VIT.forward):
        yield Bad(f"wrap({said(model)[:12]})", lambda m=model: qm.wrap(m))
        yield Bad(f"wrap_text({said(model)[:12]})", lambda m=model: qm.wrap_text(m, pad_id=0))
    for pad in (None, "[PAD]", -1, 0.5, True):
        yield Bad(f"wrap_text(pad_id={pad!r})", lambda p=pad: qm.wrap_text(BERT, pad_id=p))
    for special in (["[CLS]"], [1.5], [-1]):
        yield Bad(f"wrap_text(special_ids={special!r})", lambda s=special: qm.wrap_text(BERT, pad_id=0, special_ids=s))


def figures() -> Iterator[Bad]:
    scores = [0.1, 0.4, 0.3, 0.9]
    rows = [
        None,
        3.0,
        "high",
        [],
        [1.0],
        ["a", "b"],
        [[1.0], [1.0, 2.0]],
        [float("nan")] * 4,
        [float("inf"), 1.0, 2.0, 3.0],
    ]
    for given in rows:
        yield Bad(f"summarise({given!r})", lambda g=given: qm.summarise(g))
        yield Bad(f"compare({given!r}, ...)", lambda g=given: qm.compare(g, scores))
    draws = {
        "confidence": [0, 1, 95, "0.95", float("nan")], "n_resamples": [0, -1, 1.5, "many"], "seed": [-1, 0.5, "a"]
    }  # fmt: skip
    yield from options("summarise", lambda **given: qm.summarise(scores, **given), list(draws), draws)
    draws["test"] = ["t", None]
    yield from options("compare", lambda **given: qm.compare(scores, scores[::-1], **given), list(draws), draws)


def mosaics() -> Iterator[Bad]:
    bad: dict[str, list[Any]] = {
        "images": [None, "photo.jpg", X[:0], X[0], X[:2], [1, 2, 3]],
        "labels": [None, 1, Y[:2], ["a", "b", "c"], Y[:, None], np.zeros(3)],
        "n_mosaics": [0, -1, 1.5, "all"],
        "side": [0, 1, 5, "2", 2.0],
        "size": [0, (31, 32), (32,), "large", (0, 32)],
        "seed": [-1, "a", 0.5],
    }
    four = {"images": np.repeat(X, 2, 0)[:4], "labels": np.arange(4)}
    for argument, values in bad.items():
        for value in values:
            given = (four if argument not in four else {"images": X, "labels": Y}) | {argument: value}
            yield Bad(f"mosaics({argument}={said(value)})", lambda g=given: qm.mosaics(**g))


def trials() -> Iterator[Bad]:
    good: dict[str, Any] = {"metric": qm.Compactness(), "explain": EXPLAIN, "model": VIT, "x_batch": X, "y_batch": Y}
    bad: dict[str, list[Any]] = {
        "metric": [None, "Fidelity", qm.Fidelity],
        "explain": [None, "LayerCDAM", 3],
        "model": [None, "vit", in_training(VIT)],
        "x_batch": [None, X[:1], X[:0], "photo.jpg"],
        "y_batch": [None, Y[:2], Y + 9],
        "confidence": [0, 1.5, "a"],
    }  # fmt: skip
    for argument, values in {**bad, "noise": [0, -1.0, "much", float("nan")]}.items():
        for value in values:
            given = {**good, argument: value}
            yield Bad(f"self_test({argument}={said(value)})", lambda g=given: qm.self_test(**g))
    sweep = {
        "option": "n_samples",
        "values": [1, 2],
        "display_progressbar": False,
        "explain": qm.explain_func(cv.LayerSmoothCDAM),
    }
    more = {
        "values": [[], "ab", [1, 1], 3, None],
        "batch_size": [0, 1.5, "8"],
        "explain_func_kwargs": [{"n_samples": 2}],
    }
    for argument, values in {**bad, **more}.items():
        for value in values:
            given = {**good, **sweep, argument: value}
            yield Bad(f"sweep_option({argument}={said(value)})", lambda g=given: qm.sweep_option(**g))


METRIC_CALLS = [
    *options_of_metrics(), *calls_of_metrics(), *curves(), *removers(), *doors(), *figures(), *mosaics(), *trials()
]  # fmt: skip
