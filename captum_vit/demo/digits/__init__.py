"""Digit scenes with known answers, and small vision transformers trained on them."""

from captum_vit.demo.digits.model import demo_vit
from captum_vit.demo.digits.scenes import Scenes, digit_scenes
from captum_vit.demo.digits.swin import demo_swin

__all__ = ["Scenes", "demo_swin", "demo_vit", "digit_scenes"]
