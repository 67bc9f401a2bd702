"""How near an embedding is to concepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import InputError
from captum_vit.models.modules import modules_of
from captum_vit.models.output import scores_of
from captum_vit.options import one_of
from captum_vit.sites.site import ThisThreadOnly
from captum_vit.targets.scores import TargetModule, constant, same_length, vectors
from captum_vit.trace.run.found import as_found
from captum_vit.trace.run.state import checked_inputs, undisturbed
from captum_vit.trace.run.watch import model_errors_as_ours

SIMILARITIES = ("dot", "cosine", "neg_l2")


def similarity_to(
    x: Tensor,  # shape: (B, D)
    references: Tensor,  # shape: (K, D)
    kind: str,
) -> Tensor:  # shape: (B, K)
    """``"dot"``, ``"cosine"``, or ``"neg_l2"`` (minus the distance, so that higher is nearer)."""
    references = references.to(x)
    if kind == "dot":
        return x @ references.T
    if kind == "cosine":
        return F.normalize(x, dim=-1) @ F.normalize(references, dim=-1).T
    return -(x.unsqueeze(1) - references).norm(dim=-1)


class ConceptSimilarity(TargetModule):
    r"""How near an image's embedding is to each of several concepts.

    .. math:: g_k = \langle l(X), l_k \rangle

    ``l(X)`` is what the model's last linear layer reads (for CLS pooling the CLS token after the final norm);
    where the scores are not the output of a linear layer (a model without a head, or with two whose answers are
    averaged) it is the scores themselves. ``l_k`` is a concept's embedding. With the rows of the head's weight as
    concepts and ``"dot"`` the concepts are the classes, up to the head's bias.

    Args:
        model: an image or text model.
        embeddings: (K, D), one concept in each row.
        similarity: ``"dot"`` as in the paper, ``"cosine"``, or ``"neg_l2"``, minus the distance, so that higher is
            nearer; the paper names both without a formula.

    Source: the CDAM paper, equations 3 and 4.

    Example:
        >>> stripes = ConceptSimilarity.from_images(model, {"stripes": zebras, "dots": ladybirds})  # doctest: +SKIP
        >>> LayerCDAM(stripes).attribute(images, target=0)  # doctest: +SKIP
    """

    embeddings: Tensor

    def __init__(self, model: nn.Module, embeddings: Tensor, similarity: str = "dot") -> None:
        super().__init__(model)
        self.similarity = one_of("similarity", similarity, SIMILARITIES)
        self.names: list[str] | None = None
        self.register_buffer("embeddings", constant(vectors("Concept embeddings", embeddings, "K, D")))

    @classmethod
    def from_images(cls, model: nn.Module, images: Mapping[str, Tensor], similarity: str = "dot") -> ConceptSimilarity:
        """Concepts from examples: the mean embedding of each named batch of images, in their order.

        Args:
            model: an image model, in evaluation mode.
            images: name -> (n, 3, H, W), preprocessed; the paper takes 30 of each concept.
            similarity: as above.

        Raises:
            InputError: no batch, or one that is empty or not finite.
            ModelStateError: a model in training mode, whose dropout would make every concept a different one.
        """
        if not isinstance(images, Mapping) or not images:
            raise InputError("Images by the name of their concept.", type(images).__name__, '{"dog": images}')
        with undisturbed(model):
            means = [_mean_embedding(model, *checked_inputs(batch, model)) for batch in images.values()]
        made = cls(model, torch.stack(means), similarity)
        made.names = list(images)
        return made

    def forward(self, *inputs: Any) -> Tensor:  # shape: (B, K)
        found = embedding(self.model, *inputs)
        same_length("an embedding", self.embeddings, "what the last layer reads", found)
        return similarity_to(found, self.embeddings, self.similarity)


def _mean_embedding(model: nn.Module, *inputs: Any) -> Tensor:  # shape: (D,)
    with model_errors_as_ours(model, *inputs):
        return embedding(model, *inputs).mean(0)


def embedding(model: nn.Module, *inputs: Any) -> Tensor:  # shape: (B, D)
    """What the model's last linear layer reads, found by looking; the output of a model without one."""
    seen: list[tuple[Tensor, Tensor]] = []

    def see(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((args[0], output))

    linears = [m for m in modules_of(model) if isinstance(m, nn.Linear)]
    with as_found(linears):
        for linear in linears:
            linear.register_forward_hook(ThisThreadOnly(see))
        scores = scores_of(model(*inputs))
    read = [x for x, y in seen if y is scores]
    return read[-1] if read else scores.flatten(1)
