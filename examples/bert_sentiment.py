"""Which words make a BERT call a review negative: several methods, side by side.

    python examples/bert_sentiment.py

The model is the small BERT that ships with the package, and reads what was written for it, so that nothing is
downloaded. Any classifier of transformers takes its place, and its tokenizer is found by itself:

    from transformers import AutoModelForSequenceClassification
    model = AutoModelForSequenceClassification.from_pretrained("distilbert-base-uncased-finetuned-sst-2-english")
"""

from __future__ import annotations

import torch

import captum_vit as cv
from captum_vit import viz
from captum_vit.demo import demo_bert

REVIEW = (
    "We came by train and sat in row seven. The plot was charmless. "
    "Anna never recommended the music. It was filmed in Oslo, and hardly a triumph, that is what the ending was."
)
METHODS = ("PLUS(DecompX)", "VTranM", "GenAtt", "LayerIntegratedCDAM", "LayerCDAM", "RawAttention")


def main() -> None:
    model = demo_bert()

    # One relevance for each word piece. `.text(words=True)` shows whole words, with the sum of their pieces.
    found = {name: cv.explain(model, REVIEW, method=name, words=True, special=False) for name in METHODS}
    for name, explanation in found.items():
        shown = explanation.text()
        best = shown.scores[0].topk(4).indices.tolist()
        print(f"{name:20} {explanation.labels[0]}: {', '.join(shown.words[i] for i in best)}")

    # All methods in one picture, and as a page that needs no other file.
    first = found[METHODS[0]]
    maps = torch.stack([explanation.map / explanation.map.abs().max() for explanation in found.values()])
    text = viz.text(first.tokens, maps, rows=METHODS, words=True, special=False)
    text.figure(width=7).savefig("bert_sentiment.png", bbox_inches="tight")
    with open("bert_sentiment.html", "w", encoding="utf-8") as page:
        page.write(text.html)
    print("written: bert_sentiment.png, bert_sentiment.html")


if __name__ == "__main__":
    main()
