"""What a transformer is: the only room that knows foreign class names."""

from captum_vit.models import huggingface, open_clip, timm, torchvision  # registers the known families
from captum_vit.models.registry import all_registered_are_ours, register_spec, spec_of
from captum_vit.models.spec import Spec
from captum_vit.models.transformer import Transformer

__all__ = ["Spec", "Transformer", "huggingface", "open_clip", "register_spec", "spec_of", "timm", "torchvision"]

all_registered_are_ours()
