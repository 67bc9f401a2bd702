"""timm's models: those whose blocks keep their tokens, one for each set of arguments; and hierarchies, refused."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import timm
import torch
from timm.models import model_entrypoint
from torch import nn

from tests.families.shrink import CLASSES
from tests.families.weights import redrawn
from tests.models import Case

PLAIN = (
    "vision_transformer", "vision_transformer_relpos", "vision_transformer_hybrid", "deit", "beit", "eva", "naflexvit",
    "gemma4_vit", "qwen3_vit", "cait", "convit", "xcit", "vision_transformer_sam", "tnt",
)  # fmt: skip
SIZES = {
    "img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "num_classes", "ref_feat_shape",
    "attn_pool_num_heads", "attn_pool_mlp_ratio", "pretrained_filter_fn", "feature_cfg", "pretrained_strict",
    "rel_pos_dim",
    "head_dim", "intermediate_size", "num_heads_outer", "num_kv_heads", "inner_dim", "swiglu_align_to",
    "dynamic_img_size", "out_features",
}  # fmt: skip
SMALL = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": CLASSES}
HIERARCHIES = (
    "caformer_s18", "coat_lite_tiny", "coatnet_pico_rw_224", "convnext_atto", "crossvit_tiny_240", "davit_tiny",
    "edgenext_xx_small", "efficientformer_l1", "efficientformerv2_s0", "efficientvit_b0", "efficientvit_m0",
    "fastvit_sa12", "gcvit_xxtiny", "halonet26t", "hiera_tiny_224", "levit_128s", "maxvit_pico_rw_256", "mixer_s16_224",
    "mobilevit_xxs", "mobilevitv2_050", "mvitv2_tiny", "nest_tiny", "nextvit_small", "pit_ti_224", "poolformer_s12",
    "pvt_v2_b0", "resnet18", "sam2_hiera_tiny", "sequencer2d_s", "shvit_s1", "swiftformer_xs",
    "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_ns_224", "swinv2_tiny_window8_256", "tiny_vit_5m_224",
    "twins_pcpvt_small", "twins_svt_small", "visformer_tiny", "vitamin_small_224", "volo_d1_224",
)  # fmt: skip


class Caught(Exception):
    """Instead of a model that is built."""


def variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """The first name of each set of arguments of a plain model, and these."""
    seen: set[str] = set()
    for module in PLAIN:
        for name in timm.list_models(module=module):
            if name.endswith("_enc"):  # tokens are what it returns
                continue
            of, given = arguments(module, name)
            key = f"{of.__name__}{ {k: spelt(v) for k, v in sorted(given.items()) if k not in SIZES} }"
            if key not in seen:
                seen.add(key)
                yield name, given


def arguments(module: str, name: str) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class of a model by its name, and what it would be built with."""

    def catch(of: type[nn.Module], variant: str, pretrained: bool, **given: Any) -> None:
        raise Caught(of, given)

    with patch.object(importlib.import_module(f"timm.models.{module}"), "build_model_with_cfg", catch):
        try:
            model_entrypoint(name)()
        except Caught as caught:
            return caught.args
    raise AssertionError(f"{name} is not built by build_model_with_cfg")


def spelt(value: Any) -> str:
    """Arguments that do the same are spelt the same: functions without their address, modules by their class."""
    if isinstance(value, partial):
        return f"{spelt(value.func)}{ {k: spelt(v) for k, v in value.keywords.items()} }"
    if isinstance(value, tuple | list):
        return spelt(value[0]) if value else ""
    if isinstance(value, nn.Module | float):
        return type(value).__name__
    return getattr(value, "__name__", repr(value))


def names() -> list[str]:
    return [name for name, _ in variants()] + list(HIERARCHIES)


def build(name: str) -> Case:
    """A model, and three images of its size."""
    module = timm.models._registry._model_to_module[name]
    small = {} if name in HIERARCHIES else smaller(arguments(module, name)[1])
    model = redrawn(timm.create_model(name, **small))
    size = small.get("img_size", 64 if name.startswith("naflex") else model.default_cfg["input_size"][-1])
    return Case(model, torch.randn(3, 3, size, size))


def smaller(given: dict[str, Any]) -> dict[str, Any]:
    """Sizes of a small model, for those arguments that there are."""
    if "cfg" in given:
        return {key: value for key, value in SMALL.items() if key != "img_size"}
    if "embed_layer" in given or "features_only" in given:  # a convolutional stem, in which 64 pixels do not suffice
        return {key: SMALL[key] for key in ("embed_dim", "depth", "num_heads", "num_classes")} | {"img_size": 128}
    small = {key: SMALL[key] for key in SMALL if key in given or key in ("img_size", "num_classes")}
    if "num_kv_heads" in given:
        small["num_kv_heads"] = (3, 1)
    if "attn_pool_num_heads" in given:
        small["attn_pool_num_heads"] = 3
    return small
