"""docs/families.md is what is seen of any transformer: a sample of it in every run, all of it with `--full`."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from tests.families.page import COMMAND, PAGE, Row, line
from tests.families.sweep import everything, swept

SAMPLE = {
    "transformers": (
        "BertForSequenceClassification", "LlamaForTokenClassification", "GPT2ForSequenceClassification",
        "AlbertForSequenceClassification", "GPTNeoXForTokenClassification", "MixtralForSequenceClassification",
        "BartForSequenceClassification", "ConvBertForTokenClassification", "FNetForSequenceClassification",
        "ViTMSNForImageClassification", "SwinForImageClassification", "Wav2Vec2ForSequenceClassification",
        "VideoMAEForVideoClassification", "VJEPA2ForVideoClassification",
    ),
    "timm": ("vit_base_patch16_siglip_224", "vit_base_patch16_rope_mixed_224", "cait_m36_384", "convnext_atto"),
    "torchvision, open_clip, PyTorch": ("TransformerEncoder, post-norm",),
    "own": ("own: functional norms, einsum", "own: CLS in the middle", "own: shared layer"),
}  # fmt: skip


def compare(models: Iterable[tuple[str, str]]) -> None:
    """What is seen of these models is what is on the page; nothing fails."""
    published = PAGE.read_text("utf-8")
    reasons = re.findall(r"^\d+\. (.+)$", published, re.MULTILINE)
    for library, name, result in swept(models):
        assert not result.failures, f"{name}: {result.failures}"
        if not result.not_built:
            assert {v.said for v in result.verdicts.values() if not v.works} <= set(reasons), f"{COMMAND}: {name}"
            row = line(Row(library, name, result), reasons)
            assert f"\n{row}\n" in published, f"{COMMAND} rewrites the page:\n{row}"


@pytest.mark.slow
def test_a_sample_is_what_is_published() -> None:
    compare((library, name) for library, names in SAMPLE.items() for name in names)


@pytest.mark.full
def test_every_model_is_what_is_published() -> None:
    compare(everything())
