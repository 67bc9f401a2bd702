"""Swap a method in code that was written for Captum: the two scripts below run with either class.

python examples/swap_in_captum.py
"""

from __future__ import annotations

import torch
from captum.attr import LayerAttribution, LayerGradCam, LayerGradientXActivation, NoiseTunnel
from torch import Tensor

from captum_vit import LayerCDAM
from captum_vit.demo import demo_vit, digit_scenes


def grad_cam_script(method_class: type[LayerAttribution]) -> Tensor:
    """As a user of LayerGradCam wrote it: a class, a layer, a target for each image, interpolation."""
    model, scenes = demo_vit(), digit_scenes(4, n_digits=2)
    layer = model.blocks[-1].norm1
    explainer = method_class(model, layer)
    return explainer.attribute(
        scenes.images, target=scenes.label, attribute_to_layer_input=False, relu_attributions=True
    )


def noise_tunnel_script(method_class: type[LayerAttribution]) -> Tensor:
    """As a user of LayerGradientXActivation wrote it: smoothed by NoiseTunnel."""
    torch.manual_seed(0)
    model, scenes = demo_vit(), digit_scenes(4, n_digits=2)
    tunnel = NoiseTunnel(method_class(model, model.blocks[-1].norm1))
    return tunnel.attribute(scenes.images, target=scenes.label.tolist(), nt_type="smoothgrad", nt_samples=4, stdevs=0.1)


def main() -> None:
    for script, theirs in ((grad_cam_script, LayerGradCam), (noise_tunnel_script, LayerGradientXActivation)):
        before, after = script(theirs), script(LayerCDAM)
        print(f"{script.__name__}: {theirs.__name__} gives {tuple(before.shape)}, LayerCDAM {tuple(after.shape)}")
        print("  as pixels:", tuple(LayerAttribution.interpolate(after, (64, 64)).shape))
    # The tokens of a transformer are no channels: LayerGradCam averages over the wrong axis there, and
    # LayerGradientXActivation leaves (batch, tokens, width). LayerCDAM gives one map on the patch grid.
    products = noise_tunnel_script(LayerGradientXActivation)[:, 1:].sum(-1).unflatten(1, (8, 8))
    torch.testing.assert_close(noise_tunnel_script(LayerCDAM)[:, 0], products, rtol=1e-4, atol=1e-5)
    print("LayerCDAM is LayerGradientXActivation summed over channels, on the grid: equal under the same noise.")


if __name__ == "__main__":
    main()
