"""Prompts in every form, answers, and targets and foils by word."""

from __future__ import annotations

import copy

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from captum_vit.errors import InputError, OptionError, TargetError, UnsupportedModelError
from captum_vit.inputs import prompts
from captum_vit.inputs.prompts import Prompt, answer_ids, foil_ids, generates, read_prompt, readings, span_of

WORDS = ["<bos>", "the", "sky", "is", "Ġthe", "Ġsky", "Ġis", "Ġred", "Ġblue", "red", "blue", "Ġa", "rk"]


def byte_level() -> PreTrainedTokenizerFast:
    """Words with and without a space in front are tokens of their own, as in GPT-2."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<bos>", continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>")


@pytest.fixture(scope="module")
def lm() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=len(WORDS), **shape, bos_token_id=0, eos_token_id=None, pad_token_id=0)
    ).eval()


@pytest.fixture(scope="module")
def prompt(lm: GPT2LMHeadModel) -> Prompt:
    return read_prompt(lm, "the sky is", tokenizer=byte_level())


def test_what_generates() -> None:
    config = GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1)
    assert generates(GPT2LMHeadModel(config))
    assert not generates(GPT2LMHeadModel(config).transformer)
    assert not generates(torch.nn.Linear(2, 2))


def test_a_text_ids_and_what_a_tokenizer_gave_are_one_prompt(lm: GPT2LMHeadModel, prompt: Prompt) -> None:
    tokenizer = byte_level()
    assert prompt.ids.tolist() == [[1, 5, 6]] and prompt.length == 3
    for given in (prompt.ids, prompt.ids[0], tokenizer("the sky is", return_tensors="pt")):
        assert torch.equal(read_prompt(lm, given, tokenizer=tokenizer).ids, prompt.ids)


def test_a_chat_is_read_by_its_template(lm: GPT2LMHeadModel) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %} is"
    chat = [{"role": "user", "content": "the sky"}]
    assert read_prompt(lm, chat, tokenizer=tokenizer).ids.tolist() == [[1, 5, 6]]


def test_a_chat_with_parts_is_read_by_the_processor(lm: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(prompts, "stored", lambda auto, model: found.append(auto))
    for content in ("hello", [{"type": "text", "text": "hello"}]):
        with pytest.raises(UnsupportedModelError):
            read_prompt(lm, [{"role": "user", "content": content}])
    assert found == ["AutoTokenizer", "AutoProcessor"]


@pytest.mark.parametrize(
    "given",
    [
        "",
        torch.ones(2, 3, dtype=torch.long),
        torch.tensor(1),
        torch.tensor([], dtype=torch.long),
        torch.tensor([1.0, 2.0]),
        torch.tensor([True, False]),
        ("a path.png", "what?"),
        ("a" * 300, "what?"),
        (None, "what?"),
        ([], "what?"),
        {"input_ids": torch.tensor([[1, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])},
        {"text": 1},
        [],
        ["a"],
        [{"role": "user", "content": "a"}],
    ],
)
def test_other_prompts_are_refused(lm: GPT2LMHeadModel, given: object) -> None:
    with pytest.raises(InputError):
        read_prompt(lm, given, tokenizer=byte_level())


def test_a_text_without_a_tokenizer_is_refused(lm: GPT2LMHeadModel) -> None:
    with pytest.raises(UnsupportedModelError, match="processor="):
        read_prompt(lm, "the sky is")


def test_an_answer_is_generated_or_given(lm: GPT2LMHeadModel, prompt: Prompt) -> None:
    made = answer_ids(lm, prompt)
    assert made.shape == (1, 20)
    assert torch.equal(answer_ids(lm, prompt, torch.cat([prompt.ids, made], 1)), made)
    assert torch.equal(answer_ids(lm, prompt, made[0]), made)


def test_the_likelier_reading_of_an_answer_is_taken(prompt: Prompt) -> None:
    class Sure(torch.nn.Module):
        def __init__(self, likely: int) -> None:
            super().__init__()
            self.likely = likely

        def forward(self, ids: torch.Tensor, **rest: object) -> object:
            logits = torch.zeros(1, ids.shape[1], len(WORDS))
            logits[..., self.likely] = 1
            return type("Output", (), {"logits": logits})

    assert answer_ids(Sure(7), prompt, "red").tolist() == [[7]]
    assert answer_ids(Sure(9), prompt, "red").tolist() == [[9]]


def test_an_answer_is_one_of_greedy_steps_within_the_positions(lm: GPT2LMHeadModel, prompt: Prompt) -> None:
    made = answer_ids(lm, prompt)
    changed = copy.deepcopy(lm)
    changed.generation_config.update(num_beams=3, return_dict_in_generate=True, num_return_sequences=2)
    assert torch.equal(answer_ids(changed, prompt), made)
    nearly = read_prompt(lm, torch.ones(30, dtype=torch.long))
    assert answer_ids(lm, nearly).shape == (1, 2)
    with pytest.raises(InputError, match="32 tokens"):
        answer_ids(lm, read_prompt(lm, torch.ones(32, dtype=torch.long)))


@pytest.mark.parametrize("text", ["\nred", "\n"])
def test_white_space_in_front_of_an_answer_stays(prompt: Prompt, text: str) -> None:
    class Lines:
        unk_token = None

        def __call__(self, text: str, **options: object) -> dict[str, list[int]]:
            return {"input_ids": [ord(letter) for letter in text]}

    spelt = [ord(letter) for letter in text]
    assert readings(Prompt(prompt.ids, {}, Lines()), text) == (spelt, spelt)


def test_words_without_tokens_are_refused(prompt: Prompt) -> None:
    unknowing = byte_level()
    unknowing.unk_token = "<bos>"
    strict = Prompt(prompt.ids, {}, unknowing)
    assert readings(strict, "red") == ([9], [7])
    for refused in (lambda: readings(strict, "zebra"), lambda: foil_ids(strict, [7], "zebra")):
        with pytest.raises(InputError, match="zebra"):
            refused()


def test_words_without_a_tokenizer_are_refused(prompt: Prompt) -> None:
    ids_alone = Prompt(prompt.ids, {}, None)
    for refused in (lambda: span_of(ids_alone, torch.tensor([[7]]), "red"), lambda: foil_ids(ids_alone, [7], "blue")):
        with pytest.raises(InputError, match="tokenizer="):
            refused()


def test_a_processor_is_called(lm: GPT2LMHeadModel) -> None:
    with pytest.raises(OptionError, match="processor"):
        read_prompt(lm, "the sky is", tokenizer="gpt2")


@pytest.mark.parametrize(
    "answer", ["", torch.ones(2, 3, dtype=torch.long), 3.0, torch.tensor(3), torch.tensor([[1, 5, 6]])]
)
def test_other_answers_are_refused(lm: GPT2LMHeadModel, prompt: Prompt, answer: object) -> None:
    with pytest.raises(InputError):
        answer_ids(lm, prompt, answer)


def test_a_target_is_a_word_a_place_or_two(prompt: Prompt) -> None:
    answer = torch.tensor([[7, 4, 11, 12]])  # " red the ark"
    found = [span_of(prompt, answer, target) for target in (None, "red", "the", "ark", 1, -1, (1, 3), " red the")]
    assert found == [(0, 1), (0, 1), (1, 2), (2, 4), (1, 2), (3, 4), (1, 3), (0, 2)]


@pytest.mark.parametrize("target", ["blue", "", 4, (2, 2), (0, 9), 1.5, True])
def test_a_target_that_was_not_generated_is_refused(prompt: Prompt, target: object) -> None:
    with pytest.raises(TargetError):
        span_of(prompt, torch.tensor([[7, 4, 11, 12]]), target)


def test_a_foil_is_read_as_the_target_was(prompt: Prompt) -> None:
    assert foil_ids(prompt, [7], "blue") == [8]
    assert foil_ids(prompt, [9], "blue") == [10]
    assert foil_ids(prompt, [7], 3) == [3]
    assert foil_ids(prompt, [11, 12], "sky is") == [5, 6]
    assert foil_ids(prompt, [7], None) is None


@pytest.mark.parametrize("foil", ["sky is", 1.5, True, "red", 7])
def test_a_foil_of_another_length_or_the_target_itself_is_refused(prompt: Prompt, foil: object) -> None:
    with pytest.raises(OptionError):
        foil_ids(prompt, [7], foil)
