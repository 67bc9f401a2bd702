"""What a transformer is: the only folder with class names of other libraries."""

from captum_vit.models.registry import register_spec
from captum_vit.models.spec import Spec
from captum_vit.models.transformer import Transformer

__all__ = ["Spec", "Transformer", "register_spec"]
