"""One call for a generated word: what sums to its score, what is refused, and what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AddedToken, LlamaConfig, LlamaForCausalLM

import captum_vit as cv
from captum_vit.errors import InputError, OptionError, TargetError
from captum_vit.viz import AnswerExplanation
from tests.captum_vit.inputs.test_prompts import WORDS, byte_level

PROMPT, ANSWER = "the sky is", " the red blue"


@pytest.fixture(scope="module")
def lm() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": None}
    config = LlamaConfig(vocab_size=len(WORDS), **shape, **ends, max_position_embeddings=64, initializer_range=0.3)
    return LlamaForCausalLM(config).double().eval()


def explained(lm: LlamaForCausalLM, **options: object) -> AnswerExplanation:
    found = cv.explain(lm, PROMPT, tokenizer=byte_level(), **{"answer": ANSWER, **options})
    assert isinstance(found, AnswerExplanation)
    return found


def logits(lm: LlamaForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        return lm(torch.tensor([[1, 5, 6, 4, 7, 8]])).logits[0]


def test_parts_sum_to_the_logit_of_a_word(lm: LlamaForCausalLM) -> None:
    found = explained(lm, target="red")
    assert found.score == pytest.approx(logits(lm)[3, 7].item())
    assert found.label == "red" and found.method == "DecompX"
    assert sum(found.shares.values()) == pytest.approx(found.score, abs=1e-6)
    assert abs(found.residual or 0.0) < 1e-6
    assert [word for word, _ in found.words] == ["the", "sky", "is"]
    assert list(found.shares) == ["words", "asking position", "constants"]


def test_a_foil_is_subtracted(lm: LlamaForCausalLM) -> None:
    found = explained(lm, target="red", foil="blue")
    assert found.label == "red rather than blue"
    assert found.score == pytest.approx((logits(lm)[3, 7] - logits(lm)[3, 8]).item())


def test_a_target_of_several_tokens_is_their_sum(lm: LlamaForCausalLM) -> None:
    found, z = explained(lm, target="red blue"), logits(lm)
    assert found.score == pytest.approx((z[3, 7] + z[4, 8]).item())
    assert "answer so far" in found.shares


def test_without_an_answer_one_is_generated(lm: LlamaForCausalLM) -> None:
    found = explained(lm, answer=None)
    likeliest = int(logits(lm)[2].argmax())
    assert found.score == pytest.approx(logits(lm)[2, likeliest].item())


def test_other_methods_have_no_residual(lm: LlamaForCausalLM) -> None:
    found = explained(lm, target="red", method="GenAtt")
    assert found.residual is None and found.method == "GenAtt"
    scores = cv.Answer(lm, 3).span(1, 2)
    expected = cv.GenAtt(scores).attribute(torch.tensor([[1, 5, 6, 4, 7]]))
    torch.testing.assert_close(found.map, expected[0, :4])


def test_the_asking_position_sets_no_colours(lm: LlamaForCausalLM) -> None:
    text = explained(lm, target="red").text()
    words = {piece.text: strength for piece, strength in zip(text.pieces, text.strength[0].tolist(), strict=True)}
    assert max(abs(words[word]) for word in ("sky", "is")) > 0
    assert text.strength[0, -1] == 0 and text.scores[0, -1] != 0


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"target": "ark"}, TargetError),
        ({"foil": "the sky"}, OptionError),
        ({"method": "GenAtt", "n_samples": 3}, OptionError),
        ({"n_samples": 3}, OptionError),
        ({"words": 3}, OptionError),
        ({"special": None}, OptionError),
        ({"tokens": ["the"]}, OptionError),
    ],
)
def test_what_does_not_fit_is_refused(lm: LlamaForCausalLM, option: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        explained(lm, **option)


def test_ids_that_the_model_does_not_have_are_refused(lm: LlamaForCausalLM) -> None:
    with pytest.raises(InputError, match="out of range"):
        cv.explain(lm, torch.tensor([1, 99]))


def test_a_line_break_has_a_name(lm: LlamaForCausalLM) -> None:
    class Lines:
        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return ["Ċ" for _ in ids]

        def decode(self, ids: list[int]) -> str:
            return "\n" * len(ids)

        def __call__(self, text: str, **options: object) -> dict[str, torch.Tensor]:
            return {"input_ids": torch.tensor([[1, 5]])}

    assert cv.explain(lm, "x", "\n", answer=torch.tensor([7, 8]), tokenizer=Lines()).label == r"'\n'"


def test_the_marks_of_a_chat_are_special_tokens(lm: LlamaForCausalLM) -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("rk", special=True)])
    assert tokenizer.convert_tokens_to_ids("rk") not in tokenizer.all_special_ids
    found = cv.explain(lm, torch.tensor([[1, 12, 5, 6]]), answer=torch.tensor([7]), tokenizer=tokenizer)
    assert found.roles == ["words", "special tokens", "words", "asking position"]


def test_special_tokens_are_shown_or_not() -> None:
    given = (torch.ones(2), ["<s>", "sky"], ["special tokens", "words"], "blue", 1.0, "DecompX")
    shown, hidden = AnswerExplanation(*given), AnswerExplanation(*given, special=False)
    assert [piece.text for piece in shown.text().pieces] == ["<s>", "sky"]
    assert [piece.text for piece in hidden.text().pieces] == ["sky"]
    assert shown.shares == hidden.shares


def test_pictures_in_a_narrow_figure_without_a_word_are_drawn() -> None:
    given = (torch.ones(1), ["a"], ["image tokens"], "blue", 1.0, "DecompX")
    found = AnswerExplanation(*given, [torch.rand(3, 8, 8)] * 3, [torch.randn(2, 2)] * 3)
    assert len(found.show(width=1.0).axes) == 4  # and bars
    assert found.words == [] and found.html.count("<img") == 3


def test_a_long_label_does_not_widen_the_figure() -> None:
    found = AnswerExplanation(torch.ones(1), ["a"], ["words"], "word " * 100, 1.0, "DecompX")
    figure = found.show()
    assert figure.texts[0].get_window_extent().width < figure.get_window_extent().width
    assert found.label in found.html


def test_an_answer_of_a_classifier_is_refused() -> None:
    with pytest.raises(OptionError, match="generates text"):
        cv.explain(torch.nn.Linear(2, 2), torch.zeros(1, 3, 8, 8), answer="red")


@pytest.mark.parametrize("name", ["a.png", "a.html", "a.npy"])
def test_it_is_written_whole(lm: LlamaForCausalLM, tmp_path: Path, name: str) -> None:
    found = explained(lm, target="red")
    assert found.save(tmp_path / name).stat().st_size > 100
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_the_page_is_escaped() -> None:
    found = AnswerExplanation(torch.ones(2), ["<b>", "&"], ["words", "words"], "<script>", 1.0, "DecompX")
    assert "<script>" not in found.html and "<b>" not in found.html and "&lt;script&gt;" in found.html
