"""Facts in sentences and a question about one of them: it is known which words decide the answer.

``It is tart. It is huge. It is irate. It is ruby. Its taste is`` goes on with ``sour``, because of ``tart`` and because
the question is for the ``taste``. Kinds, words, sentences and the split were fixed before the first training.

The split is by pairs of words. Of the pairs of words of two kinds one in five is held out
(:func:`captum_vit.demo.facts.words.held_out`): none is in a training text, and in each test text the word that decides
and another word are such a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from random import Random

import torch
from torch import Tensor

from captum_vit.demo.facts.words import KINDS, MEANING, VALUES, WORDS, held_out
from captum_vit.errors import OptionError
from captum_vit.options import integer, one_of

SPLITS = ("train", "test")
SWAPS = ("evidence", "synonym", "rest", "question")


@dataclass(frozen=True)
class Facts:
    """A batch of prompts and what is true of them; all have the same number of words."""

    prompts: list[str]
    answers: list[str]  # of each prompt, the word that goes on with it
    words: list[list[str]]  # of each prompt; marks of punctuation count as words
    evidence: Tensor  # shape: (B,), the place among the words of the fact that is asked for: "tart"
    asked: Tensor  # shape: (B,), the place of the kind that is asked for: "taste"
    n_facts: int

    @property
    def in_facts(self) -> int:
        """How many words the facts have, marks of punctuation among them; they stand first."""
        return 4 * self.n_facts

    def __len__(self) -> int:
        return len(self.prompts)


def stated_facts(
    n: int,
    split: str = "test",
    seed: int = 0,
    *,
    n_facts: int = 4,
    answered: int = 0,
    swap: str | None = None,
) -> Facts:
    """Draw prompts; the same arguments give the same prompts, and no global random state is touched.

    Args:
        n: how many.
        split: ``"train"`` or ``"test"``: which pairs of words they are made of.
        seed: of the private generators.
        n_facts: facts of each, 2 to 4, of different kinds.
        answered: questions with their answers that stand before the open one, each of another kind.
        swap: write one part anew and leave all else as it was. ``"evidence"``: a word of another value in place of the
            one that decides; the answer is then that value. ``"synonym"``: another word of the same value in its place.
            ``"rest"``: words of other values in place of all others; the answer stays. ``"question"``: asks for
            another kind; the answer is then the value of that. What a model then answers differently is what that part
            did, known without any method of explanation. A swapped text may hold any pair of words.

    Raises:
        OptionError: a split or a swap that there is not, more questions than facts.

    Example::

        >>> found = stated_facts(1, seed=3)
        >>> found.prompts[0]
        'It is briny. It is tiny. It is peaceful. It is crimson. Its colour is'
        >>> found.answers[0], found.words[0][found.evidence[0]]
        ('red', 'crimson')
    """
    integer("n", n, hint="n=20.")
    one_of("split", split, SPLITS)
    if swap is not None:
        one_of("swap", swap, SWAPS)
    if not 2 <= integer("n_facts", n_facts, hint="n_facts=4.") <= len(KINDS):
        raise OptionError(f"`n_facts` from 2 to {len(KINDS)}.", str(n_facts), "n_facts=4.")
    if integer("answered", answered, least=0, hint="answered=0.") >= n_facts:
        raise OptionError(f"`answered` below the {n_facts} facts.", str(answered), "answered=0.")
    drawn = [_draw(Random(f"{seed}/{split}/{i}"), split, n_facts, swap) for i in range(n)]
    texts = [_text(stated, asked[:answered], asked[-1]) for stated, asked in drawn]
    return Facts(
        texts,
        [MEANING[stated[asked[-1]]] for stated, asked in drawn],
        [text.replace(".", " .").split() for text in texts],
        torch.tensor([4 * list(stated).index(asked[-1]) + 2 for stated, asked in drawn]),
        torch.full((n,), len(texts[0].replace(".", " .").split()) - 2),
        n_facts,
    )


def _draw(random: Random, split: str, n_facts: int, swap: str | None) -> tuple[dict[str, str], list[str]]:
    """The words that are stated, by kind, and the kinds in the order of the questions, the open one last."""
    while True:
        kinds = random.sample(KINDS, n_facts)
        stated = {kind: random.choice(WORDS[kind]) for kind in kinds}
        asked = random.sample(kinds, n_facts)
        evidence = stated[asked[-1]]
        rest = [word for word in stated.values() if word != evidence]
        pairs = combinations(stated.values(), 2) if split == "train" else ((evidence, word) for word in rest)
        if any(held_out(*pair) for pair in pairs) == (split == "test"):
            break
    if swap == "question":
        asked[-1] = random.choice([kind for kind in kinds if kind != asked[-1]])
    for kind in kinds:
        if swap == "synonym" and kind == asked[-1]:
            stated[kind] = random.choice([w for w in VALUES[kind][MEANING[evidence]] if w != evidence])
        elif swap in ("evidence", "rest") and (kind == asked[-1]) == (swap == "evidence"):
            stated[kind] = random.choice([w for w in WORDS[kind] if MEANING[w] != MEANING[stated[kind]]])
    return stated, asked


def _text(stated: dict[str, str], answered: list[str], asked: str) -> str:
    facts = [f"It is {word}." for word in stated.values()]
    answers = [f"Its {kind} is {MEANING[stated[kind]]}." for kind in answered]
    return " ".join([*facts, *answers, f"Its {asked} is"])
