"""Methods of Captum and of pytorch-grad-cam, as their pages use them, to be measured beside ours."""

from __future__ import annotations

from captum.attr import (
    InputXGradient,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor, nn

from tests.benchmarks.cost import STEPS, TARGET, Explain


def captums(model: nn.Module) -> dict[str, Explain]:
    """Captum's; those that read a layer at the norm before the last attention, as ours do."""
    norm = model.blocks[-1].norm1
    cam, product = LayerGradCam(model, norm), LayerGradientXActivation(model, norm)
    path = LayerIntegratedGradients(model, norm)
    saliency, by_input = Saliency(model), InputXGradient(model)
    tunnel = NoiseTunnel(saliency)
    return {
        "captum LayerGradCam": lambda x: cam.attribute(x, target=TARGET),
        "captum LayerGradientXActivation": lambda x: product.attribute(x, target=TARGET),
        "captum Saliency": lambda x: saliency.attribute(x, target=TARGET),
        "captum InputXGradient": lambda x: by_input.attribute(x, target=TARGET),
        f"captum LayerIntegratedGradients, {STEPS} steps": lambda x: path.attribute(
            x, target=TARGET, n_steps=STEPS, internal_batch_size=len(x)
        ),
        f"captum NoiseTunnel(Saliency), {STEPS} samples": lambda x: tunnel.attribute(
            x, target=TARGET, nt_samples=STEPS, nt_samples_batch_size=1
        ),
    }


def grad_cams(model: nn.Module) -> dict[str, Explain]:
    """Those of pytorch-grad-cam, at the same norm; tokens are widened for NumPy, which knows no bfloat16.

    Raises:
        ImportError: it is not installed.
    """
    from pytorch_grad_cam import GradCAM, LayerCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    grid, prefix = model.patch_embed.grid_size, model.num_prefix_tokens

    def explain(kind: type, x: Tensor) -> None:
        def patches(tokens: Tensor) -> Tensor:
            return tokens[:, prefix:].float().mT.unflatten(2, grid)

        with kind(model, [model.blocks[-1].norm1], reshape_transform=patches) as cam:  # its hooks end here
            cam(x, targets=[ClassifierOutputTarget(TARGET)] * len(x))

    kinds = {"grad-cam GradCAM": GradCAM, "grad-cam LayerCAM": LayerCAM}
    return {name: lambda x, kind=kind: explain(kind, x) for name, kind in kinds.items()}
