"""Every method, and METHODS: a name for each thing that explains a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum.attr import Attribution, InputXGradient, IntegratedGradients, Saliency
from torch import nn

from captum_vit.attr.ablation import TokenAblation
from captum_vit.attr.attention import AttentionRollout, RawAttention
from captum_vit.attr.attention_gradient import AttCAM, AttnGrad, GenAtt, GradSAM
from captum_vit.attr.attention_input import AttCAT, AttIxG
from captum_vit.attr.base import TokenAttribution
from captum_vit.attr.caap import CAAP
from captum_vit.attr.cam import (
    TokenGradCAM,
    TokenGradCAMElementWise,
    TokenGradCAMPlusPlus,
    TokenHiResCAM,
    TokenLayerCAM,
    TokenXGradCAM,
)
from captum_vit.attr.cam_eigen import TokenEigenCAM
from captum_vit.attr.cat import CAT
from captum_vit.attr.cdam import LayerCDAM
from captum_vit.attr.cdam_integrated import LayerIntegratedCDAM
from captum_vit.attr.cdam_smooth import LayerSmoothCDAM
from captum_vit.attr.dave import DAVE
from captum_vit.attr.decompx import DecompX
from captum_vit.attr.full_grad import FullGrad, FullGradPlus
from captum_vit.attr.grad_eclip import GradECLIP
from captum_vit.attr.input_gradient import InputGradient, smooth_grad
from captum_vit.attr.legrad import LeGrad
from captum_vit.attr.lengths import ALTI, AttIN, GlobEnc
from captum_vit.attr.lrp import LRP, ConservativeLRP, PartialLRP, TransAttr
from captum_vit.attr.plus import PLUS, SkipPLUS
from captum_vit.attr.prediction_map import PredicAtt, PredictionMap
from captum_vit.attr.random import RandomAttribution
from captum_vit.attr.vanilla_grad import VanillaGrad
from captum_vit.attr.vtranm import VTranM

Make = Callable[..., Attribution]


def _sum_of(method: Make, over: type[PLUS] = PLUS) -> tuple[str, Make]:
    """A sum over start layers, with its name: ``"PLUS(DecompX)"``."""
    return f"{over.__name__}({method.__name__})", lambda model, **options: over(method(model), **options)


def _by_patch(method: Make) -> tuple[str, Make]:
    """A method of Captum that explains pixels, summed over patches, with its own name."""
    return method.__name__, lambda model, **options: InputGradient(model, method, **options)


def _smooth_grad(model: nn.Module, **options: Any) -> Attribution:
    return InputGradient(model, smooth_grad, **{"nt_samples": 20, "stdevs": 0.7, **options})


METHODS: dict[str, Make] = dict(
    entry if isinstance(entry, tuple) else (entry.__name__, entry)
    for entry in (
        LayerCDAM,
        LayerSmoothCDAM,
        LayerIntegratedCDAM,
        PredictionMap,
        PredicAtt,
        VTranM,
        DecompX,
        _sum_of(DecompX),
        _sum_of(DecompX, over=SkipPLUS),
        _sum_of(InputXGradient),
        CAT,
        FullGrad,
        FullGradPlus,
        GenAtt,
        _sum_of(GenAtt),
        GradSAM,
        LeGrad,
        GradECLIP,
        AttnGrad,
        AttCAM,
        AttIxG,
        AttCAT,
        TokenGradCAM,
        TokenGradCAMPlusPlus,
        TokenXGradCAM,
        TokenHiResCAM,
        TokenGradCAMElementWise,
        TokenLayerCAM,
        TokenEigenCAM,
        VanillaGrad,
        _by_patch(Saliency),
        _by_patch(InputXGradient),
        _by_patch(IntegratedGradients),
        ("SmoothGrad", _smooth_grad),
        DAVE,
        RawAttention,
        AttentionRollout,
        AttIN,
        GlobEnc,
        ALTI,
        _sum_of(GlobEnc),
        _sum_of(ALTI),
        TokenAblation,
        CAAP,
        LRP,
        PartialLRP,
        ConservativeLRP,
        TransAttr,
        RandomAttribution,
    )
)
"""Name -> something that makes an Attribution from nothing but a model, for loops and command lines.

Each takes the options of its constructor as keywords: ``METHODS["SmoothGrad"](model, stdevs=0.15)``.

In the order of the tables. A class is named by itself; what is composed of several has its name beside it.
"""

__all__ = [
    "ALTI",
    "AttCAM",
    "AttCAT",
    "AttIN",
    "AttIxG",
    "AttentionRollout",
    "AttnGrad",
    "CAAP",
    "CAT",
    "ConservativeLRP",
    "DAVE",
    "DecompX",
    "FullGrad",
    "FullGradPlus",
    "GenAtt",
    "GlobEnc",
    "GradECLIP",
    "GradSAM",
    "InputGradient",
    "LRP",
    "LayerCDAM",
    "LayerIntegratedCDAM",
    "LayerSmoothCDAM",
    "LeGrad",
    "METHODS",
    "PLUS",
    "PartialLRP",
    "PredicAtt",
    "PredictionMap",
    "RandomAttribution",
    "RawAttention",
    "SkipPLUS",
    "TokenAblation",
    "TokenAttribution",
    "TokenEigenCAM",
    "TokenGradCAM",
    "TokenGradCAMElementWise",
    "TokenGradCAMPlusPlus",
    "TokenHiResCAM",
    "TokenLayerCAM",
    "TokenXGradCAM",
    "TransAttr",
    "VTranM",
    "VanillaGrad",
]
