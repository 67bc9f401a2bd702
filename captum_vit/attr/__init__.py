"""Every method, and METHODS: a name for each thing that explains a model."""

from __future__ import annotations

from collections.abc import Callable

from captum.attr import Attribution, InputXGradient, IntegratedGradients, Saliency
from torch import nn

from captum_vit.attr.ablation import TokenAblation
from captum_vit.attr.attention import AttentionRollout, RawAttention
from captum_vit.attr.attention_gradient import AttCAM, AttnGrad, GenAtt, GradSAM
from captum_vit.attr.attention_input import AttCAT, AttIxG
from captum_vit.attr.base import TokenAttribution
from captum_vit.attr.cam import (
    TokenGradCAM,
    TokenGradCAMElementWise,
    TokenGradCAMPlusPlus,
    TokenHiResCAM,
    TokenLayerCAM,
    TokenXGradCAM,
)
from captum_vit.attr.cat import CAT
from captum_vit.attr.cdam import LayerCDAM
from captum_vit.attr.cdam_integrated import LayerIntegratedCDAM
from captum_vit.attr.cdam_smooth import LayerSmoothCDAM
from captum_vit.attr.decompx import DecompX
from captum_vit.attr.full_grad import FullGrad, FullGradPlus
from captum_vit.attr.input_gradient import InputGradient, smooth_grad
from captum_vit.attr.lengths import ALTI, AttIN, GlobEnc
from captum_vit.attr.lrp import LRP, ConservativeLRP, PartialLRP, TransAttr
from captum_vit.attr.plus import PLUS, SkipPLUS
from captum_vit.attr.prediction_map import PredicAtt, PredictionMap
from captum_vit.attr.random import RandomAttribution
from captum_vit.attr.vtranm import VTranM

METHODS: dict[str, Callable[[nn.Module], Attribution]] = {
    "LayerCDAM": LayerCDAM,
    "LayerSmoothCDAM": LayerSmoothCDAM,
    "LayerIntegratedCDAM": LayerIntegratedCDAM,
    "PredictionMap": PredictionMap,
    "PredicAtt": PredicAtt,
    "VTranM": VTranM,
    "DecompX": DecompX,
    "PLUS(DecompX)": lambda model: PLUS(DecompX(model)),
    "SkipPLUS(DecompX)": lambda model: SkipPLUS(DecompX(model)),
    "PLUS(InputXGradient)": lambda model: PLUS(InputXGradient(model)),
    "CAT": CAT,
    "FullGrad": FullGrad,
    "FullGradPlus": FullGradPlus,
    "GenAtt": GenAtt,
    "PLUS(GenAtt)": lambda model: PLUS(GenAtt(model)),
    "GradSAM": GradSAM,
    "AttnGrad": AttnGrad,
    "AttCAM": AttCAM,
    "AttIxG": AttIxG,
    "AttCAT": AttCAT,
    "TokenGradCAM": TokenGradCAM,
    "TokenGradCAMPlusPlus": TokenGradCAMPlusPlus,
    "TokenXGradCAM": TokenXGradCAM,
    "TokenHiResCAM": TokenHiResCAM,
    "TokenGradCAMElementWise": TokenGradCAMElementWise,
    "TokenLayerCAM": TokenLayerCAM,
    "Saliency": lambda model: InputGradient(model, Saliency),
    "InputXGradient": lambda model: InputGradient(model, InputXGradient),
    "IntegratedGradients": lambda model: InputGradient(model, IntegratedGradients),
    "SmoothGrad": lambda model: InputGradient(model, smooth_grad, nt_samples=20, stdevs=0.7),
    "RawAttention": RawAttention,
    "AttentionRollout": AttentionRollout,
    "AttIN": AttIN,
    "GlobEnc": GlobEnc,
    "ALTI": ALTI,
    "PLUS(GlobEnc)": lambda model: PLUS(GlobEnc(model)),
    "PLUS(ALTI)": lambda model: PLUS(ALTI(model)),
    "TokenAblation": TokenAblation,
    "LRP": LRP,
    "PartialLRP": PartialLRP,
    "ConservativeLRP": ConservativeLRP,
    "TransAttr": TransAttr,
    "RandomAttribution": RandomAttribution,
}
"""Name -> something that makes an Attribution from a model alone, for loops and command lines."""

__all__ = [
    "ALTI",
    "AttCAM",
    "AttCAT",
    "AttIN",
    "AttIxG",
    "AttentionRollout",
    "AttnGrad",
    "CAT",
    "ConservativeLRP",
    "DecompX",
    "FullGrad",
    "FullGradPlus",
    "GenAtt",
    "GlobEnc",
    "GradSAM",
    "InputGradient",
    "LRP",
    "LayerCDAM",
    "LayerIntegratedCDAM",
    "LayerSmoothCDAM",
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
    "TokenGradCAM",
    "TokenGradCAMElementWise",
    "TokenGradCAMPlusPlus",
    "TokenHiResCAM",
    "TokenLayerCAM",
    "TokenXGradCAM",
    "TransAttr",
    "VTranM",
]
