"""How near an image is to texts, and a text to images, for models that embed both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import InputError, OptionError
from captum_vit.inputs.texts import tokenized, words_of
from captum_vit.models.towers import embed_images, embed_texts, image_tower, text_tower
from captum_vit.options import shown
from captum_vit.targets.scores import TargetModule, constant, refuse_no_texts, same_length, vectors
from captum_vit.trace.run.state import checked_inputs, undisturbed
from captum_vit.trace.run.watch import model_errors_as_ours


class _Similarity(TargetModule):
    """Cosine similarities with a bank of references, less those with what they are set against."""

    names: list[str] | None = None

    def _bank(self, references: Tensor, contrast: Tensor | None, kind: str) -> Tensor:  # shape: (K, D)
        """Unit vectors; differences of two of them where there is a contrast."""
        for given in (references, *([] if contrast is None else [contrast])):
            vectors(f"{kind.capitalize()} embeddings", given, "K, D")
        bank = F.normalize(references, dim=-1)
        if contrast is None:
            return constant(bank)
        _refuse_contrasts(len(contrast), len(references))
        return constant(bank - F.normalize(contrast, dim=-1))


class TextSimilarity(_Similarity):
    r"""Cosine similarity of an image with each of several texts: which patches match this text?

    .. math:: f_k(x) = \cos(e(x), t_k) - \cos(e(x), u_k)

    The second term is there where a contrast is given. Explains the image tower. The texts are encoded once, so
    they may be of any number and are safe under ``NoiseTunnel``, which would mix up a bank of texts that is given
    as an argument.

    Args:
        model: a Hugging Face CLIP or SigLIP model (``get_image_features``), or an open_clip model
            (``encode_image``).
        text_embeddings: (K, D), the texts in the joint space.
        contrast: (1, D) or (K, D), what the texts are set against; patches that match both then cancel.
    """

    text_embeddings: Tensor

    def __init__(self, model: nn.Module, text_embeddings: Tensor, contrast: Tensor | None = None) -> None:
        super().__init__(model, image_tower(model))
        self.register_buffer("text_embeddings", self._bank(text_embeddings, contrast, "text"))

    @classmethod
    def from_texts(
        cls,
        model: nn.Module,
        tokenizer: Callable[..., Any],
        texts: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        contrast: str | Sequence[str] | None = None,
    ) -> TextSimilarity:
        """Encode the texts with the model's own tokenizer (or processor).

        Args:
            model: the image-text model.
            tokenizer: of Hugging Face (or a processor), or of open_clip.
            texts: one target each, in their order; their names in :func:`captum_vit.explain`.
            templates: sentences with ``{}`` in the place of the text, whose unit embeddings are averaged.
            contrast: a text that all are set against, or one for each: "dog" rather than "cat".

        Example:
            >>> TextSimilarity.from_texts(  # doctest: +SKIP
            ...     clip, tokenizer, ["dog"], templates=["a photo of a {}.", "a drawing of a {}."], contrast="cat"
            ... )
        """
        refuse_no_texts("texts", texts)
        if not callable(tokenizer):
            raise OptionError("The model's own tokenizer.", shown(tokenizer), "AutoTokenizer.from_pretrained(...).")
        encode = partial(_embedded, model, tokenizer, templates=templates)
        others = [contrast] if isinstance(contrast, str) else contrast
        if others is not None:
            refuse_no_texts("contrast", others)
            _refuse_contrasts(len(others), len(texts))
        made = cls(model, encode(texts), None if others is None else encode(others))
        made.names = list(texts)
        if others is not None:
            pairs = zip(texts, list(others) * (len(texts) // len(others)), strict=True)
            made.names = [f"{text} rather than {other}" for text, other in pairs]
        return made

    def forward(self, pixel_values: Tensor) -> Tensor:  # shape: (B, K)
        image = F.normalize(embed_images(self.model, pixel_values), dim=-1)
        same_length("a text's embedding", self.text_embeddings, "an image's", image)
        return image @ self.text_embeddings.to(image).T


class ImageSimilarity(_Similarity):
    r"""Cosine similarity of a text with each of several images: which words match this image?

    .. math:: f_k(w) = \cos(t(w), e_k) - \cos(t(w), u_k)

    The other side of :class:`TextSimilarity`: it explains the text tower, word by word. Its arguments are token
    ids (B, T) and, for Hugging Face, an attention mask. SigLIP was trained on texts filled up to 64 tokens, the
    padding unmasked: in such texts padding counts as text.

    Args:
        model: a Hugging Face CLIP or SigLIP model (``get_text_features``), or an open_clip model
            (``encode_text``).
        image_embeddings: (K, D), the images in the joint space.
        contrast: (1, D) or (K, D), what the images are set against.
    """

    image_embeddings: Tensor

    def __init__(self, model: nn.Module, image_embeddings: Tensor, contrast: Tensor | None = None) -> None:
        super().__init__(model, text_tower(model))
        self.register_buffer("image_embeddings", self._bank(image_embeddings, contrast, "image"))

    @classmethod
    def from_images(
        cls, model: nn.Module, images: Tensor | Mapping[str, Tensor], *, contrast: Tensor | None = None
    ) -> ImageSimilarity:
        """Encode preprocessed images.

        Args:
            model: the image-text model.
            images: a batch (K, 3, H, W), one target each; or named batches, each of which counts as the mean of
                its unit embeddings.
            contrast: a batch whose mean all are set against.
        """
        if not isinstance(images, Mapping | Tensor) or not len(images):
            raise InputError("A batch of images, or named batches.", shown(images), '{"dog": images}.')
        groups = list(images.values()) if isinstance(images, Mapping) else list(images.split(1))
        checked = [checked_inputs(batch, model) for batch in (*groups, *(() if contrast is None else (contrast,)))]
        with undisturbed(model):
            bank = torch.stack([_mean_direction(_embedded_images(model, *batch)) for batch in checked])
        bank, against = (bank, None) if contrast is None else (bank[:-1], bank[-1:])
        made = cls(model, bank, against)
        made.names = list(images) if isinstance(images, Mapping) else None
        return made

    def real_words(self, input_ids: Tensor, *args: Any) -> Tensor | None:  # shape: (B, T)
        """Which tokens are text where there is no mask; None if that is not known."""
        return words_of(self.model, input_ids)

    def forward(self, input_ids: Tensor, *args: Any) -> Tensor:  # shape: (B, K)
        text = F.normalize(embed_texts(self.model, input_ids, *args), dim=-1)
        same_length("an image's embedding", self.image_embeddings, "a text's", text)
        return text @ self.image_embeddings.to(text).T


def _refuse_contrasts(n: int, references: int) -> None:
    if n not in (1, references):
        raise InputError(f"One contrast, or one for each of {references}.", f"{n}", "one that all are set against.")


def _embedded(
    model: nn.Module, tokenizer: Callable[..., Any], texts: Sequence[str], templates: Sequence[str] | None
) -> Tensor:  # shape: (K, D)
    """Each text's direction, averaged over the templates."""
    for template in [templates] if isinstance(templates, str) else templates or ():
        if not isinstance(template, str) or "{}" not in template:
            raise OptionError("Templates with {} in the place of the text.", repr(template), "'a photo of a {}.'")
    sentences = [t.replace("{}", text) for text in texts for t in templates or ("{}",)]
    with torch.no_grad():
        found = embed_texts(model, *tokenized(model, tokenizer, sentences))
    return torch.stack([_mean_direction(group) for group in found.unflatten(0, (len(texts), -1))])


def _embedded_images(model: nn.Module, pixels: Tensor) -> Tensor:  # shape: (n, D)
    with model_errors_as_ours(image_tower(model), pixels):
        return embed_images(model, pixels)


def _mean_direction(embeddings: Tensor) -> Tensor:  # (n, D) -> (D,)
    """The mean of unit vectors."""
    return F.normalize(embeddings, dim=-1).mean(0)
