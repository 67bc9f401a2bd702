"""The demo model of parts: a small timm vision transformer that names the class of a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captum_vit.demo.parts.drawing import CANVAS
from captum_vit.demo.parts.scenes import CLASSES, MEAN, STD
from captum_vit.demo.weights import load_weights
from captum_vit.extras import extra

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

WEIGHTS = Path(__file__).parent / "weights" / "model.safetensors"


def demo_parts(pretrained: bool = True) -> VisionTransformer:
    """A timm ``VisionTransformer`` for ``part_scenes``: 64 x 64 pixels, 8 x 8 patches, ten classes.

    It is an ordinary timm model, trained on scenes from which parts and objects were left out at random. So a scene
    without some of them is nothing new to it, and what a logit loses with a part is what the part counts for.
    ``weights/model.md`` says how the weights were made and what the model can do. Float32, on the CPU, in eval mode.

    Args:
        pretrained: read the weights.

    Example::

        >>> from captum_vit.demo import part_scenes
        >>> demo_parts()(part_scenes(4).images).shape
        torch.Size([4, 10])
    """
    with extra("demo"):
        from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": CANVAS, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4, "mlp_ratio": 2}
    model = VisionTransformer(**sizes, num_classes=len(CLASSES))
    model.pretrained_cfg = model.default_cfg = {
        "architecture": "parts_vit",
        "num_classes": len(CLASSES),
        "label_names": tuple(" ".join(map(str, kinds)) for kinds in CLASSES.tolist()),
        "input_size": (3, CANVAS, CANVAS),
        "fixed_input_size": True,
        "mean": (MEAN,) * 3,
        "std": (STD,) * 3,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    if pretrained:
        load_weights(model, WEIGHTS)
    return model.eval()
