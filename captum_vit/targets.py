"""What is explained, as a forward function: logits, a concept, a text, a margin.

Each is a small module that returns (batch, n_targets), so every method explains it with ``target=k``,
Captum's own included; and each holds the model, so the transformer inside is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import InputError, OptionError, UnsupportedModelError
from captum_vit.models.output import scores_of
from captum_vit.trace.gradient import literal_module
from captum_vit.trace.site import Site


class TargetModule(nn.Module):
    """A forward function around a model. It shares the model and leaves its mode alone.

    ``raw_scores`` says that outputs are not class logits, so no softmax is taken of them; ``tower`` names
    the part to explain where the model holds several transformers.
    """

    raw_scores = True

    def __init__(self, model: nn.Module, tower: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self._towers = (model if tower is None else tower,)  # in a tuple: it names a part, it does not own it

    @property
    def tower(self) -> nn.Module:
        """Where the transformer to explain is looked for."""
        return self._towers[0]


class Logits(TargetModule):
    """The scores of a model as one tensor, whatever object it returns."""

    raw_scores = False

    def forward(self, *inputs: Any) -> Tensor:  # shape: (B, K)
        return scores_of(self.model(*inputs))


def logits_of(model: nn.Module) -> Logits:
    """A forward function that returns the logits tensor, so Captum's own methods explain the model too.

    Example:
        >>> Saliency(logits_of(hugging_face_model)).attribute(pixel_values, target=3)
    """
    return Logits(model)


class FromLayer(TargetModule):
    """The scores as a function of a layer's activation: token space becomes the input space.

    ``forward(activation, *inputs)`` runs the model on its inputs with the activation put in place of the
    layer's own. Captum's infidelity, sensitivity and integrated gradients then work on tokens.
    """

    raw_scores = False

    def __init__(self, model: nn.Module, layer: nn.Module | str) -> None:
        super().__init__(model)
        self.site = Site(literal_module(model, layer), "output")

    def forward(self, activation: Tensor, *inputs: Any) -> Tensor:
        handle = self.site.hook(lambda _: activation)
        try:
            return scores_of(self.model(*inputs))
        finally:
            handle.remove()

    def activation(self, *inputs: Any) -> Tensor:
        """The layer's activation for these inputs, detached: what ``forward`` takes first."""
        seen: list[Tensor] = []
        handle = self.site.hook(lambda x: seen.append(x.detach()))
        try:
            with torch.no_grad():
                self.model(*inputs)
        finally:
            handle.remove()
        return seen[-1]


def from_layer(model: nn.Module, layer: nn.Module | str) -> FromLayer:
    """The model as a function of the output of one of its layers.

    Example:
        >>> f = from_layer(model, "blocks.11.norm1")
        >>> InputXGradient(f).attribute(f.activation(x), target=3, additional_forward_args=(x,))
    """
    return FromLayer(model, layer)


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


def _constant(x: Tensor) -> Tensor:
    """A copy without a graph that a later backward pass may use, also if it was computed in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        return x.clone().detach()


def _checked_similarity(kind: str) -> str:
    if kind not in ("dot", "cosine", "neg_l2"):
        raise OptionError("`similarity` must be 'dot', 'cosine' or 'neg_l2'.", repr(kind))
    return kind


class ConceptSimilarity(TargetModule):
    r"""How near an image's embedding is to each of several concepts.

    .. math:: g_k = \langle l(X), l_k \rangle

    ``l(X)`` is what the model's last linear layer reads (for CLS pooling the CLS token after the final norm),
    or the output itself of a model without a head; ``l_k`` is a concept's embedding.

    Args:
        model: an image or text model.
        embeddings: (K, D), one concept in each row.
        similarity: ``"dot"`` as in the paper, ``"cosine"``, or ``"neg_l2"``.

    Source: the CDAM paper, equations 3 and 4.
    """

    embeddings: Tensor

    def __init__(self, model: nn.Module, embeddings: Tensor, similarity: str = "dot") -> None:
        super().__init__(model)
        if not isinstance(embeddings, Tensor) or embeddings.dim() != 2:
            got = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
            raise InputError("Concept embeddings of shape (K, D).", str(got), "embeddings.unsqueeze(0) for one.")
        self.similarity = _checked_similarity(similarity)
        self.names: list[str] | None = None
        self.register_buffer("embeddings", _constant(embeddings))

    @classmethod
    def from_images(cls, model: nn.Module, images: Mapping[str, Tensor], similarity: str = "dot") -> ConceptSimilarity:
        """Concepts from examples: the mean embedding of each named batch of images, in their order."""
        with torch.no_grad():
            means = [embedding(model, batch).mean(0) for batch in images.values()]
        made = cls(model, torch.stack(means), similarity)
        made.names = list(images)
        return made

    def forward(self, *inputs: Any) -> Tensor:  # shape: (B, K)
        return similarity_to(embedding(self.model, *inputs), self.embeddings, self.similarity)


def embedding(model: nn.Module, *inputs: Any) -> Tensor:  # shape: (B, D)
    """What the model's last linear layer reads, found by looking; the output of a model without one."""
    seen: list[tuple[Tensor, Tensor]] = []

    def see(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((args[0], output))

    handles = [m.register_forward_hook(see) for m in model.modules() if isinstance(m, nn.Linear)]
    try:
        scores = scores_of(model(*inputs))
    finally:
        for handle in handles:
            handle.remove()
    read = [x for x, y in seen if y is scores]
    return read[-1] if read else scores.flatten(1)


class TextSimilarity(TargetModule):
    """Cosine similarity of an image with each of several texts, for CLIP-like models.

    Explains the image side. The texts are encoded once, so they may be of any number and are safe under
    ``NoiseTunnel``, which would mix up a bank of texts given as arguments.

    Args:
        model: a Hugging Face CLIP or SigLIP model (``get_image_features``), or an open_clip model
            (``encode_image``).
        text_embeddings: (K, D), the texts in the joint space.
    """

    text_embeddings: Tensor

    def __init__(self, model: nn.Module, text_embeddings: Tensor) -> None:
        super().__init__(model, _image_tower(model))
        if not isinstance(text_embeddings, Tensor) or text_embeddings.dim() != 2:
            raise InputError(
                "Text embeddings of shape (K, D).",
                type(text_embeddings).__name__,
                "TextSimilarity.from_texts(model, tokenizer, ['a dog', ...]).",
            )
        self.names: list[str] | None = None
        self.register_buffer("text_embeddings", _constant(F.normalize(text_embeddings, dim=-1)))

    @classmethod
    def from_texts(cls, model: Any, tokenizer: Callable[..., Any], texts: list[str]) -> TextSimilarity:
        """Encode the texts with the model's own tokenizer (or processor)."""
        with torch.no_grad():
            if hasattr(model, "get_text_features"):
                tokens = tokenizer(text=texts, return_tensors="pt", padding=True)
                made = cls(model, scores_of(model.get_text_features(**tokens)))
            else:
                made = cls(model, model.encode_text(tokenizer(texts)))
        made.names = list(texts)
        return made

    def forward(self, pixel_values: Tensor) -> Tensor:  # shape: (B, K)
        model: Any = self.model
        encode = getattr(model, "get_image_features", None) or model.encode_image
        image = F.normalize(scores_of(encode(pixel_values)), dim=-1)
        return image @ self.text_embeddings.to(image).T


def _image_tower(model: nn.Module) -> nn.Module:
    tower = getattr(model, "vision_model", getattr(model, "visual", None))
    if not isinstance(tower, nn.Module):
        raise UnsupportedModelError(
            "An image-text model with `vision_model` (Hugging Face) or `visual` (open_clip).",
            type(model).__name__,
            "the full CLIP or SigLIP model, not one of its towers.",
        )
    return tower


class Margin(TargetModule):
    """How much more the model speaks for one class than for another: (B, 1), logit a minus logit b."""

    def __init__(self, model: nn.Module, for_class: int, against_class: int) -> None:
        super().__init__(model)
        self.pair = for_class, against_class

    def forward(self, *inputs: Any) -> Tensor:
        scores = scores_of(self.model(*inputs))
        a, b = self.pair
        return scores[:, a : a + 1] - scores[:, b : b + 1]


class Direction(TargetModule):
    """The outputs along one direction g (K,): (B, 1), the sum of g_k times output k."""

    direction: Tensor

    def __init__(self, model: nn.Module, direction: Tensor) -> None:
        super().__init__(model)
        self.register_buffer("direction", _constant(direction))

    def forward(self, *inputs: Any) -> Tensor:
        scores = scores_of(self.model(*inputs))
        return (scores * self.direction.to(scores)).sum(-1, keepdim=True)


class Scalar(TargetModule):
    """Any function of what the model returns, as (B,) or (B, K) scores."""

    def __init__(self, model: nn.Module, function: Callable[[Any], Tensor]) -> None:
        super().__init__(model)
        self.function = function

    def forward(self, *inputs: Any) -> Tensor:
        scores = self.function(self.model(*inputs))
        return scores.unsqueeze(-1) if scores.dim() == 1 else scores
