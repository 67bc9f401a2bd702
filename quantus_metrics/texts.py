"""Texts as Quantus knows data: one array of token ids, from which the model's attention mask is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from captum_vit.errors import InputError, OptionError
from captum_vit.options import whole
from captum_vit.targets import TargetModule
from quantus_metrics.explain import logits
from quantus_metrics.perturb import FRACTIONS, Curve, Remover, curves, removable_words, target_score

_FRAME = ("pad_token_id", "cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id")


class TextModel(TargetModule):
    """See `wrap_text`.

    Args:
        model: takes ``input_ids`` and ``attention_mask``.
        pad_id: the token that fills short texts up.
        special_ids: tokens that never leave.
    """

    raw_scores = False

    def __init__(self, model: nn.Module, pad_id: int, special_ids: Sequence[int] = ()) -> None:
        super().__init__(model, getattr(model, "tower", None))
        self.pad_id, self.special_ids = pad_id, tuple(special_ids)

    def forward(self, ids: Tensor) -> Tensor:  # shape: (B, T), whole numbers of any type, to (B, n_classes)
        ids = ids.long()
        return logits(self.model(input_ids=ids, attention_mask=(ids != self.pad_id).long()))

    def removable(self, ids: Tensor) -> Tensor:  # shape: (B, T) to the same, bool
        """Which words may leave: neither padding nor the special tokens."""
        return removable_words(ids, ids != self.pad_id, self.special_ids)


def wrap_text(
    model: nn.Module,
    tokenizer: Any = None,
    *,
    pad_id: int | None = None,
    special_ids: Sequence[int] | None = None,
) -> TextModel:
    """A text classifier as a function of token ids (B, T) alone, for metrics of ours and of Quantus.

    Quantus has one array for the inputs and none for the attention mask. So the mask is told from the padding, and
    ``x_batch`` is the array of ids. Quantus's own metrics make floats of them, which are made whole again. Methods of
    `captum_vit` find the transformer inside.

    Args:
        model: a Hugging Face model, or any that takes ``input_ids`` and ``attention_mask``.
        tokenizer: its tokenizer, which tells both of the following.
        pad_id: the token that fills short texts up; it must not stand in a text.
        special_ids: tokens that never leave when words are removed. By default those that frame a text (CLS, SEP,
            begin, end), and none without a tokenizer; an empty tuple lets all of them go.

    Raises:
        OptionError: no padding token, or one that also ends a text, which would then be taken for padding.

    Example:
        >>> model = wrap_text(bert, tokenizer)
        >>> Deletion()(model, ids, labels, explain_func=explain_func(GenAtt))
    """
    frame = [getattr(tokenizer, name, None) for name in _FRAME]
    pad_id = frame[0] if pad_id is None else pad_id
    if pad_id is None or pad_id in frame[1:]:
        raise OptionError(
            "A padding token of its own.",
            f"pad_id {pad_id}, and {frame[1:]} frame a text",
            "pad_id=tokenizer.pad_token_id; add one to a tokenizer that has none.",
        )
    whole("pad_id", pad_id, least=0, hint="pad_id=tokenizer.pad_token_id.")
    kept = [token for token in frame[1:] if token is not None] if special_ids is None else special_ids
    hint = "special_ids=tokenizer.all_special_ids."
    return TextModel(model, pad_id, [whole("special_ids", token, least=0, hint=hint) for token in kept])


def text_model(model: nn.Module) -> TextModel:
    """The `TextModel` in whatever is around it.

    Raises:
        InputError: there is none.
    """
    for module in model.modules():
        if isinstance(module, TextModel):
            return module
    raise InputError(
        "Images (N, C, H, W); or texts (N, T) and a model that knows their padding.",
        f"texts, and {type(model).__name__}",
        "quantus_metrics.wrap_text(model, tokenizer).",
    )


def text_curves(
    model: nn.Module,
    input_ids: Tensor,  # shape: (B, T)
    attention_mask: Tensor | None,  # shape: (B, T), 0 at padding
    target: int | Tensor,  # shape: () or (B,)
    relevance: Tensor,  # shape: (B, T)
    orders: Sequence[str] = ("mif", "lif"),
    *,
    special_ids: Sequence[int] = (),
    remover: Remover | None = None,
    fractions: Sequence[float] = FRACTIONS,
    softmax: bool = False,
    internal_batch_size: int | None = None,
) -> dict[str, Curve]:
    r"""What a model says of texts as more and more of their words are gone.

    `curves` with an attention mask: padding is never chosen, nor are special tokens that are named, and fractions
    are of the words that may leave, text by text. The metrics' functions take it from there::

        found = text_curves(bert, ids, mask, target, relevance, special_ids=(cls_id, sep_id))
        fidelity(found["mif"], found["lif"])
        mif = text_curves(bert, ids, mask, target, relevance, ("mif",), softmax=True)["mif"]
        aopc(mif.scores[:, 0], mif), log_odds(mif.scores[:, 0], mif), deletion_aopc(mif.scores[:, 0], mif)

    Args:
        model: takes the ids and, if there is one, the mask, in this order.
        special_ids: tokens that stay.
        remover: how a word goes away: `DropTokens` by default, `MaskKeys`, or ``ReplaceTokens(mask_token_id)``.
        softmax: read the probability of the target; its score otherwise.

    The other arguments, the cost and the errors are those of `curves`.
    """

    def read(outputs: Tensor, classes: Tensor) -> Tensor:
        return target_score(outputs.softmax(-1) if softmax else outputs, classes)

    return curves(
        model,
        input_ids,
        target,
        relevance,
        orders,
        remover=remover,
        fractions=fractions,
        internal_batch_size=internal_batch_size,
        readout=read,
        args=() if attention_mask is None else (attention_mask,),
        among=removable_words(input_ids, attention_mask, tuple(special_ids)),
    )
