"""Weights of a model drawn anew, so that no map is near zero and what a library initialises alike does not hide."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd


def redrawn(model: nn.Module) -> nn.Module:
    """Matrices that keep lengths, biases around 0, vectors of norms and LayerScale around 1; in eval mode."""
    with torch.no_grad():
        for module in model.modules():
            for name, p in module.named_parameters(recurse=False):
                if p.dim() == 0 or p.numel() == 0:  # a temperature stays
                    continue
                if p.dim() == 1:
                    p.normal_(std=0.3).add_(0 if "bias" in name else 1)
                elif p.shape[0] == 1:  # positions, CLS token, registers
                    p.normal_(std=0.7)
                else:
                    reads = p[0].numel() if isinstance(module, _ConvNd) else p.shape[-1]
                    p.normal_(std=1.5 * reads**-0.5)
    return model.eval()
