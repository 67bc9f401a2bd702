"""Write the tokenizer's file: ``python -m captum_vit.demo.captions.vocabulary --out FILE``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from captum_vit.demo.captions.sentences import PROMPTS, TEMPLATES

START, END = "<|startoftext|>", "<|endoftext|>"
SPECIAL = ("<pad>", START, "<unk>", END)  # in this order: of an end with number 2 transformers believes something else


def vocabulary() -> list[str]:
    """Special tokens, then every word and sign of a caption."""
    said = " ".join((*TEMPLATES, *PROMPTS, "and ,")).replace("{}", " ")
    return [*SPECIAL, *sorted(set(re.findall(r"\w+|[^\w\s]", said)))]


def main() -> None:
    """Build it with ``tokenizers`` and store it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    options = argparse.ArgumentParser("captum_vit.demo.captions.vocabulary", description="Write tokenizer.json.")
    options.add_argument("--out", type=Path, required=True)
    number = {word: i for i, word in enumerate(vocabulary())}
    made = Tokenizer(models.WordLevel(number, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, number[name]) for name in (START, END)]
    made.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    made.save(str(options.parse_args().out))


if __name__ == "__main__":
    main()
