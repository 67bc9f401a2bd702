"""Facts and questions: what is written, and what is true of it."""

from itertools import combinations

import pytest
import torch

from captum_vit.demo import stated_facts
from captum_vit.demo.facts.words import KIND, MEANING, WORDS, held_out
from captum_vit.errors import OptionError


def stated(prompt: str) -> list[str]:
    """The words of a prompt that state a fact."""
    return [word for word in prompt.replace(".", "").split() if word in KIND]


def test_the_words_are_different_and_none_is_an_answer() -> None:
    words = [word for of in WORDS.values() for word in of]
    assert len(words) == len(set(words)) == 48
    assert not set(words) & set(MEANING.values())


@pytest.mark.parametrize("n_facts", [2, 3, 4])
def test_a_prompt_asks_for_the_kind_of_its_evidence(n_facts: int) -> None:
    found = stated_facts(20, seed=4, n_facts=n_facts, answered=n_facts - 1)
    for prompt, answer, words, place in zip(found.prompts, found.answers, found.words, found.evidence, strict=True):
        assert len(stated(prompt)) == len({KIND[word] for word in stated(prompt)}) == n_facts
        assert MEANING[words[place]] == answer
        assert prompt.endswith(f"Its {KIND[words[place]]} is") and answer not in words
        assert prompt.count("Its") == n_facts


def test_the_question_can_be_for_another_kind() -> None:
    whole, other = stated_facts(20, seed=4), stated_facts(20, seed=4, swap="question")
    assert torch.equal(whole.asked, other.asked) and whole.in_facts == 16
    for i, (one, two) in enumerate(zip(whole.words, other.words, strict=True)):
        assert [j for j, (a, b) in enumerate(zip(one, two, strict=True)) if a != b] == [int(whole.asked[i])]
        assert MEANING[two[other.evidence[i]]] == other.answers[i] and KIND[two[other.evidence[i]]] == two[-2]


def test_the_same_seed_gives_the_same_prompts() -> None:
    assert stated_facts(5, seed=1).prompts == stated_facts(5, seed=1).prompts == stated_facts(9, seed=1).prompts[:5]
    assert stated_facts(5, seed=1).prompts != stated_facts(5, seed=2).prompts


def test_held_out_pairs_are_in_no_training_text_and_in_every_test() -> None:
    for prompt in stated_facts(100, "train", seed=1).prompts:
        assert not any(held_out(*pair) for pair in combinations(stated(prompt), 2))
    found = stated_facts(100, "test", seed=1)
    for prompt, words, place in zip(found.prompts, found.words, found.evidence, strict=True):
        assert any(held_out(words[place], word) for word in stated(prompt) if word != words[place])


@pytest.mark.parametrize("swap", ["evidence", "synonym", "rest"])
def test_a_swap_writes_one_part_anew(swap: str) -> None:
    whole, other = stated_facts(30, seed=2), stated_facts(30, seed=2, swap=swap)
    assert torch.equal(whole.evidence, other.evidence)
    for i, place in enumerate(whole.evidence.tolist()):
        changed = {j for j, (a, b) in enumerate(zip(whole.words[i], other.words[i], strict=True)) if a != b}
        facts = {j for j, word in enumerate(whole.words[i]) if word in KIND}
        assert changed == (facts - {place} if swap == "rest" else {place})
        values = [MEANING[of.words[i][j]] for of in (whole, other) for j in changed]
        half = len(values) // 2
        assert (values[:half] == values[half:]) == (swap == "synonym")
        assert (whole.answers[i] == other.answers[i]) == (swap != "evidence")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "`n`"),
        ({"split": "trial"}, "`split` must be one of 'train', 'test'"),
        ({"swap": "all"}, "`swap` must be one of"),
        ({"n_facts": 5}, "`n_facts` from 2 to 4"),
        ({"n_facts": 2, "answered": 2}, "`answered` below the 2 facts"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        stated_facts(**{"n": 2} | options)
