"""What cannot be explained of a vision-language model is refused, with what to do."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import captum_vit as cv
from tests.vision_language.conftest import Question
from tests.vision_language.models import IMAGE, LLAMA, made


def test_pictures_that_do_not_fit_the_places_in_the_text(llava: Question) -> None:
    with pytest.raises(cv.InputError, match=r"do not match.*\nTry: all that the processor gave"):
        cv.DecompX(llava.answer).attribute((llava.ids, llava.inputs[1][:1]), target=0)


def test_places_without_pictures_are_no_words(llava: Question) -> None:
    answer = cv.Answer(llava.model, llava.answer.prompt_length)
    with pytest.raises(cv.InputError, match="32 places, and no pixels"):
        cv.DecompX(answer).attribute(llava.ids, target=0)
    words, _ = cv.DecompX(answer).attribute(llava.inputs, target=0)  # the advice
    assert words.any()


@pytest.mark.parametrize("method", [cv.GenAtt, cv.CAT, cv.FullGrad, lambda model: cv.PLUS(cv.DecompX(model))])
def test_methods_of_one_stream_name_those_of_two(llava: Question, method) -> None:
    with pytest.raises(cv.UnsupportedModelError, match="Try: DecompX or ConservativeLRP"):
        method(llava.answer).attribute(llava.inputs, target=0)
    assert method(llava.answer).attribute(llava.ids, target=0).shape == llava.ids.shape  # the advice


def test_words_and_pictures_enter_first_blocks(llava: Question) -> None:
    with pytest.raises(cv.LayerError, match="start_layer=0"):
        cv.DecompX(llava.answer, 1).attribute(llava.inputs, target=0)


def test_a_log_probability_is_no_sum(llava: Question) -> None:
    answer = cv.Answer(llava.model, llava.answer.prompt_length, inputs=llava.batch, score="log_prob")
    with pytest.raises(cv.UnsupportedModelError, match="log_softmax"):
        cv.DecompX(answer).attribute(llava.inputs, target=0)


def test_a_sum_that_misses_the_score_is_refused(llava: Question) -> None:
    """A derivative of the projector's own, which is wrong."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x * 1

        @staticmethod
        def backward(ctx, g: Tensor) -> Tensor:
            return g * 2

    handle = llava.model.model.multi_modal_projector.register_forward_hook(lambda module, x, y: Doubled.apply(y))
    try:
        with pytest.raises(cv.UnsupportedModelError, match="a derivative of its own in Doubled"):
            cv.DecompX(llava.answer).attribute(llava.inputs, target=0)
    finally:
        handle.remove()


def test_a_model_of_words_has_no_blocks_that_read_pictures() -> None:
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)).eval()

    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Tensor, pixels: Tensor) -> Tensor:
            return self.model(ids).logits[:, -1] + 0 * pixels.sum()

    ids = torch.tensor([[1, 5, 9]])
    with pytest.raises(cv.UnsupportedModelError, match="blocks that read pictures"):
        cv.DecompX(Deaf().eval()).attribute((ids, torch.randn(1, 3, 8, 8)), target=0)


def test_a_mask_of_special_tokens_is_one_of_booleans(llava: Question) -> None:
    found = cv.DecompX(llava.answer).decompose(llava.inputs, target=0)
    with pytest.raises(cv.InputError, match="booleans"):
        found.shares(special=llava.ids)
    with pytest.raises(cv.InputError, match="A position among"):
        found.shares(asking=99)


def test_shares_sum_to_the_score(llava: Question) -> None:
    found = cv.DecompX(llava.answer).decompose(llava.inputs, target=1)
    shares = found.shares(special=llava.ids == 1, asking=llava.answer.prompt_length)
    parts = shares.of()
    score = parts.pop("score")
    assert sum(parts.values()) == pytest.approx(score)
    assert parts["asking"] == found.words[0, llava.answer.prompt_length]
    assert parts["image"] == pytest.approx(float(found.patches.sum()))
    assert parts["special"] == pytest.approx(float(found.words[0, 0] + found.tower[:, [0, 17]].sum()))


def test_only_words_are_a_sum_too() -> None:
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)).double().eval()
    ids = torch.randint(2, 100, (2, 8))
    found = cv.DecompX(cv.Answer(model, 6)).decompose(ids, target=0)
    torch.testing.assert_close(found.words, cv.DecompX(cv.Answer(model, 6)).attribute(ids, target=0))
    assert found.residual.abs().max() < 1e-6 and found.shares().image.abs().max() == 0
    with pytest.raises(cv.InputError, match="only words"):
        _ = found.images


def test_the_model_is_left_as_it_was_after_an_error(llava: Question) -> None:
    before = {name: p.requires_grad for name, p in llava.model.named_parameters()}
    with pytest.raises(cv.TargetError):
        cv.DecompX(llava.answer, checkpoint=True).attribute(llava.inputs, target=9)
    assert {name: p.requires_grad for name, p in llava.model.named_parameters()} == before
    assert all("forward" not in vars(m) and not m._forward_pre_hooks for m in llava.model.modules())


def test_another_order_of_the_same_pictures_is_another_map() -> None:
    """Maps follow their pictures."""
    model, batch = made("LLaVA-1.5")
    ids = torch.tensor([[*[IMAGE] * 32, 7, 11]])
    answer = cv.Answer(model, 33)
    pixels = batch["pixel_values"]
    one = cv.DecompX(answer).decompose((ids, pixels), target=0)
    other = cv.DecompX(answer).decompose((ids, pixels.flip(0)), target=0)
    assert not torch.allclose(one.images[0], other.images[0])
    assert not torch.allclose(one.images[0], other.images[1])  # the places in the text are others
