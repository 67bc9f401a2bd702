"""Reviews as a model reads them, and relevance of word pieces as relevance of words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from captum_vit.demo.reviews.reviews import Reviews
from captum_vit.errors import InputError

if TYPE_CHECKING:
    from transformers import BertTokenizer

FRAME = -1  # the word of tokens that are of none: [CLS], [SEP], [PAD]


@dataclass(frozen=True)
class Read:
    """A padded batch of reviews; T tokens, W words in the longest."""

    ids: Tensor  # shape: (B, T)
    mask: Tensor  # shape: (B, T), 1 where there is a token
    word: Tensor  # shape: (B, T), which word a token is a piece of; -1 for none
    rationale: Tensor  # shape: (B, W), bool
    present: Tensor  # shape: (B, W), bool, False behind the end of a shorter review

    def first(self, n: int) -> Read:
        """The first n reviews."""
        return Read(self.ids[:n], self.mask[:n], self.word[:n], self.rationale[:n], self.present[:n])

    def by_word(
        self,
        relevance: Tensor,  # shape: (B, T)
    ) -> Tensor:  # shape: (B, W)
        """The relevance of each word, the sum of its pieces'; 0 behind the end of a review."""
        of_words = relevance.new_zeros(len(relevance), 1 + self.present.shape[1])
        return of_words.scatter_add(1, self.word + 1, relevance)[:, 1:]

    def points_at_rationale(
        self,
        relevance: Tensor,  # shape: (B, T)
    ) -> Tensor:  # shape: (B,), bool
        """Whether the most relevant word is of the rationale. Marks of punctuation count as words."""
        top = self.by_word(relevance).masked_fill(~self.present, -torch.inf).argmax(1, keepdim=True)
        return self.rationale.gather(1, top).squeeze(1)


def read(reviews: Reviews, tokenizer: BertTokenizer) -> Read:
    """Cut reviews into word pieces and pad them.

    Raises:
        ValueError: a tokenizer that cuts words otherwise than the reviews do.
    """
    encoded = tokenizer(reviews.texts, padding=True, return_tensors="pt")
    word = [[FRAME if of is None else of for of in encoded.word_ids(i)] for i in range(len(reviews))]
    wanted = [len(words) for words in reviews.words]
    if (found := [1 + max(row) for row in word]) != wanted:
        hint = "the tokenizer of the model that reads the reviews."
        raise InputError(f"A tokenizer of the BERT kind, which finds {wanted} words.", f"{found} words", hint)
    rows = [torch.tensor(decides) for decides in reviews.rationale]
    rationale = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    present = torch.arange(rationale.shape[1]) < torch.tensor(wanted)[:, None]
    return Read(encoded["input_ids"], encoded["attention_mask"], torch.tensor(word), rationale, present)
