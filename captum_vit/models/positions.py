"""How long a text may be: the positions that a model has learned."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_vit.errors import InputError

_TABLES = {"position_embeddings", "position_embedding", "embed_positions", "wpe", "positions_embed"}
_OF_PICTURES = ("vision", "visual")


def most_tokens(model: nn.Module) -> int | None:
    """The longest text that a text model has positions for; None where no table of positions limits it.

    RoBERTa's positions begin behind the number of its padding token, BART's behind an offset.
    """
    limits = [
        _length(module)
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in _TABLES and not any(part in name for part in _OF_PICTURES)
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def _length(table: Any) -> int | None:
    if not isinstance(table, nn.Embedding):
        return None
    reserved = 0 if table.padding_idx is None else table.padding_idx + 1
    return table.num_embeddings - reserved - int(getattr(table, "offset", 0))


def refuse_too_long(model: nn.Module, ids: Any, hint: str = "") -> None:
    """Refuse token ids (B, T) of more tokens than the model has positions; anything else passes.

    Raises:
        InputError: with the number of tokens, and of positions.
    """
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point():
        return
    most = most_tokens(model)
    if most is not None and ids.shape[1] > most:
        raise InputError(
            f"A text of at most {most} tokens, for which {type(model).__name__} has positions.",
            f"{ids.shape[1]} tokens",
            hint
            or f"a shorter text, or the ids of its beginning: tokenizer(text, truncation=True, max_length={most}, "
            'return_tensors="pt")["input_ids"].',
        )
