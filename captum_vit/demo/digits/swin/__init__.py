"""A small Swin for the digit scenes: windows, two stages, and no CLS token."""

from captum_vit.demo.digits.swin.model import demo_swin

__all__ = ["demo_swin"]
