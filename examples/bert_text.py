"""Which words a BERT reads, and how they are shown: words, pairs of texts, single tokens, Captum's own page.

    python examples/bert_text.py

The model is a tiny BERT with random weights and a vocabulary made on the spot, so that nothing is downloaded. With
`AutoModelForSequenceClassification.from_pretrained(...)` in its place, `cv.explain` finds the tokenizer by itself.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, BertTokenizerFast

import captum_vit as cv

WORDS = [
    "anna", "but", "charm", "dull", "film", "good", "in", "is", "it", "not", "paris", "plot", "saw", "the", "was",
]  # fmt: skip
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##ing", "##less", ".", ","]
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}


def tokenizer() -> BertTokenizerFast:
    return BertTokenizerFast(vocab={piece: number for number, piece in enumerate(PIECES)})


def config(*labels: str) -> BertConfig:
    """Weights wide enough that a random model has opinions."""
    names = dict(enumerate(labels))
    return BertConfig(**SIZES, vocab_size=len(PIECES), id2label=names, initializer_range=0.2)


def main() -> None:
    torch.manual_seed(0)
    words = tokenizer()

    # A text: one relevance for each token, special ones included. Shown: whole words, without [CLS] and [SEP].
    critic = BertForSequenceClassification(config("negative", "positive")).eval()
    review = "The plot was dull, but it was not charmless."
    found = cv.explain(critic, review, ["positive", "negative"], tokenizer=words, special=False, words=True)
    print(found)
    print("  tokens:", found.tokens)
    print("  words: ", found.text().words)
    found.save("review.html")
    found.save("review.png")

    # A pair of texts: their token_type_ids go to the model; each begins a line.
    judge = BertForSequenceClassification(config("contradiction", "neutral", "entailment")).eval()
    pair = ("Anna saw the film in Paris.", "Anna was in Paris.")
    found = cv.explain(judge, pair, "entailment", "SkipPLUS(DecompX)", tokenizer=words)
    print(found)
    found.save("pair.html", special=False)

    # A head that scores every token: the target is a position and a label.
    tagger = BertForTokenClassification(config("other", "person", "place")).eval()
    found = cv.explain(tagger, pair[0], (6, "place"), "PredictionMap", tokenizer=words)
    print(found)

    # Captum's records, for its visualize_text in a notebook: words and labels are escaped.
    (record,) = found.text(words=True).records(pred_prob=found.scores[0], pred_class="place", true_class="place")
    strongest = record.word_attributions.abs().argmax()
    print("  strongest:", record.raw_input_ids[strongest])

    # A batch, as in Captum: padding gets exactly zero and changes nothing.
    batch = words([review, "It was good."], return_tensors="pt", padding=True)
    maps = cv.LayerCDAM(critic).attribute(batch["input_ids"], 1, batch["attention_mask"])
    assert not maps[batch["attention_mask"] == 0].any()
    print("batch:", tuple(maps.shape), "files:", sorted(path.name for path in Path().glob("*.*")))


if __name__ == "__main__":
    main()
