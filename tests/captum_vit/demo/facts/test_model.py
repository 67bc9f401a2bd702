"""The shipped language model is what its card says."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

import captum_vit as cv
from captum_vit.demo import NextWord, demo_lm, demo_lm_tokenizer, stated_facts
from captum_vit.demo.facts.evaluation import evaluate, follows, moved
from captum_vit.demo.facts.model import FOLDER, WEIGHTS
from captum_vit.demo.facts.train import answers_in

PROMPT = "It is tart. It is huge. Its taste is"


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return demo_lm()


def test_it_is_an_ordinary_llama(model: LlamaForCausalLM) -> None:
    assert type(model) is LlamaForCausalLM and not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert len(demo_lm_tokenizer()) == model.config.vocab_size
    assert WEIGHTS.stat().st_size < 400_000 and WEIGHTS.with_suffix(".md").exists()


def test_transformers_reads_its_folder(model: LlamaForCausalLM) -> None:
    other, tokenizer = (
        AutoModelForCausalLM.from_pretrained(FOLDER).float().eval(),
        AutoTokenizer.from_pretrained(FOLDER),
    )
    batch = tokenizer([PROMPT, "Its size is"], padding=True, return_tensors="pt")
    found = demo_lm_tokenizer()([PROMPT, "Its size is"], padding=True, return_tensors="pt")
    assert all(torch.equal(batch[name], tensor) for name, tensor in found.items())
    with torch.no_grad():
        torch.testing.assert_close(other(**batch).logits, model(**batch).logits)
    assert other.generation_config.eos_token_id == model.generation_config.eos_token_id


def test_a_text_survives_its_tokenizer() -> None:
    """In lower case, behind a start token; every word of a text is one token."""
    found, tokenizer = stated_facts(5, seed=1), demo_lm_tokenizer()
    for prompt, words in zip(found.prompts, found.words, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", *map(str.lower, words)]
        assert tokenizer.decode(ids, skip_special_tokens=True) == prompt.lower()


@pytest.mark.parametrize("prompts", [[PROMPT], [PROMPT, "It is irate. It is ruby. It is briny. Its mood is"]])
def test_it_answers_and_stops(model: LlamaForCausalLM, prompts: list[str]) -> None:
    """Padded or by itself."""
    tokenizer = demo_lm_tokenizer()
    batch = tokenizer(prompts, padding=True, return_tensors="pt")
    answers = model.generate(**batch)[:, batch["input_ids"].shape[1] :]
    assert tokenizer.decode(answers[0]) == "sour." and answers.shape[1] == 2


def test_it_answers_held_out_questions(model: LlamaForCausalLM) -> None:
    accuracy = evaluate(model, seed=1, n=100)
    assert accuracy.first > 0.98 and accuracy.last > 0.98


def test_the_answer_follows_the_words_that_decide(model: LlamaForCausalLM) -> None:
    found = follows(model, seed=1, n=100)
    assert min(found[:4]) > 0.98
    own, other, share, _ = moved(model, seed=1, n=100)
    assert own > 5 > 1 > abs(other) and share < 0.1


def test_a_map_points_at_the_words_that_decide(model: LlamaForCausalLM) -> None:
    """That of the fact among the facts; of the whole prompt that, or the kind that is asked for."""
    found, tokenizer = stated_facts(50, seed=2), demo_lm_tokenizer()
    ids = tokenizer(found.prompts, return_tensors="pt")["input_ids"]
    target = [(ids.shape[1] - 1, tokenizer.convert_tokens_to_ids(answer)) for answer in found.answers]
    words = cv.DecompX(model).attribute(ids, target=target)[:, 1:]  # without the start token
    top = words.argmax(1)
    assert (words[:, : found.in_facts].argmax(1) == found.evidence).float().mean() >= 0.9
    assert ((top == found.evidence) | (top == found.asked)).float().mean() >= 0.9


def test_the_loss_is_that_of_answers_and_full_stops() -> None:
    tokenizer = demo_lm_tokenizer()
    ids = tokenizer(["It is tart. It is huge. Its taste is sour. Its size is large."], return_tensors="pt")["input_ids"]
    where = answers_in(ids, tokenizer.convert_tokens_to_ids("its"))
    assert tokenizer.convert_ids_to_tokens(ids[where]) == ["sour", ".", "large", "."]


def test_the_next_word_as_a_class(model: LlamaForCausalLM) -> None:
    """Padded or by itself; its map is that of the logit at the last word."""
    tokenizer, next_word = demo_lm_tokenizer(), NextWord(model)
    batch = tokenizer([PROMPT, "It is irate. It is ruby. It is briny. Its mood is"], padding=True, return_tensors="pt")
    ids = tokenizer([PROMPT], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        padded, whole = next_word(batch["input_ids"], batch["attention_mask"]), model(ids).logits
    torch.testing.assert_close(padded[:1], whole[:, -1], atol=1e-4, rtol=1e-4)
    sour = tokenizer.convert_tokens_to_ids("sour")
    wanted = cv.DecompX(model).attribute(ids, target=(ids.shape[1] - 1, sour))
    torch.testing.assert_close(cv.DecompX(next_word).attribute(ids, target=sour), wanted)
