"""What kind of classifier a model is, where that is not in its own configuration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.output import scores_of
from captum_vit.targets.scores import TargetModule


class MultiLabel(TargetModule):
    r"""A classifier of several labels, each by itself: its probabilities are :math:`\sigma(z_k)`, not a softmax.

    A Hugging Face model whose configuration has ``problem_type="multi_label_classification"`` is read so without
    it. It is meant for models of other libraries, timm's for instance, which have no such setting. Methods
    with a ``score``, `explain`, and the metrics of `quantus_metrics` then take the sigmoid of each output wherever
    they mean a probability. Scores (B, K) are handed on as they are, at the cost of the model's forward.

    Args:
        model: gives one logit for each label.

    Example:
        >>> explain(MultiLabel(timm_model), "chest.png", target=[3, 7]).save("chest.png")  # doctest: +SKIP
        >>> VTranM(MultiLabel(timm_model)).attribute(images, target=3)  # doctest: +SKIP
    """

    raw_scores = False
    problem_type = "multi_label_classification"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, getattr(model, "tower", None))

    def forward(self, *inputs: Any, **kwargs: Any) -> Tensor:  # shape: (B, K)
        return scores_of(self.model(*inputs, **kwargs))


class TwoClasses(TargetModule):
    r"""One logit z as a classifier of two classes: (B, 2), -z for class 0 and z for class 1.

    Probabilities are :math:`\sigma(-z) = 1 - \sigma(z)` and :math:`\sigma(z)`, and the larger score is class 1 where z
    is above 0. So class 0 can be explained too, and every metric that reads classes can be used. Costs the model's
    forward.

    Args:
        model: gives one logit for each sample, (B, 1) or (B,).

    Raises:
        UnsupportedModelError: in the forward, a model that gives several scores for each sample.

    Example:
        >>> LayerCDAM(TwoClasses(model)).attribute(images, target=0)  # evidence for the negative class
    """

    problem_type = "multi_label_classification"  # each score is the logit of its class

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, getattr(model, "tower", None))

    def forward(self, *inputs: Any, **kwargs: Any) -> Tensor:  # shape: (B, 2)
        z = scores_of(self.model(*inputs, **kwargs))
        if z.dim() > 2 or z[0].numel() != 1:
            raise UnsupportedModelError(
                "A model with one logit for each sample.", f"outputs of shape {tuple(z.shape)}", "the model itself."
            )
        return two_classes(z)


def two_classes(
    z: Tensor,  # shape: (B, 1) or (B,)
) -> Tensor:  # shape: (B, 2)
    """The scores of both classes of which one logit decides: the negative one's, then the positive one's."""
    z = z.reshape(len(z), 1)
    return torch.cat([-z, z], 1)
