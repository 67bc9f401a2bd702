"""The demo classifier: a small timm vision transformer that names the digits of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captum_vit.demo.scenes import CANVAS, MEAN, STD

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

WEIGHTS = Path(__file__).parent / "weights" / "digit_vit.safetensors"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def demo_vit(pretrained: bool = True) -> VisionTransformer:
    """A timm ``VisionTransformer`` for digit scenes: 64 x 64 pixels, 8 x 8 patches, CLS pooling, ten classes.

    It is an ordinary timm model. ``pretrained_cfg`` carries its normalisation and ``label_names``, so
    ``timm.data.resolve_model_data_config(model)`` works. With ``pretrained`` the weights shipped with the
    package are read; ``weights/README.md`` says how they were made and how accurate they are. Float32, on the
    CPU, in eval mode.

    Example::

        >>> model, scenes = demo_vit(), digit_scenes(4, n_digits=1)
        >>> model(scenes.images).shape
        torch.Size([4, 10])
    """
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=CANVAS, patch_size=8, num_classes=10, embed_dim=128, depth=6, num_heads=4, mlp_ratio=4
    )
    model.pretrained_cfg = model.default_cfg = _config()
    if pretrained:
        load_weights(model, WEIGHTS)
    return model.eval()


def load_weights(model: VisionTransformer, path: Path) -> None:
    """Fill the model from a float16 safetensors file; its parameters stay float32."""
    from safetensors.torch import load_file

    if not path.exists():
        raise FileNotFoundError(
            f"Expected the demo weights at {path}. They ship with the package; "
            f"`python -m captum_vit.demo.train --out {path}` makes them anew."
        )
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})


def save_weights(model: VisionTransformer, path: Path) -> None:
    """Write the model's parameters as float16 safetensors."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, path)


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
