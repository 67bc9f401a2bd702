"""Scores of the model itself: its logits, as a function of a layer, a margin, a direction, any function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError, LayerError, TargetError, UnsupportedModelError
from captum_vit.models.library import n_outputs
from captum_vit.models.output import scores_of
from captum_vit.options import function as checked_function
from captum_vit.options import integer, shown
from captum_vit.sites.site import Site
from captum_vit.trace.run.found import as_found
from captum_vit.trace.run.layers import literal_module
from captum_vit.trace.run.watch import model_errors_as_ours


class TargetModule(nn.Module):
    """A forward function around a model. It shares the model and does not change its mode.

    ``raw_scores`` means that outputs are not class logits, so no probability is made of them; ``problem_type`` is
    what they are where that is not the model's own business, in the words of Hugging Face's configurations; ``tower``
    names the part to explain where the model holds several transformers; ``one_head`` means that outputs are those of
    one head on several tokens, so that its output for any other token is known.
    """

    raw_scores = True
    one_head = False
    problem_type: str | None = None

    def __init__(self, model: nn.Module, tower: nn.Module | None = None) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            wanted = f"The model that {type(self).__name__} explains, an `nn.Module`."
            raise UnsupportedModelError(wanted, shown(model), "a small `nn.Module` that does what your function does.")
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
        with as_found([self.site.module]):
            self.site.hook(lambda _: activation)
            return scores_of(self.model(*inputs))

    def activation(self, *inputs: Any) -> Tensor:
        """The layer's activation for these inputs, detached: what ``forward`` takes first."""
        seen: list[Tensor] = []
        with as_found([self.site.module]), torch.no_grad(), model_errors_as_ours(self.model, *inputs):
            self.site.hook(lambda x: seen.append(x.detach()))
            self.model(*inputs)
        if not seen:
            name = type(self.site.module).__name__
            raise LayerError("A layer that runs when the model does.", f"{name}, which did not", "a block or its norm.")
        return seen[-1]


def from_layer(model: nn.Module, layer: nn.Module | str) -> FromLayer:
    """The model as a function of the output of one of its layers.

    Example:
        >>> f = from_layer(model, "blocks.11.norm1")
        >>> InputXGradient(f).attribute(f.activation(x), target=3, additional_forward_args=(x,))
    """
    return FromLayer(model, layer)


def vectors(what: str, given: Any, shape: str) -> Tensor:
    """The tensor, if it has as many dimensions as ``shape`` has letters, is finite and not empty."""
    letters = shape.split(", ")
    if not isinstance(given, Tensor) or given.dim() != len(letters) or not given.numel():
        got = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        hint = "x.unsqueeze(0) for one." if len(letters) == 2 else "x.flatten()."
        raise InputError(f"{what} of shape ({shape}).", got, hint)
    if not given.isfinite().all():
        raise InputError(f"{what} that is finite.", "NaN or infinite values", "looking at the inputs it was made of.")
    return given


def refuse_no_texts(name: str, texts: Any) -> None:
    """Refuse what is no list of texts, and texts without words."""
    listed = isinstance(texts, Sequence) and not isinstance(texts, str) and len(texts) > 0
    if not listed or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(f"`{name}` must be a list of texts, with words in each.", shown(texts), '["a dog", "a cat"].')


def same_length(what: str, given: Tensor, other: str, scores: Tensor) -> None:
    """Refuse vectors of another space, which broadcasting would take for a number."""
    if given.shape[-1] != scores.shape[-1]:
        got = f"{given.shape[-1]} and {scores.shape[-1]}"
        raise InputError(f"As many numbers in {what} as in {other}.", got, "one that was made with this very model.")


def constant(x: Tensor) -> Tensor:
    """A copy without a graph that a later backward pass may use, also if it was computed in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        return x.clone().detach()


class Margin(TargetModule):
    """By how much the model prefers one class to another: (B, 1), logit a minus logit b."""

    def __init__(self, model: nn.Module, for_class: int, against_class: int) -> None:
        super().__init__(model)
        self.pair = tuple(
            integer(name, given, least=0, hint=f"{name}=0, the number of a class.")
            for name, given in (("for_class", for_class), ("against_class", against_class))
        )
        known = n_outputs(model)
        self._refuse(math.inf if known is None else known)

    def forward(self, *inputs: Any) -> Tensor:
        scores = scores_of(self.model(*inputs))
        self._refuse(scores.shape[-1])
        a, b = self.pair
        return scores[:, a : a + 1] - scores[:, b : b + 1]

    def _refuse(self, n: float) -> None:
        a, b = self.pair
        if a == b or max(a, b) >= n:
            below = f" below {n}" if math.isfinite(n) else ""
            raise TargetError(f"Two different classes{below}.", f"{a} and {b}", "Margin(model, 0, 1).")


class Direction(TargetModule):
    """The outputs along one direction g (K,): (B, 1), the sum of g_k times output k.

    For models without a class head: what of the image moves its embedding towards g, which may be the row of a head
    trained elsewhere, the difference of two groups' mean embeddings, or a principal component.

    Example:
        >>> encoder = timm.create_model("vit_small_patch14_dinov2", pretrained=True, num_classes=0)  # doctest: +SKIP
        >>> g = encoder(tumours).mean(0) - encoder(others).mean(0)  # doctest: +SKIP
        >>> GenAtt(Direction(encoder, g)).attribute(images)  # doctest: +SKIP
    """

    direction: Tensor

    def __init__(self, model: nn.Module, direction: Tensor) -> None:
        super().__init__(model)
        self.register_buffer("direction", constant(vectors("A direction", direction, "K")))

    def forward(self, *inputs: Any) -> Tensor:
        scores = scores_of(self.model(*inputs))
        same_length("a direction", self.direction, "the model's outputs", scores)
        return (scores * self.direction.to(scores)).sum(-1, keepdim=True)


class Scalar(TargetModule):
    """Any function of what the model returns, as (B,) or (B, K) scores.

    For whatever is no class: the likeness to a query (retrieval), a bag's score (multiple instances), a risk or the
    chance to survive an interval, one field of a model's own output.

    Example:
        >>> match = Scalar(encoder, lambda said: F.cosine_similarity(said.pooler_output, query))  # doctest: +SKIP
        >>> LayerCDAM(match).attribute(images)  # doctest: +SKIP
        >>> risk = Scalar(model, lambda hazards: hazards.exp().cumsum(1))  # doctest: +SKIP
        >>> LayerCDAM(risk).attribute(images, target=4)  # doctest: +SKIP
    """

    def __init__(self, model: nn.Module, function: Callable[[Any], Tensor]) -> None:
        super().__init__(model)
        self.function = checked_function("function", function, hint="lambda output: output[:, 0].")

    def forward(self, *inputs: Any) -> Tensor:
        scores = self.function(self.model(*inputs))
        if not isinstance(scores, Tensor) or scores.dim() == 0:
            got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else shown(scores)
            raise TargetError("A function that gives (B,) or (B, K) scores.", got, "no sum over the batch, no .item().")
        return scores.unsqueeze(-1) if scores.dim() == 1 else scores


class AnswerSpan(TargetModule):
    """Where an answer starts and ends, for question answering: (B, T, 2), the two logits of each token.

    ``target=(position, 0)`` explains why the answer starts at that token, ``(position, 1)`` why it ends there; a
    list of such pairs has one for each sample.

    Example:
        >>> LayerCDAM(AnswerSpan(model)).attribute(ids, (17, 0), (mask, token_type_ids))  # doctest: +SKIP
    """

    names = ("start", "end")

    def forward(self, *inputs: Any) -> Tensor:  # shape: (B, T, 2)
        said = self.model(*inputs)
        if not hasattr(said, "start_logits"):
            wanted = "A model for question answering, with start and end logits."
            raise UnsupportedModelError(wanted, type(said).__name__, "the model itself, with target=k.")
        return torch.stack([said.start_logits, said.end_logits], -1)
