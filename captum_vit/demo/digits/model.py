"""The demo classifier: a small timm vision transformer that names the digits of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from captum_vit.demo.digits.scenes import CANVAS, MEAN, STD
from captum_vit.demo.weights import load_weights
from captum_vit.errors import OptionError
from captum_vit.extras import extra
from captum_vit.options import boolean, one_of

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

OBJECTIVES = ("digits", "label")
POOLINGS = {"cls": "token", "mean": "avg", "attention": "map"}  # and in timm's words
SHIPPED = {  # the weights of an objective and a pooling
    ("digits", "cls"): "digits_vit",
    ("label", "cls"): "label_vit",
    ("digits", "mean"): "digits_vit_mean",
    ("digits", "attention"): "digits_vit_attention",
}
DROPPED = "digits_vit_dropped"  # those of the first, trained on with patches missing
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def demo_vit(
    pretrained: bool = True, *, objective: str = "digits", pooling: str = "cls", dropped_tokens: bool = False
) -> VisionTransformer:
    """A timm ``VisionTransformer`` for digit scenes: 64 x 64 pixels, 8 x 8 patches, ten classes.

    It is an ordinary timm model. ``pretrained_cfg`` carries its normalisation and ``label_names``, so
    ``timm.data.resolve_model_data_config(model)`` works. With ``pretrained`` the weights shipped with the
    package are read; the card beside them says how they were made and how accurate they are. Float32, on the
    CPU, in eval mode.

    Args:
        pretrained: read the weights.
        objective: what the weights were trained for. ``"label"``: one digit of the scene is its label, as in
            ImageNet. ``"digits"``: all digits of the scene are named, after a first phase with one label. Only
            there is it true that a digit's logit is about that digit: leave the *other* one unwritten, and the
            logit of the model trained on labels changes as much as if the digit itself were gone.
        pooling: what the classifier reads. ``"cls"``: the CLS token behind the last norm. ``"mean"``: the mean of
            the patches, and the norm behind it. ``"attention"``: what one learned query attends to among the
            patches. Of the last two there are weights for ``objective="digits"``; each is a model of its own.
        dropped_tokens: weights that were trained on with up to half of the patches missing from the sequence, for tests
            that take patches away (`quantus_metrics.IDSDS`, `quantus_metrics.FFidelity`).

    Raises:
        OptionError: an objective, a pooling or both without weights, or without those for dropped tokens.

    Example::

        >>> model, scenes = demo_vit(), digit_scenes(4, n_digits=1)
        >>> model(scenes.images).shape
        torch.Size([4, 10])
    """
    pool = POOLINGS[one_of("pooling", pooling, POOLINGS)]
    with extra("demo"):
        from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": CANVAS, "patch_size": 8, "num_classes": 10, "embed_dim": 128, "depth": 6, "num_heads": 4}
    model = VisionTransformer(**sizes, mlp_ratio=4, global_pool=pool)
    model.pretrained_cfg = model.default_cfg = config_of("digit_vit", "head")
    if pretrained:
        load_weights(model, weights_of(objective, pooling, dropped_tokens))
    return model.eval()


def weights_of(objective: str, pooling: str = "cls", dropped_tokens: bool = False) -> Path:
    """Where the weights for an objective and a pooling are."""
    name = SHIPPED.get((one_of("objective", objective, OBJECTIVES), one_of("pooling", pooling, POOLINGS)))
    if name is None:
        raise OptionError(
            f"weights for pooling={pooling!r} are there only for objective='digits'.",
            f"objective={objective!r}",
            f"demo_vit(objective='digits', pooling={pooling!r}), or demo_vit(objective={objective!r}).",
        )
    if boolean("dropped_tokens", dropped_tokens):
        if name != SHIPPED["digits", "cls"]:
            wanted = "weights for dropped_tokens=True are there only for objective='digits', pooling='cls'."
            got = f"objective={objective!r}, pooling={pooling!r}"
            raise OptionError(wanted, got, "demo_vit(dropped_tokens=True).")
        name = DROPPED
    return Path(__file__).parent / "weights" / f"{name}.safetensors"


def config_of(architecture: str, classifier: str) -> dict[str, object]:
    """What timm's data helpers read from a model, in timm's words."""
    return {
        "architecture": architecture,
        "num_classes": len(NAMES),
        "label_names": NAMES,
        "input_size": (3, CANVAS, CANVAS),
        "fixed_input_size": True,
        "mean": (MEAN,) * 3,
        "std": (STD,) * 3,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "first_conv": "patch_embed.proj",
        "classifier": classifier,
    }
