"""By how much words, patches and constants miss the score of a vision-language model, and what a map holds and costs.

    python -m tests.benchmarks.vision_language [--only NAME ...]

Families: small models with random weights in float64; the residual is the largest under a rule, of two tokens of an
answer. Memory and time: a LLaVA of eight blocks each, 577 patches and 640 tokens, in float32; time is that of the
processor, by that of a plain forward pass, the median of five.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from statistics import median
from time import process_time
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import captum_vit as cv
from tests.vision_language.models import FAMILIES, IMAGE, made

TIMES = 5


def answered(model: nn.Module, batch: dict[str, Any]) -> tuple[cv.Answer, tuple[Tensor, Tensor]]:
    """A target module, and ids with two tokens of an answer beside their pixels."""
    prompt = batch["input_ids"]
    ids = torch.cat([prompt, torch.tensor([[11, 12]])], 1)
    return cv.Answer(model, prompt.shape[1], inputs=batch), (ids, batch["pixel_values"])


def row(name: str) -> str:
    """A family: places for pictures in the text, tokens found, patches of each, and the residual under two rules."""
    answer, inputs = answered(*made(name))
    found = cv.image_tokens(answer, inputs)
    of_each = torch.bincount(found.reader[found.reader >= 0])
    worst = [
        max(float(cv.DecompX(answer, rule=rule).decompose(inputs, target=t).residual.abs().max()) for t in (0, 1))
        for rule in ("frozen", "libra")
    ]
    places = int((inputs[0] == IMAGE).sum())
    shape = " + ".join(" x ".join(map(str, grid.shape)) for grid in found.pictures.grids)
    cells = [name, tuple(inputs[1].shape), shape, places, int(found.rows.sum()), int(of_each.max())]
    return f"| {' | '.join(map(str, cells))} | {' | '.join(f'{gap:.0e}' for gap in worst)} |"


def middling() -> tuple[nn.Module, dict[str, Any]]:
    """A LLaVA whose blocks weigh more than what is around them."""
    torch.manual_seed(0)
    size = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "num_attention_heads": 4}
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**size, patch_size=14, image_size=336),
        text_config=hf.LlamaConfig(**size, num_key_value_heads=2, vocab_size=1000, pad_token_id=0),
        image_token_id=IMAGE,
    )
    ids = torch.tensor([[1, *[IMAGE] * 576, *range(200, 261)]])
    pixels = torch.randn(1, 3, 336, 336)
    return hf.LlavaForConditionalGeneration(config).eval(), {"input_ids": ids, "pixel_values": pixels}


def held(model: nn.Module, run: Callable[[], object]) -> float:
    """MiB that the graph of a call keeps, without what the model itself holds."""
    own = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in own:
            found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        run()
    return sum(found.values()) / 2**20


def seconds(run: Callable[[], object]) -> float:
    """The processor's time, the median of several calls."""
    taken = []
    for _ in range(TIMES):
        start = process_time()
        run()
        taken.append(process_time() - start)
    return median(taken)


def costs() -> None:
    """What is held for the backward pass, and the time of a map."""
    answer, inputs = answered(*middling())
    with torch.no_grad():
        plain = seconds(lambda: answer(*inputs))
    print("\n| map of one token | held, MiB | time, forward passes |\n|---|--:|--:|")
    for rule in ("frozen", "libra", "grad"):
        for checkpoint in (False, True):
            method = cv.DecompX(answer, rule=rule, checkpoint=checkpoint)
            method.attribute(inputs, target=0)  # finds the towers
            memory = held(answer, lambda method=method: method.attribute(inputs, target=0))
            time = seconds(lambda method=method: method.attribute(inputs, target=0)) / plain
            name = f"`DecompX(rule={rule!r}{', checkpoint=True' * checkpoint})`"
            print(f"| {name} | {memory:.0f} | {time:.1f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="NAME")
    chosen = parser.parse_args().only
    warnings.simplefilter("ignore")
    print("| family | pixels | patches | places | image tokens | patches of each | frozen | libra |")
    print("|---|---|---|--:|--:|--:|--:|--:|")
    for family in chosen or FAMILIES:
        print(row(family), flush=True)
    if chosen is None:
        costs()
