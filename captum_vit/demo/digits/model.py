"""The demo classifier: a small timm vision transformer that names the digits of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captum_vit.demo.digits.scenes import CANVAS, MEAN, STD
from captum_vit.demo.weights import load_weights
from captum_vit.extras import extra
from captum_vit.options import one_of

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

OBJECTIVES = ("digits", "label")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def demo_vit(pretrained: bool = True, *, objective: str = "digits") -> VisionTransformer:
    """A timm ``VisionTransformer`` for digit scenes: 64 x 64 pixels, 8 x 8 patches, CLS pooling, ten classes.

    It is an ordinary timm model. ``pretrained_cfg`` carries its normalisation and ``label_names``, so
    ``timm.data.resolve_model_data_config(model)`` works. With ``pretrained`` the weights shipped with the
    package are read; ``weights/README.md`` says how they were made and how accurate they are. Float32, on the
    CPU, in eval mode.

    Args:
        pretrained: read the weights.
        objective: what the weights were trained for. ``"label"``: one digit of the scene is its label, as in
            ImageNet. ``"digits"``: all digits of the scene are named, after a first phase with one label. Only
            there is it true that a digit's logit is about that digit: leave the *other* one unwritten, and the
            logit of the model trained on labels changes as much as if the digit itself were gone.

    Example::

        >>> model, scenes = demo_vit(), digit_scenes(4, n_digits=1)
        >>> model(scenes.images).shape
        torch.Size([4, 10])
    """
    with extra("demo"):
        from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=CANVAS, patch_size=8, num_classes=10, embed_dim=128, depth=6, num_heads=4, mlp_ratio=4
    )
    model.pretrained_cfg = model.default_cfg = _config()
    if pretrained:
        load_weights(model, weights_of(objective))
    return model.eval()


def weights_of(objective: str) -> Path:
    """Where the weights for an objective are."""
    one_of("objective", objective, OBJECTIVES)
    return Path(__file__).parent / "weights" / f"{objective}_vit.safetensors"


def _config() -> dict[str, object]:
    """What timm's data helpers read from a model, in timm's words."""
    return {
        "architecture": "digit_vit",
        "num_classes": len(NAMES),
        "label_names": NAMES,
        "input_size": (3, CANVAS, CANVAS),
        "fixed_input_size": True,
        "mean": (MEAN,) * 3,
        "std": (STD,) * 3,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
