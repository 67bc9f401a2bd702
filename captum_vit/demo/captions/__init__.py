"""Captions of digit scenes, and a small CLIP trained on them."""

from captum_vit.demo.captions.model import demo_clip, demo_clip_tokenizer
from captum_vit.demo.captions.sentences import PROMPTS, TEMPLATES, named

__all__ = ["PROMPTS", "TEMPLATES", "demo_clip", "demo_clip_tokenizer", "named"]
