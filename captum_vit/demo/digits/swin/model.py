"""The demo Swin: a small timm Swin transformer that names the digits of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captum_vit.demo.digits.model import config_of
from captum_vit.demo.digits.scenes import CANVAS
from captum_vit.demo.weights import load_weights
from captum_vit.extras import extra

if TYPE_CHECKING:
    from timm.models.swin_transformer import SwinTransformer

WEIGHTS = Path(__file__).parents[1] / "weights" / "digits_swin.safetensors"


def demo_swin(pretrained: bool = True) -> SwinTransformer:
    """A timm ``SwinTransformer`` for digit scenes: 64 x 64 pixels, 8 x 8 patches, ten classes.

    Two stages: four blocks of width 128 on a grid of 8 x 8 tokens in windows of 4 x 4, every second one shifted; then
    two blocks of width 256 on 4 x 4 tokens, each merged from four. The classifier reads the mean of the last tokens.
    Tensors between blocks are (B, H, W, C), and there is no CLS token.

    It is an ordinary timm model, trained to name all digits of a scene, as ``demo_vit()`` is. With ``pretrained`` the
    weights shipped with the package are read; the card beside them says how they were made, from ``demo_vit()`` as
    start and teacher, and how accurate they are. Float32, on the CPU, in eval mode.

    Args:
        pretrained: read the weights.

    Example::

        >>> from captum_vit.demo import digit_scenes
        >>> demo_swin()(digit_scenes(4, n_digits=1).images).shape
        torch.Size([4, 10])
    """
    with extra("demo"):
        from timm.models.swin_transformer import SwinTransformer

    sizes = {"img_size": CANVAS, "patch_size": 8, "num_classes": 10, "embed_dim": 128, "window_size": 4}
    stages = {"depths": (4, 2), "num_heads": (4, 8), "mlp_ratio": (4, 2)}
    model = SwinTransformer(**sizes, **stages, drop_path_rate=0)
    model.pretrained_cfg = model.default_cfg = config_of("digit_swin", "head.fc")
    if pretrained:
        load_weights(model, WEIGHTS)
    return model.eval()
