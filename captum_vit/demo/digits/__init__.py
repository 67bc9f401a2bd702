"""Digit scenes with known answers, and a small vision transformer trained on them."""

from captum_vit.demo.digits.model import demo_vit
from captum_vit.demo.digits.scenes import Scenes, digit_scenes

__all__ = ["Scenes", "demo_vit", "digit_scenes"]
