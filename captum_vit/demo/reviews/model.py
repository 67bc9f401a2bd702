"""The demo classifier of reviews: a small BERT, and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captum_vit.demo.weights import load_weights
from captum_vit.extras import extra

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification, BertTokenizer

FOLDER = Path(__file__).parent / "weights"
WEIGHTS = FOLDER / "model.safetensors"


def demo_bert(pretrained: bool = True) -> BertForSequenceClassification:
    """A transformers ``BertForSequenceClassification`` for reviews: ``"negative"`` or ``"positive"``.

    It is an ordinary BERT of four layers. Its folder is one that ``save_pretrained`` could have written, so
    ``AutoModelForSequenceClassification.from_pretrained(FOLDER)`` reads the same model, and :func:`captum_vit.explain`
    finds its tokenizer by itself. ``weights/model.md`` says how the weights were made and how accurate they are.
    Float32, on the CPU, in eval mode.

    Args:
        pretrained: read the weights.

    Example::

        >>> import captum_vit as cv
        >>> cv.explain(demo_bert(), "The soup was hardly a success.", method="GenAtt").labels
        ['negative']
    """
    with extra("demo"):
        from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig.from_pretrained(FOLDER)
    config.name_or_path = str(FOLDER)  # where its tokenizer lies
    model = BertForSequenceClassification(config)
    if pretrained:
        load_weights(model, WEIGHTS)
    return model.eval()


def demo_bert_tokenizer() -> BertTokenizer:
    """The tokenizer of :func:`demo_bert`: word pieces, in lower case."""
    with extra("demo"):
        from transformers import BertTokenizer

    return BertTokenizer.from_pretrained(FOLDER)
