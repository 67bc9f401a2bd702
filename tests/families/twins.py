"""What methods must give, found without this package: by the names that families give to their projections.

A name may stand here, in tests: it says by another way what the package finds by running a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.families.own import noting
from tests.models import Case

QUERIES = re.compile(
    r"q|query|q_proj|q_lin|Wq|q_a_proj|q_attn|query_proj|linear_q|wq|q_down_proj|in_proj|to_qkv|attn_q|"
    r"qkv|Wqkv|qkv_proj|c_attn|query_key_value|wqkv|q_embed|in_proj_linear|qkv_linear"
)

WHOLE = ("MultiheadAttention", "WavLMAttention", "JetMoeAttention")  # classes whose own input is what they read


@dataclass
class Run:
    """One pass with a graph: scores, what the attentions read in the order of their calls, and who read it."""

    scores: Tensor
    reads: list[Tensor]
    readers: list[nn.Module]
    probs: list[Tensor]
    last: Tensor | None  # what the last block gives, where the model returns that


def run(model: nn.Module, inputs: Tensor, args: tuple[Any, ...], **options: Any) -> Run:
    """A pass, watched by hooks at the projections of queries, or at the whole attention."""
    reads: list[tuple[Tensor, nn.Module]] = []
    with torch.enable_grad(), noting() as noted, watched(model, reads):
        output = model(inputs, *args, **options)
        notes = list(noted)
    attended = [note for note in notes if note.probs is not None]
    if attended:
        reads = [(note.tokens, model) for note in attended]
    probs = [note.probs for note in attended] or list(getattr(output, "attentions", None) or ())
    hidden = [note.tokens for note in notes if note.probs is None] or list(getattr(output, "hidden_states", None) or ())
    same = [(t, m) for t, m in reads if t.shape == reads[0][0].shape]  # not those of a head that pools
    scores = output if isinstance(output, Tensor) else output.logits
    return Run(scores, [t for t, _ in same], [m for _, m in same], probs, hidden[-1] if hidden else None)


@contextmanager
def watched(model: nn.Module, reads: list[tuple[Tensor, nn.Module]]) -> Iterator[None]:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        reads.append((args[0] if args else next(iter(kwargs.values())), module))

    handles = [m.register_forward_pre_hook(hook, with_kwargs=True) for m in readers(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def readers(model: nn.Module) -> Iterator[nn.Module]:
    """Modules whose first input queries are made of."""
    whole = ""
    for name, module in model.named_modules():
        if whole and name.startswith(whole):
            continue
        leaf = name.rpartition(".")[2]
        if type(module).__name__ in WHOLE or (leaf == "attn" and hasattr(module, "qkv")):  # timm's may call F.linear
            whole = f"{name}."
            yield module
        elif (
            QUERIES.fullmatch(leaf) and (hasattr(module, "weight") or hasattr(module, "linear")) and "mamba" not in name
        ):
            yield module


def picked(scores: Tensor, target: list[Any]) -> Tensor:  # shape: (B,)
    """One score of each sample."""
    return torch.stack([row[one] for row, one in zip(scores, target, strict=True)])


def cdam(of: Run, target: list[Any]) -> Tensor:  # shape: (B, N)
    """Tokens times gradient, summed over channels, where the last attention reads."""
    (g,) = torch.autograd.grad(picked(of.scores, target).sum(), of.reads[-1], retain_graph=True)
    return (of.reads[-1] * g).sum(-1).detach()


def reads_stream(of: Run) -> bool:
    """Whether the last attention reads a sum, the stream itself, and no norm of it."""
    return type(of.reads[-1].grad_fn).__name__.startswith("Add")


def cdam_of_branch(case: Case, of: Run) -> Tensor | None:  # shape: (B, N)
    """The same through the attention alone, where it reads the stream itself, which goes on beside it.

    None where the tokens do not enter the attention, the module around the projection.
    """
    model = case.forward_func
    name = next(name for name, module in model.named_modules() if module is of.readers[-1])
    leaf = of.reads[-1].detach().requires_grad_()
    entered = []

    def replace(module: nn.Module, args: Any, kwargs: Any) -> Any:
        entered.extend(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and same(x, leaf))
        given = tuple(leaf if isinstance(x, Tensor) and same(x, leaf) else x for x in args)
        return given, {k: leaf if isinstance(x, Tensor) and same(x, leaf) else x for k, x in kwargs.items()}

    path, _, last = name.rpartition(".")
    around = model.get_submodule(path if QUERIES.fullmatch(last) else name)
    handle = around.register_forward_pre_hook(replace, with_kwargs=True)
    try:
        scores = run(model, case.inputs, case.additional_forward_args).scores
    finally:
        handle.remove()
    if not entered:
        return None
    (g,) = torch.autograd.grad(picked(scores, case.target).sum(), leaf)
    return (leaf * g).sum(-1).detach()


def same(x: Tensor, other: Tensor) -> bool:
    return x.shape == other.shape and torch.equal(x, other)


def rollout(of: Run, rows: Tensor) -> Tensor:  # (B, N) weights of the rows that the head reads -> (B, N)
    """Abnar and Zuidema: the product over blocks of half the mean attention and half the identity."""
    joint = torch.eye(of.probs[0].shape[-1]).expand(len(rows), -1, -1)
    for probs in of.probs:
        joint = (0.5 * probs.detach().mean(1) + 0.5 * torch.eye(probs.shape[-1])) @ joint
    return (rows.unsqueeze(1) @ joint).squeeze(1)
