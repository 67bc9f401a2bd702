"""Looking at a model, and trying identities and every method on it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.attr import METHODS
from captum_vit.attr.base import forward_args
from captum_vit.doctor.blunt import blunt
from captum_vit.doctor.identities import identities
from captum_vit.doctor.report import DEFECT, Report, reason_of
from captum_vit.doctor.staged import complete, stages
from captum_vit.doctor.subject import Subject
from captum_vit.doctor.sums import stream_kinds
from captum_vit.errors import CaptumVitError, PartialMapWarning, ZeroMapWarning
from captum_vit.models.example import example
from captum_vit.models.modules import module_of, unwrapped
from captum_vit.models.output import scores_of
from captum_vit.models.per_sample import of_samples
from captum_vit.models.transformer import Transformer
from captum_vit.tokens import TokenLayout
from captum_vit.trace.modes.by_rows import attention_memory
from captum_vit.trace.record.record import Record, Want, record
from captum_vit.trace.run.describe import stream_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import checked_inputs, undisturbed

WRITTEN_OUT = "written out by the model, and held whole by methods that read it, in"


def doctor(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...] | None = None, additional_forward_args: Any = None
) -> Report:
    """Look at a model, try on it what the methods rest on, and try every method.

    Identities, such as that relevance and biases sum to the score, are judged by what rounding changes in the
    model's precision; see docs/identities.md. Whatever goes wrong is in the report, not raised.

    Costs 6 forward passes to look, about 20 for identities (of one sample, two or nine; two with a backward pass),
    and those of every method in ``METHODS``.

    Args:
        model: as it was loaded, or a target module around it; it is left as it was found.
        inputs: a batch, of which the first sample is used; None makes an image of noise of the model's own
            size, or a short row of token ids.
        additional_forward_args: further positional arguments of the model, as in Captum.

    Returns:
        A :class:`Report`; ``print`` it. Methods explain the output that is largest for that sample.
    """
    report = Report(type(model).__name__)
    try:
        module_of(model)
        given = example(model) if inputs is None else inputs
        sample = tuple(x[:1] for x in checked_inputs(given, model))
        batch = len(given if isinstance(given, Tensor) else given[0])
        args = of_samples(forward_args(additional_forward_args), batch, slice(1))
        with undisturbed(model):
            transformer = stream_of(model, sample, args)
    except CaptumVitError as error:
        return _refused(report, reason_of(error))
    _describe(report, model, transformer)

    with torch.random.fork_rng({p.device for p in model.parameters() if p.is_cuda}):
        bare = unwrapped(model)
        scores = _scores(bare, sample, args)
        if scores is not None and not torch.isfinite(scores).all():
            return _refused(report, "The model's own output is NaN or infinite.")
        attended = _examine(report, bare, transformer, sample, args)
        target = None if scores is None else _largest(scores)
        if transformer.refusal is not None:
            report.problems.append(f"No attention that can be followed: {transformer.refusal.got}")
            report.stages, report.complete = stages(transformer), complete(bare, transformer, sample, args)
        elif scores is not None and report.layout is not None:
            report.identities = identities(Subject(bare, transformer, sample, args, scores, target, attended))
        tried = {name: _trial(name, model, sample, args, target) for name in METHODS}
        report.methods = {name: reason for name, (reason, _) in tried.items()}
        maps = {name: found for name, (_, found) in tried.items() if found is not None}
        followed = maps if transformer.refusal is None else {}
        report.blunt = _blunt(bare, transformer, sample, args, target, followed) if followed else {}
    return report


def _describe(report: Report, model: nn.Module, transformer: Transformer) -> None:
    """What is known without running the model."""
    blocks = transformer.blocks
    report.family, report.depth = transformer.family, len(blocks)
    report.tower = f"{transformer.name or 'the model itself'} ({type(transformer.tower).__name__})"
    modules = dict.fromkeys(type(block).__name__ for block in transformer.modules())
    report.blocks = ", ".join(modules) or "addition to the stream"
    tensors = list(model.named_parameters())
    kinds = dict.fromkeys(str(p.dtype).removeprefix("torch.") for _, p in tensors)
    devices = dict.fromkeys(str(p.device) for _, p in tensors)
    report.weights = f"{', '.join(kinds)} on {', '.join(devices)}"
    if len(devices) > 1:
        report.problems.append("The weights lie on several devices; explain the model on one.")
    spoilt = [name for name, p in tensors if p.is_floating_point() and not torch.isfinite(p).all()]
    if spoilt:
        report.problems.append(f"NaN or infinite weights in {', '.join(spoilt[:3])}.")


def _examine(
    report: Report, model: nn.Module, transformer: Transformer, sample: tuple[Tensor, ...], args: tuple[Any, ...]
) -> Record | None:
    """What a pass shows, one with attention written out, which is returned, and one with the pooling."""

    def look(want: Want) -> Record | None:
        try:
            with undisturbed(model):
                return record(Pass(model, sample, args, transformer), None, want)
        except Exception as error:
            reason = reason_of(error)
            if reason not in report.problems:
                report.problems.append(reason)
            return None

    found, attended = look(Want(seen=["tokens"])), None
    if found is not None:
        report.layout, report.width = found.layout, found.seen["tokens"][0].shape[-1]
    if found is not None and transformer.refusal is None:
        attended = look(Want(seen=stream_kinds(transformer)))
        if attended is not None:
            A = attended.seen["probs"][0]
            report.heads = A.shape[1]
            with attention_memory(A.numel() * 2**-15):  # 32 bytes a number: too little to keep A, enough to form it
                by_rows = look(Want(seen=["probs"], by_rows=True))
            whole = [] if by_rows is None else [layer for layer in by_rows.layers if layer not in by_rows.by_rows]
            report.attention = f"{WRITTEN_OUT} {len(whole)} of {len(transformer.blocks)} blocks" if whole else None
        pooled = look(Want(row="outputs"))
        report.pooling = None if pooled is None else _pooling(pooled.row[0, 0], found.layout)
    return attended


def _scores(model: nn.Module, sample: tuple[Tensor, ...], args: tuple[Any, ...]) -> Tensor | None:  # shape: (K,)
    """The model's output; None where it fails, which is then the reason of every method."""
    try:
        with undisturbed(model):
            return scores_of(model(*sample, *args))[0]
    except Exception:
        return None


def _largest(scores: Tensor) -> Any:
    """The largest output as a target: an int, a tuple for outputs of more dimensions, None for a single number."""
    index = tuple(int(i) for i in torch.unravel_index(scores.argmax(), scores.shape))
    return index[0] if len(index) == 1 else index or None


def _blunt(
    model: nn.Module,
    transformer: Transformer,
    sample: tuple[Tensor, ...],
    args: tuple[Any, ...],
    target: Any,
    maps: dict[str, Tensor],
) -> dict[str, str]:
    """Methods whose map is nearly the head's own row; none where that row is not found, as some method reports."""
    try:
        with undisturbed(model):
            found = record(Pass(model, sample, args, transformer), target, Want(row="evidence"))
            return blunt(found, maps)
    except CaptumVitError:
        return {}


def _trial(
    name: str, model: nn.Module, sample: tuple[Tensor, ...], args: tuple[Any, ...], target: Any
) -> tuple[str | None, Tensor | None]:
    """Why a method refuses the model, or None; and its map, if it has one."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            (found,) = METHODS[name](model).attribute(sample, target=target, additional_forward_args=args or None)
        except Exception as error:
            return reason_of(error), None
    if not torch.isfinite(found).all():
        return f"{DEFECT} NaN or infinite relevances of a finite output", None
    warned = (PartialMapWarning, ZeroMapWarning)
    return next((str(w.message) for w in heard if issubclass(w.category, warned)), None), found


def _refused(report: Report, reason: str) -> Report:
    report.problems.append(reason)
    report.methods = dict.fromkeys(METHODS, reason)
    return report


def _pooling(pool: Tensor, layout: TokenLayout) -> str:
    """Row weights (N,) in words."""
    read = pool.nonzero().flatten().tolist()
    if not read:
        return "no token: a head that is all zeros, or one that does not depend on them"
    patches = [i for i in range(layout.n_tokens) if i not in layout.special]
    names = {0: "CLS"} if layout.prefix or layout.grid is None else {}
    if layout.grid is None:
        names[layout.n_tokens - 1] = "the last token"
    if len(read) <= 2:
        shares = [f" ({float(pool[i]):.0%})" if len(read) == 2 else "" for i in read]
        return " and ".join(names.get(i, f"token {i}") + share for i, share in zip(read, shares, strict=True))
    even = bool(torch.allclose(pool[read], pool[read[0]], rtol=1e-2))
    if even:
        kind = "the patches" if layout.grid is not None else "the tokens"
        return f"mean of {kind if read == patches else f'{len(read)} tokens'}"
    if 0 in names and torch.allclose(pool[patches], pool[patches[-1]], rtol=1e-2):
        return f"CLS ({float(pool[0]):.0%}) and the mean of the patches"
    return f"{len(read)} tokens, unequally"
