"""A transformer as one pass shows it: its blocks, and the places in them, without a name of a foreign class."""

from captum_vit.description.measured import measured

__all__ = ["measured"]
