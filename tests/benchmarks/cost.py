"""What an explanation costs: time as a ratio to one plain forward pass of the same batch, and memory.

    python -m tests.benchmarks.cost [--model vit_small_patch16_224] [--size 224] [--depth 12] [--batch 4]
        [--only NAME ...] [--seconds 4] [--device cuda] [--dtype bfloat16]

For every row pairs of (plain forward, method), the median of their ratios. On a CPU one torch thread and process time,
since wall time on shared cores measures the neighbours; on a GPU the time between synchronisations. *MiB*: by how much
the memory of tensors grows during a call, at most. A *floor* is the bare work that a method of its kind cannot do
without; "general" is the route that every model can take, chosen here by asking autograd for what it does anyway.
``tests.benchmarks.speed`` prints the tables of the documentation, with the methods of others beside these.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import re
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import captum_vit as cv
from captum_vit.sites.site import running
from quantus_metrics.benchmark.memory import peak_bytes

AIMS = {
    "PredictionMap": 1.03,
    "PredictionMap.all_classes": 1.03,
    "PredicAtt": 1.08,
    "LayerCDAM": 1.0,
    "LayerCDAM.all_classes": 1.3,
    "LayerIntegratedCDAM": 1.05,
    "LayerSmoothCDAM": 1.35,
    "SkipPLUS(DecompX)": 1.7,
    "PLUS(DecompX)": 2.2,
    "CAT": 2.25,
    "FullGradPlus": 2.3,
    "FullGradPlus, frozen": 2.3,
    "GenAtt": 2.3,
    "GradSAM": 2.3,
    "VTranM": 2.45,
}
GENERAL = {"grad_kwargs": {"allow_unused": True}}
TARGET, STEPS = 3, 50
MOST_PAIRS = 15

Explain = Callable[[Tensor], object]


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long it takes: this process's CPU time, or the GPU's time from idle to idle."""
    if device.type != "cuda":
        return process_time(work)
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def process_time(work: Callable[[], object]) -> float:
    """Seconds of this process's CPU time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio(
    model: nn.Module, explain: Explain, x: Tensor, repeats: int = MOST_PAIRS, budget: float = 1e9, least: int = 1
) -> float:
    """Median over pairs of the method's time by the plain forward's: so many pairs, or as many as a budget allows."""

    def plain() -> None:
        with torch.inference_mode():
            model(x)

    explain(x[:1] if x.device.type == "cpu" else x)  # what is made once; on a GPU memory for the whole batch
    plain()
    start, found = time.perf_counter(), []
    while len(found) < min(least, repeats) or (len(found) < repeats and time.perf_counter() - start < budget):
        base = seconds(plain, x.device)
        found.append(seconds(lambda: explain(x), x.device) / base)
    return statistics.median(found)


def milliseconds(explain: Explain, x: Tensor, repeats: int) -> float:
    """Median of the time of a call."""
    explain(x)  # what is made once
    return 1e3 * statistics.median(seconds(lambda: explain(x), x.device) for _ in range(repeats))


def mebibytes(explain: Explain, x: Tensor) -> float:
    """By how much the memory of tensors grows while a batch is explained."""
    explain(x[:1])
    return peak_bytes(lambda: explain(x), x.device) / 2**20


def candidates(model: nn.Module) -> dict[str, Explain]:
    """Rows by name, each a function of the batch."""
    floors: dict[str, Explain] = {name: partial(work, model) for name, work in FLOORS.items()}
    return {"plain forward": torch.inference_mode()(lambda x: model(x)), **ours(model), **floors}


def ours(model: nn.Module) -> dict[str, Explain]:
    """Every method by name, and further forms of some."""

    def attribute(method: Any, **options: Any) -> Explain:
        return lambda x: method.attribute(x, target=TARGET, **options)

    made = {name: make(model) for name, make in cv.METHODS.items()}
    return {name: attribute(method) for name, method in made.items()} | {
        "PredictionMap.all_classes": made["PredictionMap"].all_classes,
        "FullGradPlus, frozen": attribute(cv.FullGradPlus(model, rule="frozen")),
        "LayerCDAM.all_classes": made["LayerCDAM"].all_classes,
        "LayerCDAM.value_and_key_terms": lambda x: made["LayerCDAM"].value_and_key_terms(x, TARGET),
        "LayerCDAM, general": attribute(made["LayerCDAM"], **GENERAL),
        "LayerIntegratedCDAM, general": attribute(made["LayerIntegratedCDAM"], **GENERAL),
        "LayerSmoothCDAM, general": attribute(made["LayerSmoothCDAM"], **GENERAL),
    }


def all_but_the_last_block(model: nn.Module, x: Tensor) -> None:
    with torch.inference_mode(), running(lambda tokens: tokens, [model.blocks[-1]]):
        model(x)


def watched(model: nn.Module, x: Tensor) -> None:
    cv.RandomAttribution(model).attribute(x)


class Rows(TorchFunctionMode):
    """The CLS row of every fused attention, computed beside it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            q, k = args[:2]
            (q[:, :, :1] @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        return func(*args, **kwargs or {})


class Held(TorchFunctionMode):
    """Attention, deviations and slopes are constants, where a gradient passes: attention then is written out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, x = kwargs or {}, args[0] if args else None
        if func is F.scaled_dot_product_attention and args[2].requires_grad:
            q, k = (x.detach() for x in args[:2])
            return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ args[2]
        if func is F.gelu and x.requires_grad:
            return x * (F.gelu(x.detach(), **kwargs) / x.detach())
        if func is F.layer_norm and x.requires_grad:
            scale = (x.detach().var(-1, keepdim=True, unbiased=False) + kwargs["eps"]).rsqrt()
            return (x - x.mean(-1, keepdim=True)) * scale * kwargs["weight"].detach() + kwargs["bias"].detach()
        return func(*args, **kwargs)


def watched_with_rows(model: nn.Module, x: Tensor) -> None:
    with Rows():
        watched(model, x)


def last_block_of_one_image(model: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        model.blocks[-1](tokens_like(model, x[:1]))


def points_of_cls(model: nn.Module, x: Tensor) -> None:
    """The CLS rows of every step through what follows the attention, and back, and their rows of attention."""
    tokens, block = tokens_like(model, x), model.blocks[-1]
    rows = tokens[:, :1].repeat(STEPS, 1, 1).requires_grad_()
    with torch.enable_grad():
        score = model.forward_head(model.norm(rows + block.mlp(block.norm2(rows))))[:, TARGET].sum()
    torch.autograd.grad(score, rows)
    attention = tokens.new_ones(len(x), STEPS * block.attn.num_heads, tokens.shape[1])
    for _ in range(2):
        (attention @ tokens) @ tokens.mT


def probes_of_cls(model: nn.Module, x: Tensor) -> None:
    """A gradient of every feature back through what follows the attention, to the tokens, and on to every class."""
    tokens, block = tokens_like(model, x), model.blocks[-1]
    row, width = tokens[:, :1].clone().requires_grad_(), tokens.shape[-1]
    with torch.enable_grad():
        features = (row + block.mlp(block.norm2(row)))[:, 0].sum(0)
    torch.autograd.grad(features, row, torch.eye(width).to(row), is_grads_batched=True)
    probes = tokens.new_ones(len(x), width * block.attn.num_heads, width)
    by_token = (probes @ tokens.mT).unflatten(1, (width, -1)).sum(2)  # shape: (B, D, N)
    by_token.mT @ model.head.weight.T


def noise_and_its_products(model: nn.Module, x: Tensor) -> None:
    """What makes a row of attention from noisy tokens, and its gradient: two products each with all of them."""
    heads = model.blocks[-1].attn.num_heads
    for _ in range(STEPS):
        drawn = torch.randn_like(tokens_like(model, x))  # shape: (B, N, D)
        for rows in drawn.new_ones(2, len(x), heads, drawn.shape[-1]):
            (rows @ drawn.mT) @ drawn


def tokens_like(model: nn.Module, x: Tensor) -> Tensor:
    return x.new_ones(len(x), model.patch_embed.num_patches + 1, model.embed_dim)


def gradient_held(model: nn.Module, x: Tensor, start: int = 0) -> None:
    with Held():
        gradient(model, x, start)


def gradient_held_to_the_middle(model: nn.Module, x: Tensor) -> None:
    gradient_held(model, x, len(model.blocks) // 2)


def gradient_and_biases(model: nn.Module, x: Tensor) -> None:
    """Every bias times the gradient at each token, where layers add it."""
    products: list[Tensor] = []

    def multiply(layer: nn.Module, args: tuple[Tensor], y: Tensor) -> None:
        if y.requires_grad:
            y.register_hook(lambda grad: products.append(grad @ layer.bias))

    layers = [layer for layer in model.blocks.modules() if isinstance(layer, nn.Linear | nn.LayerNorm)]
    handles = [layer.register_forward_hook(multiply) for layer in layers]
    gradient(model, x)
    for handle in handles:
        handle.remove()


def row_carried(model: nn.Module, x: Tensor) -> None:
    """A row through the positive part of attention by its gradient, in every head of every block."""
    gradient_written_out(model, x)
    n_tokens = tokens_like(model, x).shape[1]
    row = x.new_ones(len(x), 1, 1, n_tokens)
    for block in model.blocks:
        attention = x.new_ones(len(x), block.attn.num_heads, n_tokens, n_tokens)
        row @ (attention * attention).clamp_(min=0)


def heads_measured(model: nn.Module, x: Tensor) -> None:
    """Of each head's vectors their lengths in the stream, by Gram matrices, and their products with the stream."""
    row_carried(model, x)
    tokens = tokens_like(model, x)
    for block in model.blocks:
        W = block.attn.proj.weight.detach().T.unflatten(0, (block.attn.num_heads, -1))  # shape: (H, d, D)
        values = tokens.unflatten(-1, W.shape[:2]).transpose(1, 2)
        ((values @ (W @ W.mT)) * values).sum(-1).sqrt()
        (tokens @ W.flatten(0, 1).T * tokens).sum(-1)


def gradient_written_out(model: nn.Module, x: Tensor) -> None:
    fused = [block.attn.fused_attn for block in model.blocks]
    for block in model.blocks:
        block.attn.fused_attn = False
    gradient(model, x)
    for block, flag in zip(model.blocks, fused, strict=True):
        block.attn.fused_attn = flag


def gradient(model: nn.Module, x: Tensor, start: int = 0) -> Tensor:
    """The target's gradient at the tokens that enter a block, the blocks before it without a graph."""
    leaves: list[Tensor] = []

    def leaf(block: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        torch.set_grad_enabled(True)
        leaves.append(args[0].detach().requires_grad_())
        return (leaves[0],)

    handle = model.blocks[start].register_forward_pre_hook(leaf)
    with torch.no_grad():
        output = model(x)
        (found,) = torch.autograd.grad(output[:, TARGET].sum(), leaves)
    handle.remove()
    return found


FLOORS: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "floor of all: a pass under watch (RandomAttribution)": watched,
    "floor of PredicAtt: the same, and a row of every attention": watched_with_rows,
    "floor of CDAM: all blocks but the last": all_but_the_last_block,
    "floor of CDAM, on top: the last block for one image": last_block_of_one_image,
    "floor of CDAM of all classes, on top: a gradient of every feature": probes_of_cls,
    f"floor of Integrated, on top: {STEPS} CLS rows to the output and back": points_of_cls,
    f"floor of Smooth, on top: {STEPS} draws and four products with each": noise_and_its_products,
    "floor of SkipPLUS(DecompX): backward to the middle, factors held": gradient_held_to_the_middle,
    "floor of PLUS(DecompX): backward to the start, factors held": gradient_held,
    "floor of CAT: backward to the start": gradient,
    "floor of FullGradPlus: the same, and biases times gradients": gradient_and_biases,
    "floor of GradSAM: backward to the start, attention written out": gradient_written_out,
    "floor of GenAtt: the same, and a row through every map": row_carried,
    "floor of VTranM: the same, and lengths and angles of every head": heads_measured,
}
"""The bare work that rows cannot do without, by torch and the model alone."""


def settled(device: str, dtype: str = "float32") -> str:
    """Conditions under which figures can be compared, and what they are, in words."""
    torch.manual_seed(0)
    warnings.simplefilter("ignore", UserWarning)  # Captum says each time that it sets requires_grad
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, {dtype}, torch {torch.__version__}"
    torch.set_num_threads(1)
    keep_freed_memory()
    return f"{processor()}, one thread, {dtype}, torch {torch.__version__}"


def processor() -> str:
    """What the CPU calls itself."""
    listed = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.*)", listed.read_text()) if listed.exists() else None
    return found[1] if found else platform.processor()


def keep_freed_memory() -> None:
    """Let the C library keep what is freed: to give it back and take it again costs at random as much as arithmetic."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:  # glibc's
        set_option(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        set_option(-3, 2**30)  # M_MMAP_THRESHOLD


def built(name: str, size: int, depth: int, device: str = "cpu", dtype: str = "float32") -> nn.Module:
    """A timm model with random weights."""
    model: nn.Module = timm.create_model(name, img_size=size, depth=depth, num_classes=1000, global_pool="token")
    return model.eval().to(device, getattr(torch, dtype))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224", help="a timm ViT with CLS pooling")
    parser.add_argument("--size", type=int, default=224, help="height and width of an image")
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--only", nargs="*", help="names of rows; those with an aim by default")
    parser.add_argument("--seconds", type=float, default=4, help="for each row, once one pair is measured")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    options = parser.parse_args()

    where = settled(options.device, options.dtype)
    model = built(options.model, options.size, options.depth, options.device, options.dtype)
    x = torch.randn(options.batch, 3, options.size, options.size).to(options.device, getattr(torch, options.dtype))
    print(f"{options.model}, {options.size} pixels, {options.depth} blocks, batch {options.batch}; {where}")
    print("| method | aim | ratio | MiB |\n|---|--:|--:|--:|")
    for name, explain in candidates(model).items():
        if name in (options.only or AIMS):
            found = ratio(model, explain, x, budget=options.seconds)
            print(f"| {name} | {AIMS.get(name, '')} | {found:.2f} | {mebibytes(explain, x):.0f} |", flush=True)


if __name__ == "__main__":
    main()
