"""Facts and a question, explained for the next word by every method, and marked.

What is right is known here: of the words of the facts, that of the fact that is asked for decides the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from captum_vit import METHODS, demo, viz
from captum_vit.viz.files import check_target, write_figure, write_page, write_whole
from quantus_metrics.demo.marks import FEW, SLOW, Asked, Mark, explained, table
from quantus_metrics.metrics import Deletion, Insertion
from quantus_metrics.token_arrays import wrap_text

COLUMNS = {"facts": ".3f", "decide": ".3f", "deletion": ".1f", "insertion": ".1f", "time": ".2f"}
SHOWN = ("DecompX", "TokenAblation", "IntegratedGradients", "GenAtt", "LayerCDAM", "RawAttention")
DRAWN = 3  # prompts in the picture


@dataclass(frozen=True)
class Task:
    """Prompts, each explained for its answer."""

    facts: demo.Facts
    asked: Asked

    def points(self, maps: Tensor) -> dict[str, float]:  # maps: (B, N), the start token first
        """How often the most relevant word is the right one: of the words of the facts; of all, one of the two."""
        words, fact, kind = maps[:, 1:], self.facts.evidence[: len(maps)], self.facts.asked[: len(maps)]
        top = words.argmax(1)
        return {
            "facts": (words[:, : self.facts.in_facts].argmax(1) == fact).float().mean().item(),
            "decide": ((top == fact) | (top == kind)).float().mean().item(),
        }

    def faded(self, model: nn.Module, maps: Tensor) -> dict[str, float]:
        """What deletion and insertion of the words of the prompt say of the maps."""
        inputs, targets = (x[: len(maps)].numpy() for x in (self.asked.inputs, self.asked.targets))
        metrics = {"deletion": Deletion(score="aopc"), "insertion": Insertion(score="aopc")}
        found = {name: metric(model, inputs, targets, a_batch=maps.numpy()) for name, metric in metrics.items()}
        return {name: float(sum(scores) / len(scores)) for name, scores in found.items()}


def task(n: int, seed: int) -> Task:
    """Prompts of held-out pairs of words."""
    facts, tokenizer = demo.stated_facts(n, seed=seed), demo.demo_lm_tokenizer()
    ids = tokenizer(facts.prompts, return_tensors="pt")["input_ids"]
    return Task(facts, Asked(ids, torch.tensor(tokenizer.convert_tokens_to_ids(facts.answers))))


def run(out: Path, n: int = 20, seed: int = 0, overwrite: bool = False) -> list[Mark]:
    """Explain ``n`` prompts, mark, print the table, draw the picture and write a page of the same name.

    Returns the marks, best first.
    """
    out = check_target(out, {".png", ".pdf", ".svg"}, overwrite)
    page = check_target(out.with_suffix(".html"), {".html"}, overwrite)
    torch.manual_seed(seed)  # RandomAttribution draws from the global generator
    model, asked = demo.NextWord(demo.demo_lm()), task(n, seed)
    faded = wrap_text(model, demo.demo_lm_tokenizer())
    marks, drawn = [], {}
    with tqdm(total=len(METHODS) * n, unit="map", desc="explaining") as progress:
        for name, make in METHODS.items():
            progress.set_description(name)
            maps, time = explained(make(model), model, asked.asked, progress)
            marks.append(Mark(name, asked.points(maps) | asked.faded(faded, maps) | {"time": time}))
            drawn[name] = maps[:DRAWN]
    marks.sort(key=lambda mark: -(mark.values["facts"] + mark.values["decide"]))
    text = words(asked, {name: drawn[name] for name in SHOWN if name in drawn})
    write_whole(out, partial(write_figure, text.figure(width=12.5, beside=True), out.suffix[1:]))
    write_whole(page, partial(write_page, text.html))
    print(about(asked), table(marks, COLUMNS), sep="\n\n")
    print(f"\nThe first prompts, explained by a few methods: {out} and {page}")
    return marks


def about(asked: Task) -> str:
    """What the columns mean."""
    return (
        f"{len(asked.asked)} prompts, explained for the next word.\n"
        "Facts: of the words of the facts, the most relevant is that of the fact that is asked for "
        f"(a random word: {1 / asked.facts.in_facts:.2f}).\n"
        "Decide: of all words but the start token, it is that one, or the kind in the question.\n"
        "Deletion, insertion: of the words of the prompt, 10 to 90 % taken out, percent of the answer's probability.\n"
        f"Time: ratio to the plain forward pass; above {SLOW}, marks are of the first {FEW} prompts alone."
    )


def words(asked: Task, maps: Mapping[str, Tensor]) -> viz.TokenText:
    """The first prompts, one to a line: what decides, and what methods say; the start token is left out."""
    n = min(DRAWN, len(asked.asked))
    rows = range(n)
    decide = torch.zeros(n, asked.asked.inputs.shape[1] - 1)
    decide[rows, asked.facts.evidence[:n]] = decide[rows, asked.facts.asked[:n]] = 1
    said = {f"what decides: {', '.join(asked.facts.answers[:n])}": decide}
    said |= {
        name: relevance[:n, 1:] / relevance[:n, 1:].abs().amax(1, keepdim=True) for name, relevance in maps.items()
    }
    tokens = [word for words in asked.facts.words[:n] for word in words]
    lines = [row for row in rows for _ in asked.facts.words[row]]
    relevance = torch.stack([each.flatten() for each in said.values()])
    return viz.text(tokens, relevance, rows=list(said), words=True, segments=lines)
