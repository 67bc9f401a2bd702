"""Texts as Quantus knows data: one array of token ids, from which masks and token types are derived."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captum_vit.errors import InputError, OptionError, PaddingWarning
from captum_vit.inputs.texts import arguments_with_types, has_token_types, second_text
from captum_vit.models.library import text_config
from captum_vit.models.output import probability_of
from captum_vit.options import integer, integer_or_none
from captum_vit.targets import TargetModule
from quantus_metrics.bridge import class_probabilities, logits
from quantus_metrics.perturb import FRACTIONS, Curve, Remover, curves, removable_words, target_score

_FRAME = ("pad_token_id", "cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id")


class TextModel(TargetModule):
    """See `wrap_text`.

    Args:
        model: takes ``input_ids`` and ``attention_mask``.
        pad_id: the token that fills short texts up.
        special_ids: tokens that never leave.
        sep_id: the token that ends each text of a pair; None if that is not known.
        typed: whether the model wants to know which text of a pair each token belongs to.
    """

    raw_scores = False

    def __init__(
        self,
        model: nn.Module,
        pad_id: int,
        special_ids: Sequence[int] = (),
        sep_id: int | None = None,
        typed: bool | None = None,
    ) -> None:
        super().__init__(model, getattr(model, "tower", None))
        self.pad_id, self.special_ids, self.sep_id = pad_id, tuple(special_ids), sep_id
        self.typed = has_token_types(model) if typed is None else typed

    def forward(self, ids: Tensor) -> Tensor:  # shape: (B, T), whole numbers of any type, to (B, n_classes)
        ids = ids.long()
        real = ids != self.pad_id
        types: dict[str, Tensor] = {"token_type_ids": self._types(ids, real)} if self.typed else {}
        return logits(self.model(input_ids=ids, attention_mask=real.long(), **types))

    def _types(self, ids: Tensor, real: Tensor) -> Tensor:  # shape: (B, T)
        """0 in the first text and 1 in the second, as the tokenizer numbers them; the separator ends its text."""
        if self.sep_id is None:
            _refuse_pairs(ids, real, self.special_ids, "sep_id=tokenizer.sep_token_id, or the tokenizer itself.")
            return torch.zeros_like(ids)
        second = second_text(ids, self.sep_id) & real
        if bool(second.any()) and self.sep_id not in self.special_ids:
            hint = "special_ids that hold it, as they do by default."
            raise InputError(
                "Pairs of texts whose separator stays.", f"sep_id {self.sep_id}, which may be removed", hint
            )
        return second.long()

    def removable(self, ids: Tensor) -> Tensor:  # shape: (B, T) to the same, bool
        """Which words may leave: neither padding nor the special tokens."""
        return removable_words(ids, ids != self.pad_id, self.special_ids)


def wrap_text(
    model: nn.Module,
    tokenizer: Any = None,
    *,
    pad_id: int | None = None,
    special_ids: Sequence[int] | None = None,
    sep_id: int | None = None,
) -> TextModel:
    """A text classifier as a function of only token ids (B, T), for metrics of ours and of Quantus.

    Quantus has one array for the inputs and none for the attention mask. So the mask is made from the padding, and
    ``x_batch`` is the array of ids. Quantus's own metrics make floats of them, which are made whole again. Methods of
    `captum_vit` find the transformer inside.

    A model that distinguishes the texts of a pair (``type_vocab_size`` above 1: BERT, ELECTRA, ALBERT) gets its
    ``token_type_ids`` too: 1 behind the first separator, which is how its tokenizer numbers a pair. Pairs
    that a tokenizer numbers otherwise are refused.

    Args:
        model: a Hugging Face model, or any that takes ``input_ids`` and ``attention_mask``.
        tokenizer: its tokenizer, which holds all of the following.
        pad_id: the token that fills short texts up; it must not stand in a text.
        special_ids: tokens that never leave when words are removed. By default those that frame a text (CLS, SEP,
            begin, end), and none without a tokenizer; an empty tuple lets all of them go.
        sep_id: the token that ends each text of a pair.

    Warns:
        PaddingWarning: `pad_id` is not the model's own padding token, which would then be read as text.

    Raises:
        OptionError: no padding token, or one that also ends a text, which would then be taken for padding.
        InputError: when it is run, a pair of texts whose token types cannot be known.

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
    integer("pad_id", pad_id, least=0, hint="pad_id=tokenizer.pad_token_id.")
    kept = [token for token in frame[1:] if token is not None] if special_ids is None else special_ids
    hint = "special_ids=tokenizer.all_special_ids."
    kept = [integer("special_ids", token, least=0, hint=hint) for token in kept]
    sep_id = integer_or_none("sep_id", frame[2] if sep_id is None else sep_id, least=0, hint="tokenizer.sep_token_id.")
    own = getattr(text_config(model), "pad_token_id", None) if isinstance(model, nn.Module) else None
    if own not in (None, pad_id):
        warnings.warn(
            f"The model's own padding token is {own}, not {pad_id}: texts filled up with {own} are read to their end.",
            PaddingWarning,
            stacklevel=2,
        )
    if not isinstance(model, nn.Module) or not has_token_types(model) or not callable(tokenizer):
        return TextModel(model, pad_id, kept, sep_id)
    return TextModel(model, pad_id, kept, *_numbered(tokenizer, sep_id))


def _numbered(tokenizer: Any, sep_id: int | None) -> tuple[int | None, bool]:
    """The separator by which this tokenizer numbers pairs, None if there is none; whether it numbers them at all."""
    pair = tokenizer(["a"], ["a"], return_tensors="pt")
    if "token_type_ids" not in pair:
        return None, False
    followed = sep_id is not None and torch.equal(
        second_text(pair["input_ids"], sep_id).long(), pair["token_type_ids"].long()
    )
    return (sep_id if followed else None), True


def _refuse_pairs(ids: Tensor, real: Tensor, special_ids: Sequence[int], hint: str) -> None:
    """Rows whose last token frames texts and stands before too: two texts, whose token types are not known."""
    last = ids.gather(1, (real.long() * torch.arange(ids.shape[1], device=ids.device)).argmax(1, keepdim=True))
    frames = torch.isin(last, torch.tensor(special_ids, dtype=ids.dtype, device=ids.device))
    pairs = (((ids == last) & real).sum(1, keepdim=True) > 1) & frames
    if bool(pairs.any()):
        rows = ", ".join(map(str, pairs[:, 0].nonzero().flatten().tolist()[:8]))
        raise InputError("One text in each row, or pairs whose token types are known.", f"two in rows {rows}", hint)


def text_model(model: nn.Module) -> TextModel:
    """The `TextModel` in whatever is around it.

    Raises:
        InputError: there is none.
    """
    for module in model.modules():
        if isinstance(module, TextModel):
            return module
    raise InputError(
        "Images (N, C, H, W); or texts (N, T) and a model of qm.wrap_text.",
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
    token_type_ids: Tensor | None = None,  # shape: (B, T)
    special_ids: Sequence[int] = (),
    remover: Remover | None = None,
    fractions: Sequence[float] = FRACTIONS,
    softmax: bool = False,
    internal_batch_size: int | None = None,
) -> dict[str, Curve]:
    r"""A model's scores of texts as more and more of their words are gone.

    `curves` with an attention mask: padding is never chosen, nor are special tokens that are named, and fractions
    are of the words that may leave, text by text. The metrics' functions take it from there::

        found = text_curves(bert, ids, mask, target, relevance, special_ids=(cls_id, sep_id))
        fidelity(found["mif"], found["lif"])
        mif = text_curves(bert, ids, mask, target, relevance, ("mif",), softmax=True)["mif"]
        aopc(mif.scores[:, 0], mif), log_odds(mif.scores[:, 0], mif), deletion_aopc(mif.scores[:, 0], mif)

    Args:
        model: takes the ids and, if there is one, the mask, in this order.
        token_type_ids: which text of a pair each token belongs to, for models that distinguish them.
        special_ids: tokens that stay.
        remover: how a word goes away: `DropTokens` by default, `MaskKeys`, or ``ReplaceTokens(mask_token_id)``.
        softmax: read the probability of the target (of a multi-label model a sigmoid); its score otherwise.

    The other arguments, the cost and the errors are those of `curves`.

    Raises:
        InputError: two texts in a row (its last token is one of `special_ids` and stands before too), without the
            `token_type_ids` by which the model distinguishes them.
        OptionError: `token_type_ids` for a model that takes none.
    """
    among = removable_words(input_ids, attention_mask, tuple(special_ids))
    args: tuple[Any, ...] = () if attention_mask is None else (attention_mask,)
    if token_type_ids is not None:
        args = _typed(model, input_ids, attention_mask, token_type_ids)
    elif isinstance(model, nn.Module) and not isinstance(model, TextModel) and has_token_types(model):
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hint = 'token_type_ids=tokenizer(texts, others, return_tensors="pt")["token_type_ids"].'
        _refuse_pairs(input_ids, real.bool(), special_ids, hint)

    made_by = probability_of(model) if isinstance(model, nn.Module) else "softmax"

    def read(outputs: Tensor, classes: Tensor) -> Tensor:
        return target_score(class_probabilities(outputs, made_by) if softmax else outputs, classes)

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
        args=args,
        among=among,
    )


def _typed(model: nn.Module, ids: Tensor, mask: Tensor | None, types: Tensor) -> tuple[Any, ...]:
    """The arguments behind the ids, token types at their place."""
    if types.shape != ids.shape:
        wanted = f"Token types of the ids' shape {tuple(ids.shape)}."
        raise InputError(wanted, f"shape {tuple(types.shape)}", "the ones that the tokenizer gave with these ids.")
    known = {"attention_mask": torch.ones_like(ids) if mask is None else mask, "token_type_ids": types}
    args = arguments_with_types(model, known)
    if not args:
        hint = "token_type_ids=None; its separators alone tell the two texts apart."
        raise OptionError("A model that takes token types.", type(model).__name__, hint)
    return args
