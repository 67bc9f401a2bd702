"""Scenes of a figure made of parts, which can be drawn without any of them, and a small ViT trained on them."""

from captum_vit.demo.parts.model import demo_parts
from captum_vit.demo.parts.scenes import PartScenes, part_scenes

__all__ = ["PartScenes", "demo_parts", "part_scenes"]
