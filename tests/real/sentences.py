"""Two clauses and two paraphrases: does the map for a paraphrase lie on the clause that it repeats?

    python -m tests.real.sentences FOLDER [--only GenAtt DecompX] [--picture clauses.png]

FOLDER is a sentence encoder with mean pooling and its tokenizer. A text is two clauses that have nothing in common;
a target is the cosine similarity with a paraphrase of one of them. Forty texts, both paraphrases of each: 80 maps.

pointing     the share of maps whose largest relevance, among the words of both clauses, is on the right one
AUC          how often a word of the right clause has more relevance than a word of the other one
LIF - MIF    area between the curves when least and most important words are hidden first (16 texts, both targets)
correlation  between the maps of a text's two targets, over the words of both clauses
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

import captum_vit as cv
from captum_vit import viz
from quantus_metrics.perturb import MaskKeys
from tests.real.marks import Pairs, arguments, origin, parser

CLAUSES = {
    "a kitten was sleeping on the sofa": "The cat naps on the couch.",
    "the stock market fell sharply": "Share prices dropped a lot.",
    "the surgeon removed a tumour from the patient": "A doctor operated on a sick person.",
    "heavy rain flooded several villages": "A storm put small towns under water.",
    "the team scored three goals in the final": "They won the football match.",
    "my grandmother baked an apple pie": "Grandma made a fruit dessert.",
    "the rocket was launched into orbit": "A spacecraft went up to space.",
    "an old violin was sold at auction": "Someone bought an antique string instrument.",
    "the engine of the car broke down": "The vehicle stopped working.",
    "the parliament passed a new tax law": "Lawmakers approved legislation on taxes.",
    "the teacher explained fractions to the children": "Pupils learned mathematics at school.",
    "a shark was seen near the beach": "A dangerous fish swam by the shore.",
    "the farmer planted wheat in the field": "Crops were sown on agricultural land.",
    "hackers stole passwords from the company": "Cyber criminals breached a firm.",
    "the bride wore a white silk dress": "A woman got married in a gown.",
    "the volcano erupted during the night": "Lava burst out of the mountain.",
}
SHOWN = ("GenAtt", "VTranM", "TransAttr", "LayerCDAM", "DecompX")


class Scene(NamedTuple):
    """Two clauses in one sentence, by their numbers."""

    first: int
    second: int

    @property
    def clauses(self) -> tuple[str, str]:
        texts = list(CLAUSES)
        return texts[self.first], texts[self.second]

    @property
    def text(self) -> str:
        first, second = self.clauses
        return f"{first.capitalize()}, and {second}."

    @property
    def spans(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The first and the last character of each clause, the latter not included."""
        first, end = len(self.clauses[0]), len(self.text) - 1
        return (0, first), (end - len(self.clauses[1]), end)


def scenes(n: int = 40, seed: int = 0) -> list[Scene]:
    """Pairs of different clauses."""
    draw = random.Random(seed)
    return [Scene(*draw.sample(range(len(CLAUSES)), 2)) for _ in range(n)]


def within(offsets: Tensor, span: tuple[int, int]) -> Tensor:  # shape: (T, 2) to (T,), bool
    """Which tokens lie in a span of characters; special tokens have none."""
    begin, end = offsets.unbind(-1)
    return (end > begin) & (begin >= span[0]) & (end <= span[1])


def benchmark(model: cv.SentenceSimilarity, tokenizer: Any, asked: list[Scene]) -> Pairs:
    """The texts, their targets, and the words of both clauses."""
    texts = [scene.text for scene in asked]
    encoded = tokenizer(texts, return_offsets_mapping=True, return_tensors="pt", padding=True)
    ids, mask, offsets = (encoded[name] for name in ("input_ids", "attention_mask", "offset_mapping"))
    spans = [[within(row, span) for span in scene.spans] for row, scene in zip(offsets, asked, strict=True)]
    own = torch.stack([torch.stack(both) for both in spans])
    return Pairs(model, ids, (mask,), torch.tensor(asked), own, MaskKeys(), measured=16)


def picture(maps: dict[str, Tensor], scene: Scene, tokens: list[str], path: Path) -> None:
    """One text by every method, for both of its targets."""
    labels = [f"{name}: {list(CLAUSES.values())[k]}" for name in maps for k in scene]
    rows = torch.cat([found[0] for found in maps.values()])
    viz.text(tokens, rows, rows=labels, special=False, words=True).figure(width=12, beside=True).savefig(path, dpi=75)


def main() -> None:
    given = arguments(parser(__doc__, "minilm"), "minilm")
    encoder = AutoModel.from_pretrained(given.model, use_safetensors=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    print(origin(encoder, "minilm"), "\n")
    model = cv.SentenceSimilarity.from_texts(encoder, tokenizer, list(CLAUSES.values()))
    pairs = benchmark(model, tokenizer, scenes())
    maps = pairs.table(given.only)
    if given.picture:
        tokens = tokenizer.convert_ids_to_tokens(pairs.inputs[0].tolist())
        picture({name: maps[name] for name in SHOWN if name in maps}, scenes()[0], tokens, given.picture)


if __name__ == "__main__":
    main()
