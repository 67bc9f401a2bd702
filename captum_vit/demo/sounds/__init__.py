"""Sound clips in which it is known what sounds when and how high, and a small AST trained on them."""

from captum_vit.demo.sounds.clips import Clips, tone_clips
from captum_vit.demo.sounds.model import demo_ast, demo_ast_extractor

__all__ = ["Clips", "demo_ast", "demo_ast_extractor", "tone_clips"]
