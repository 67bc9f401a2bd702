"""Which word each token of a text stands for: found by putting other words in and seeing who moves."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_vit.errors import UnsupportedModelError
from captum_vit.models.library import placeholders_of
from captum_vit.trace.layout.embedding import Embedding
from captum_vit.trace.layout.reach import moved

NEAR = 0.25  # of the farthest move of any token


def depend_in_order(
    embedding: Embedding,
    real: Tensor | None,  # shape: (T,), words that are no padding; None: all
) -> bool:
    """Whether tokens depend on these words at all; refused where token i does not stand for word i.

    Costs the embedding of 2 log2 T + 1 rows: word i is another one in the rows of its binary digits. Where tokens read
    other words too, such as neighbours, or separators that begin another segment, that of one row for each word: its
    own token must move about as far as any.

    Raises:
        UnsupportedModelError: another token moves.
    """
    shape = embedding.sample.shape  # of a choice, (1, 1, T)
    ids = embedding.sample.flatten(1)
    words = torch.arange(ids.shape[1], device=ids.device)[slice(None) if real is None else real]
    words = words[
        ~torch.isin(ids[0, words], ids.new_tensor([*placeholders_of(embedding.model)]))
    ]  # pictures stay theirs
    digits = range(max(1, int(words.max()).bit_length()))
    numbers, others = torch.arange(ids.shape[1], device=ids.device), _others(ids, words)
    is_real = torch.isin(numbers, words)
    changes = [is_real & (numbers >> digit & 1 == bit) for bit in (1, 0) for digit in digits]
    rows = [ids, *(torch.where(some, others, ids) for some in changes)]
    tokens = embedding.in_portions([row.view(shape) for row in rows])
    reached = moved(tokens[1:] - tokens[:1], tokens[:1])
    if not reached.any():
        return False
    if tokens.shape[1] < ids.shape[1]:
        raise UnsupportedModelError(
            "A token for each word, in the order of the words.",
            f"{tokens.shape[1]} tokens for {ids.shape[1]} words",
            "a method that reads only one of the first blocks, such as DecompX, or LayerCDAM with layer=0.",
        )
    seen = reached[:, words]  # shape: (2 log2 T, T)
    with_digit, without = seen.chunk(2)
    if (with_digit ^ without).all() and torch.equal(_number(with_digit), words):
        return True
    if not seen.any():
        return False
    rows = [ids, *(torch.where(numbers == word, others, ids) for word in words)]
    singly = embedding.in_portions([row.view(shape) for row in rows])
    far = (singly[1:] - singly[:1]).norm(dim=-1)  # shape: (T, N)
    own, farthest = far.gather(1, words[:, None]).squeeze(1), far.argmax(1)
    wrong = (own < NEAR * far.amax(1)).nonzero().flatten()
    if len(wrong):
        i = int(wrong[0])
        raise UnsupportedModelError(
            "A token for each word, in the order of the words.",
            f"a change of word {int(words[i])} that moves token {int(farthest[i])} most",
            "a model that embeds words one by one.",
        )
    return True


def _others(ids: Tensor, words: Tensor) -> Tensor:  # shape: (1, T)
    """For each word another id, of the same text where it has several; else a small one, and no padding (0, 1)."""
    known = ids[0, words]
    one = known[len(known) // 2]
    rest = known[known != one]
    other = rest[len(rest) // 2] if len(rest) else torch.where(one > 3, one // 2, one + 2)
    return torch.where(ids == one, other, one)


def _number(digits: Tensor) -> Tensor:  # shape: (log2 T, T) -> (T,)
    return sum((row.long() << k for k, row in enumerate(digits)), torch.zeros_like(digits[0], dtype=torch.long))
