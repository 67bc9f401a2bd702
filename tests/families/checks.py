"""What must hold of the maps of any model: each check compares with something found without this package."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.trace.run.score import select
from tests.families import twins
from tests.families.own import Wordy, Zed
from tests.models import Case

CLOSE = 1e-3  # of the largest relevance: single precision, through divisions by small sums
SAME = 1e-5  # of the largest score


class NotApplicable(Exception):
    """A check has nothing to compare with; the reason."""


class Differs(Exception):
    """A check does not hold."""


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else ""


def explained(method: str, case: Case, heard: list[str] | None = None, **options: Any) -> Tensor:
    """The map of a method; the names of its warnings are added to ``heard``."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = cv.METHODS[method](case.forward_func, **options).attribute(
            case.inputs, target=case.target, additional_forward_args=case.additional_forward_args or None
        )
    if heard is not None:
        heard += [warning.category.__name__ for warning in caught]
    return found


def close(found: Tensor, wanted: Tensor, what: str) -> None:
    if found.shape != wanted.shape:
        raise Differs(f"{what}: shape {tuple(found.shape)}, wanted {tuple(wanted.shape)}")
    error = (found - wanted).abs().max() / wanted.abs().max().clamp_min(torch.finfo(wanted.dtype).tiny)
    if not error < CLOSE:
        raise Differs(f"{what}: {error:.1e} of the largest")


def watched(case: Case, **options: Any) -> twins.Run:
    of = twins.run(case.forward_func, case.inputs, case.additional_forward_args, **options)
    if not of.reads:
        raise NotApplicable("no projection of queries by a known name")
    return of


def kept(case: Case, relevance: Tensor) -> Tensor:
    """Zero at padding, as maps are."""
    mask = next((arg for arg in case.additional_forward_args if is_mask(arg, case.inputs)), None)
    return relevance if mask is None or mask.shape != relevance.shape else relevance * mask


def is_mask(arg: Any, inputs: Tensor) -> bool:
    return (
        isinstance(arg, Tensor)
        and arg.shape == inputs.shape
        and not inputs.is_floating_point()
        and bool((arg < 2).all())
    )


def needs_attention(case: Case) -> None:
    """A check of tokens that attention reads has nothing to compare with where no attention can be followed."""
    try:
        cv.spec_of(case.forward_func, case.inputs, case.additional_forward_args or None)
    except cv.UnsupportedModelError:
        raise NotApplicable("its attention cannot be followed") from None


# -- the checks ------------------------------------------------------------------------------------------------


def cdam(case: Case, maps: dict[str, Tensor]) -> None:
    """LayerCDAM is what autograd gives at the tokens that the last attention reads."""
    if "LayerCDAM" not in maps:
        raise NotApplicable("LayerCDAM is refused")
    needs_attention(case)
    of = watched(case)
    if of.reads[-1].shape[-1] != explained("LayerCDAM", case, output="channels").shape[-1]:
        raise NotApplicable("its queries read fewer channels than its stream has")
    found = explained("LayerCDAM", case, output="tokens")
    try:
        close(found, kept(case, twins.cdam(of, case.target)), "all paths")
    except Differs:
        branch = twins.cdam_of_branch(case, of) if twins.reads_stream(of) else None
        if branch is None:
            raise
        close(found, kept(case, branch), "through attention")


def blocks(case: Case, maps: dict[str, Tensor]) -> None:
    """There are as many blocks as the configuration says, so that none is passed over."""
    needs_attention(case)
    n = number_of_blocks(case)
    for layer, there in ((n - 1, True), (n, False)):
        try:
            explained("LayerCDAM", case, layer=layer)
        except cv.LayerError:
            if there:
                raise Differs(f"fewer than {n} blocks") from None
        else:
            if not there:
                raise Differs(f"more than {n} blocks")


def number_of_blocks(case: Case) -> int:
    model = case.forward_func
    if (config := getattr(model, "config", None)) is not None:
        config = (
            getattr(config, "vision_config", config) if case.inputs.is_floating_point() else config.get_text_config()
        )
        if (n := getattr(config, "num_hidden_layers", None)) is not None:
            return n + getattr(config, "num_pooler_layers", 0)
    if isinstance(getattr(model, "blocks", None), nn.Module):  # timm
        return len(model.blocks)
    if n := sum(isinstance(m, nn.TransformerEncoderLayer) for m in model.modules()):
        return n
    if isinstance(model, Zed | Wordy):
        return len(model.qq)
    raise NotApplicable("the number of its blocks is not known")


def rollout(case: Case, maps: dict[str, Tensor]) -> None:
    """AttentionRollout is what the attentions give that the eager model itself returns."""
    if "AttentionRollout" not in maps:
        raise NotApplicable("AttentionRollout is refused")
    of = attended(case)
    last = of.last
    if len(of.probs) != len(of.reads):
        raise NotApplicable("it returns the attentions of some blocks only")
    if last is None:
        raise NotApplicable("its hidden states are not returned")
    mixture = torch.cos(torch.arange(1, of.scores.shape[-1] + 1))
    place = case.target[0][:-1] if isinstance(case.target[0], tuple) else ()
    score = (of.scores[(slice(None), *place)] * mixture).sum()
    (g,) = torch.autograd.grad(score, last, allow_unused=True, retain_graph=True)
    if g is None:
        raise NotApplicable("the head does not read the last hidden state that is returned")
    lengths, products = g.norm(dim=-1), (last * g).sum(-1).abs()
    (own,) = torch.autograd.grad(select(of.scores, case.target).sum(), last)
    lengths = lengths * own.norm(dim=-1).ne(0)  # the rows that the target's output reads
    if lengths.ne(0).sum(1).max() > 1 and (products <= CLOSE * last.norm(dim=-1) * lengths).all():
        raise NotApplicable("the hidden state that is returned is in front of the last norm")
    weights = lengths / lengths.sum(1, keepdim=True)
    if type(case.forward_func).__name__.startswith("Dinov2"):  # CLS beside the mean of the patches, behind a norm
        patches = maps["AttentionRollout"][0].numel()
        to_cls, to_mean = (mixture @ case.forward_func.classifier.weight.detach()).chunk(2)
        weights[:] = 0
        weights[:, 0], weights[:, -patches:] = to_cls.norm(), to_mean.norm() / patches
        weights /= weights.sum(1, keepdim=True)
    close(explained("AttentionRollout", case, output="tokens"), kept(case, twins.rollout(of, weights)), "rollout")


def attended(case: Case) -> twins.Run:
    """A pass of the same model, built with eager attention, that returns its attentions and hidden states."""
    model = case.forward_func
    if (of := watched(case)).probs:  # noted by the model itself
        return of
    if not hasattr(model, "_from_config"):
        raise NotApplicable("its attentions are not returned")
    try:
        eager = type(model)._from_config(deepcopy(model.config), attn_implementation="eager").eval()
        eager.load_state_dict(model.state_dict())
        of = watched(case._replace(forward_func=eager), output_attentions=True, output_hidden_states=True)
    except (ValueError, TypeError, KeyError) as error:
        raise NotApplicable(f"its attentions are not returned: {first_line(error)}") from error
    if not of.probs or any(probs is None or probs.dim() != 4 for probs in of.probs):
        raise NotApplicable("its attentions are not returned")
    return of


def rows(case: Case, maps: dict[str, Tensor]) -> None:
    """The map of a sample does not depend on the others of its batch."""
    if case.inputs.is_floating_point() and not alike(gradient(case)[1:2], gradient(only(case, 1))):
        raise NotApplicable("PyTorch gives another gradient for one sample, behind a batch norm of channels last")
    for method, found in maps.items():
        close(explained(method, only(case, 1))[0], found[1], method)


def gradient(case: Case) -> Tensor:
    """Of the target's scores with respect to the inputs, by PyTorch alone."""
    x = case.inputs.detach().clone().requires_grad_()
    output = case.forward_func(x, *case.additional_forward_args)
    scores = output if isinstance(output, Tensor) else output.logits
    one = scores[(torch.arange(len(x)), *torch.tensor([t if isinstance(t, tuple) else (t,) for t in case.target]).T)]
    return torch.autograd.grad(one.sum(), x)[0].flatten(1)


def only(case: Case, i: int, length: int | None = None) -> Case:
    """One sample; of a text its first tokens."""
    cut = (slice(i, i + 1), slice(length)) if length else (slice(i, i + 1),)
    args = tuple(arg[cut] if isinstance(arg, Tensor) else arg for arg in case.additional_forward_args)
    return case._replace(inputs=case.inputs[cut], additional_forward_args=args, target=case.target[i : i + 1])


def padding(case: Case, maps: dict[str, Tensor]) -> None:
    """A padded text has the map that it has by itself, where the model scores both alike."""
    mask = next((arg for arg in case.additional_forward_args if is_mask(arg, case.inputs)), None)
    if mask is None:
        raise NotApplicable("no mask")
    length = int(mask[1].sum())
    padded, bare = only(case, 1), only(case, 1, length)
    scores = [twins.run(c.forward_func, c.inputs, c.additional_forward_args).scores for c in (padded, bare)]
    if not alike(*scores):
        raise NotApplicable("the model itself scores a padded text otherwise")
    for method, found in maps.items():
        close(found[1, :length], explained(method, bare)[0], method)


def alike(padded: Tensor, bare: Tensor) -> bool:
    """Whether two scores are equal; of scores for each token those of the words that both have."""
    padded = padded[:, : bare.shape[1]] if padded.dim() == 3 else padded
    return padded.shape == bare.shape and bool((padded - bare).abs().max() < SAME * bare.abs().max())


def layout(case: Case, maps: dict[str, Tensor]) -> None:
    """Where one cell of the input is changed, the token moves whose relevance the map shows in this cell."""
    if "LayerCDAM" not in maps:
        raise NotApplicable("LayerCDAM is refused")
    needs_attention(case)
    tokens = explained("LayerCDAM", case, output="tokens")[0]
    shown = maps["LayerCDAM"][0]
    shown = shown[0] if shown.dim() > 1 else shown  # a grid has one channel
    if case.inputs.is_floating_point() and shown.dim() < 2:
        raise NotApplicable("its tokens have no place in the input")
    before = watched(case).reads[0][0]
    for cell, changed in moved_cells(case, tuple(shown.shape)):
        reads = watched(case._replace(inputs=changed)).reads[0][0]
        far, two = (reads - before).abs().amax(-1).topk(2)
        token = int(two[0])
        if far[1] > far[0] / 2:
            continue  # patches overlap, and this cell is as much another's
        if not (tokens[token] - shown[cell]).abs() < CLOSE * tokens.abs().max():
            raise Differs(f"token {token} moves with cell {cell}, and the map shows another there")


def moved_cells(case: Case, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Cells of a map, and the inputs with the pixels of the cell (the word) changed in the first sample."""
    for cell in {tuple(0 for _ in shape), tuple(n // 2 for n in shape), (*(n - 1 for n in shape[:-1]), shape[-1] // 3)}:
        changed = case.inputs.clone()
        if not changed.is_floating_point():
            changed[0][cell] = 3 + (changed[0][cell] + 8) % 80
        else:
            sides = case.inputs.shape[-len(shape) :]
            if any(side % n for side, n in zip(sides, shape, strict=True)):
                raise NotApplicable("cells do not tile the input")
            place = [slice(c * side // n, (c + 1) * side // n) for c, side, n in zip(cell, sides, shape, strict=True)]
            changed[(0, ..., *place)] += torch.randn_like(changed[(0, ..., *place)])
        yield cell, changed


CHECKS = (blocks, cdam, rollout, rows, padding, layout)
