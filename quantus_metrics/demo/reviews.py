"""Generated reviews, explained for what they say by every method, and marked.

What is right is known here: a review says what it says by the words of its rationale, negators included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from captum_vit import METHODS, demo, viz
from captum_vit.demo.reviews import Read, Reviews, read
from captum_vit.viz.files import check_target, write_figure, write_page, write_whole
from quantus_metrics.demo.marks import FEW, SLOW, Asked, Mark, explained, table

COLUMNS = {"plain": ".3f", "negated": ".3f", "mass": ".3f", "time": ".2f"}
SIDES = ("negative", "positive")
SHOWN = ("PLUS(DecompX)", "VTranM", "GenAtt", "LayerCDAM", "RawAttention")
DRAWN, WRITTEN = 1, 3  # reviews of each kind in the picture, and on the page


@dataclass(frozen=True)
class Task:
    """Reviews of one kind, each explained for its label."""

    reviews: Reviews
    tokens: Read
    asked: Asked


def task(n: int, negated: bool, seed: int) -> Task:
    """Held-out reviews, with opinions as they are or behind a negator."""
    reviews = demo.generated_reviews(n, split="test", seed=2 * seed + negated, negated=negated)
    tokens = read(reviews, demo.demo_bert_tokenizer())
    return Task(reviews, tokens, Asked(tokens.ids, reviews.labels, (tokens.mask,)))


def run(out: Path, n: int = 20, seed: int = 0, overwrite: bool = False) -> list[Mark]:
    """Explain ``n`` reviews of either kind, mark, print the table, draw the picture and write a page of the same name.

    Returns the marks, best first.
    """
    out = check_target(out, {".png", ".pdf", ".svg"}, overwrite)
    page = check_target(out.with_suffix(".html"), {".html"}, overwrite)
    torch.manual_seed(seed)  # RandomAttribution draws from the global generator
    model, tasks = demo.demo_bert(), {"plain": task(n, False, seed), "negated": task(n, True, seed)}
    marks, drawn = [], {}
    with tqdm(total=len(METHODS) * len(tasks) * n, unit="map", desc="explaining") as progress:
        for name, make in METHODS.items():
            progress.set_description(name)
            method = make(model)
            found = {kind: explained(method, model, of.asked, progress) for kind, of in tasks.items()}
            maps = {kind: of_kind for kind, (of_kind, _) in found.items()}
            time = sum(cost for _, cost in found.values()) / len(found)
            marks.append(Mark(name, values(tasks, maps) | {"time": time}))
            drawn[name] = maps
    marks.sort(key=lambda mark: -(mark.values["plain"] + mark.values["negated"]))
    shown = {name: drawn[name] for name in SHOWN}
    figure = words(tasks, shown, DRAWN).figure(width=12.5, beside=True)
    write_whole(out, partial(write_figure, figure, out.suffix[1:]))
    write_whole(page, partial(write_page, words(tasks, shown, WRITTEN).html))
    print(about(tasks), table(marks, COLUMNS), sep="\n\n")
    print(f"\nA plain review and a negated one, explained by a few methods: {out}; more of them: {page}")
    return marks


def values(tasks: Mapping[str, Task], maps: Mapping[str, Tensor]) -> dict[str, float]:
    """How often the most relevant word is of the rationale, by kind, and how much of the positive relevance is."""
    read = {kind: of.tokens.first(len(maps[kind])) for kind, of in tasks.items()}
    points = {kind: tokens.points_at_rationale(maps[kind]).float().mean().item() for kind, tokens in read.items()}
    mass = torch.cat([on_rationale(tokens, maps[kind]) for kind, tokens in read.items()])
    return points | {"mass": mass.mean().item()}


def on_rationale(tokens: Read, relevance: Tensor) -> Tensor:  # shape: (B,)
    """The rationale's share of the positive relevance of words; 0 where there is none."""
    positive = tokens.by_word(relevance).clamp(min=0)
    return (positive * tokens.rationale).sum(1) / positive.sum(1).clamp(min=torch.finfo(positive.dtype).tiny)


def about(tasks: Mapping[str, Task]) -> str:
    """What the columns mean."""
    chance = [(of.tokens.rationale.sum(1) / of.tokens.present.sum(1)).mean().item() for of in tasks.values()]
    n = len(tasks["plain"].asked)
    return (
        f"{n} reviews with plain opinions and {n} with negated ones, explained for their labels.\n"
        "Plain, negated: the most relevant word is of the rationale, the negator included "
        f"(a random word: {chance[0]:.2f} and {chance[1]:.2f};\n"
        "more where numbers are random, since a word has the sum of its pieces).\n"
        "Mass: share of the positive relevance of words that lies on the rationale. "
        "Time: ratio to the plain forward pass;\n"
        f"above {SLOW}, marks are of the first {FEW} reviews of either kind alone."
    )


def words(tasks: Mapping[str, Task], maps: Mapping[str, Mapping[str, Tensor]], n: int) -> viz.TokenText:
    """Short reviews of each kind, one to a line: the rationale, and what methods say.

    Args:
        tasks: reviews by kind.
        maps: by method and kind, (B, T).
        n: how many reviews of each kind.
    """
    tokenizer = demo.demo_bert_tokenizer()
    tokens: list[str] = []
    lines: list[int] = []
    rows: dict[str, list[Tensor]] = {"what decides": [], **{name: [] for name in maps}}
    said: list[str] = []
    for kind, of in tasks.items():
        for i in shortest(of, n):
            said.append(SIDES[int(of.asked.targets[i])])
            inside = of.tokens.word[i] >= 0  # without the tokens that frame a text
            pieces = tokenizer.convert_ids_to_tokens(of.tokens.ids[i, inside].tolist())
            lines += [len(set(lines))] * len(pieces)
            tokens += pieces
            rows["what decides"].append(of.tokens.rationale[i, of.tokens.word[i, inside]].float())
            for name in maps:
                rows[name].append(_scaled(maps[name][kind][i, inside]))
    named = [f"{name}: {', '.join(said)}" if name == "what decides" else name for name in rows]
    return viz.text(
        tokens, torch.stack([torch.cat(parts) for parts in rows.values()]), rows=named, words=True, segments=lines
    )


def shortest(of: Task, n: int) -> list[int]:
    """The shortest reviews among those that every method explains, in their order."""
    lengths = [len(words) for words in of.reviews.words[:FEW]]
    return sorted(sorted(range(len(lengths)), key=lengths.__getitem__)[:n])


def _scaled(relevance: Tensor) -> Tensor:
    """Each review has the colours of its own, whatever the size of its relevance."""
    return relevance / relevance.abs().max().clamp(min=torch.finfo(relevance.dtype).tiny)
