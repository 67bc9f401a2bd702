"""How near a text is to other texts, for encoders that give one state for each token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import InputError, OptionError, UnsupportedModelError
from captum_vit.inputs.padding import padding_of
from captum_vit.models.positions import refuse_too_long
from captum_vit.options import one_of, shown
from captum_vit.targets.scores import TargetModule, constant, refuse_no_texts, same_length, vectors
from captum_vit.trace.run.state import undisturbed
from captum_vit.trace.run.watch import model_errors_as_ours

POOLINGS = ("mean", "cls")
_TOKENIZER = "AutoTokenizer.from_pretrained(...), of the folder that holds the model."
_MASK = "the attention mask that the tokenizer gave with these ids, as the second argument."


class SentenceSimilarity(TargetModule):
    r"""Cosine similarity of a text with each of several texts: which words make it mean the same?

    .. math:: f_k(w) = \cos(e(w), e_k), \qquad e(w) = \frac{\sum_t m_t h_t(w)}{\sum_t m_t}

    :math:`h_t` is the encoder's last hidden state of token t and :math:`m_t` the attention mask, so e is the
    sentence embedding of sentence-transformers with mean pooling. Its arguments are token ids (B, T) and the attention
    mask (B, T), then whatever else the encoder takes; without a mask every token counts. Padding changes nothing.
    One forward pass of the encoder for each call. The difference of two similarities is `Margin(similarity, 0, 1)`.

    Args:
        model: a text encoder whose output has a ``last_hidden_state`` (B, T, D): ``AutoModel`` of Hugging Face.
        text_embeddings: (K, D), the texts to compare with, in the space of e; of any length above 0.
        pooling: ``"mean"`` over the tokens that the mask keeps, or ``"cls"``, the first of them.

    Raises:
        InputError: in the forward, a mask of another shape, or of other numbers than 0 and 1, or padding without a
            mask, over which the mean would run.
        UnsupportedModelError: in the forward, a model whose output has no such hidden state.

    Source: Sentence-BERT (Reimers and Gurevych, 2019), its mean pooling.

    Example:
        >>> near = SentenceSimilarity.from_texts(encoder, tokenizer, ["The cat naps."])  # doctest: +SKIP
        >>> PLUS(DecompX(near)).attribute(input_ids, 0, attention_mask)  # doctest: +SKIP
        >>> explain(near, "A kitten sleeps, and it rains.", words=True)  # doctest: +SKIP
    """

    text_embeddings: Tensor
    names: list[str] | None = None

    def __init__(self, model: nn.Module, text_embeddings: Tensor, pooling: str = "mean") -> None:
        super().__init__(model)
        self.pooling = one_of("pooling", pooling, POOLINGS)
        bank = vectors("Text embeddings", text_embeddings, "K, D")
        self.register_buffer("text_embeddings", constant(F.normalize(bank, dim=-1)))

    @classmethod
    def from_texts(
        cls, model: nn.Module, tokenizer: Callable[..., Any], texts: Sequence[str], *, pooling: str = "mean"
    ) -> SentenceSimilarity:
        """Encode the texts once, in one forward pass without a graph; the model is left as found.

        Args:
            model: the text encoder, in evaluation mode.
            tokenizer: its tokenizer of Hugging Face.
            texts: one target each, in their order; their names in :func:`captum_vit.explain`.
            pooling: as above.

        Raises:
            InputError: no texts, an empty one, or one longer than the model's positions.
            OptionError: no tokenizer, or one that gives several texts no attention mask.
            ModelStateError: a model in training mode.
            UnsupportedModelError: a model whose output has no ``last_hidden_state``.
        """
        refuse_no_texts("texts", texts)
        one_of("pooling", pooling, POOLINGS)
        if not callable(tokenizer):
            raise OptionError("The model's own tokenizer.", shown(tokenizer), _TOKENIZER)
        TargetModule(model)  # refuses what is no model
        with undisturbed(model):
            inputs = _tokenized(model, tokenizer, texts)
            with model_errors_as_ours(model, *inputs):
                made = cls(model, embed_sentences(model, *inputs, pooling=pooling), pooling)
        made.names = list(texts)
        return made

    def forward(  # shape: (B, K)
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        found = embed_sentences(self.model, input_ids, attention_mask, *args, pooling=self.pooling, **kwargs)
        same_length("a text's embedding", self.text_embeddings, "a hidden state", found)
        return F.normalize(found, dim=-1) @ self.text_embeddings.to(found).T


def embed_sentences(
    model: nn.Module,
    ids: Tensor,  # shape: (B, T)
    mask: Tensor | None = None,  # shape: (B, T)
    *args: Any,
    pooling: str = "mean",
    **kwargs: Any,
) -> Tensor:  # shape: (B, D)
    """Each text's embedding, of any length: the mean of its tokens' last hidden states, or its first token's."""
    _refuse_mask(model, ids, mask)
    states = _states(model(ids, mask, *args, **kwargs), ids)
    keep = torch.ones_like(ids) if mask is None else mask
    if pooling == "cls":
        return states[torch.arange(len(ids), device=ids.device), keep.long().argmax(1)]
    keep = keep.to(states).unsqueeze(-1)
    return (states * keep).sum(1) / keep.sum(1).clamp(min=1)


def _states(output: Any, ids: Tensor) -> Tensor:  # shape: (B, T, D)
    """The last hidden state, one for each token."""
    states = getattr(output, "last_hidden_state", None)
    if isinstance(states, Tensor) and states.dim() == 3 and states.shape[:2] == ids.shape:
        return states
    got = type(output).__name__ if states is None else f"states of {tuple(states.shape)} for ids of {tuple(ids.shape)}"
    hint = "only the encoder: AutoModel.from_pretrained(...), or sentence_transformer[0].auto_model."
    raise UnsupportedModelError("An encoder whose output has a `last_hidden_state` for each token.", got, hint)


def _refuse_mask(model: nn.Module, ids: Tensor, mask: Tensor | None) -> None:
    """A mask that does not fit, or none where a mean would take padding in."""
    if ids.dim() != 2 or ids.is_floating_point():
        raise InputError("Token ids (B, T).", f"{tuple(ids.shape)} of {ids.dtype}", 'tokenizer(...)["input_ids"].')
    if mask is None and padding_of(model, ids) is not None:
        raise InputError("A mask that marks which tokens are text.", "ids with padding, and no mask", _MASK)
    if mask is not None and mask.shape != ids.shape:
        wanted = f"An attention mask of shape {tuple(ids.shape)}, as the ids."
        raise InputError(wanted, f"shape {tuple(mask.shape)}", _MASK)
    if mask is not None and not bool(((mask == 0) | (mask == 1)).all()):
        other = mask[(mask != 0) & (mask != 1)][0].item()
        raise InputError("An attention mask of ones, for text, and zeros.", f"one that holds {other:g}", _MASK)


def _tokenized(model: nn.Module, tokenizer: Callable[..., Any], texts: Sequence[str]) -> tuple[Tensor, ...]:
    """Ids (K, T) and mask (K, T), on the model's device."""
    encoded = tokenizer(list(texts), return_tensors="pt", padding=len(texts) > 1)
    missing = [name for name in ("input_ids", "attention_mask") if name not in encoded]
    if missing:
        raise OptionError("A tokenizer that gives ids and their attention mask.", f"no {missing[0]}", _TOKENIZER)
    device = next(model.parameters()).device
    refuse_too_long(model, encoded["input_ids"])
    return encoded["input_ids"].to(device), encoded["attention_mask"].to(device)
