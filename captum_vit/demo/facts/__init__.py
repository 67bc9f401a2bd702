"""Facts in sentences and questions about them, and a small Llama trained to answer."""

from captum_vit.demo.facts.facts import Facts, stated_facts
from captum_vit.demo.facts.model import demo_lm, demo_lm_tokenizer
from captum_vit.demo.facts.next_word import NextWord

__all__ = ["Facts", "NextWord", "demo_lm", "demo_lm_tokenizer", "stated_facts"]
