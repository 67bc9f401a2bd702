"""The shipped vision-language model is what its card says."""

import pytest
import torch
from torchvision.transforms.functional import to_pil_image
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

import captum_vit as cv
from captum_vit.demo import demo_vit, demo_vlm, demo_vlm_processor, digit_questions
from captum_vit.demo.scene_questions.answers import DigitAnswers
from captum_vit.demo.scene_questions.evaluation import evaluate, follows, moved, next_logits, prompt_ids
from captum_vit.demo.scene_questions.model import FOLDER, WEIGHTS
from captum_vit.demo.scene_questions.start import start_from_digits
from quantus_metrics.metrics.pointing import pointing_accuracy


@pytest.fixture(scope="module")
def model() -> LlavaForConditionalGeneration:
    return demo_vlm()


def test_it_is_an_ordinary_llava(model: LlavaForConditionalGeneration) -> None:
    assert type(model) is LlavaForConditionalGeneration and not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert WEIGHTS.stat().st_size < 3_500_000 and WEIGHTS.with_suffix(".md").exists()


def test_its_processor_reads_pictures_as_scenes_are_normalised() -> None:
    """And writes 64 tokens for an image, behind the start token."""
    found, processor = digit_questions(2, seed=3), demo_vlm_processor()
    assert type(processor) is LlavaProcessor
    pictures = [to_pil_image(pixels) for pixels in found.pixels]
    inputs = processor(text=found.prompts, images=pictures, return_tensors="pt", padding=True)
    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values"}
    torch.testing.assert_close(
        inputs["pixel_values"], found.images, atol=2.001 / 255, rtol=0
    )  # a picture has 256 levels
    assert torch.equal(inputs["input_ids"], prompt_ids(found.prompts))
    words = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    assert words == ["<bos>", *["<image>"] * 64, *found.prompts[0].lower().replace("?", " ?").split()[1:]]


def test_transformers_reads_its_folder(model: LlavaForConditionalGeneration) -> None:
    found = digit_questions(2, seed=3)
    other = AutoModelForImageTextToText.from_pretrained(FOLDER, local_files_only=True).float().eval()
    torch.testing.assert_close(next_logits(other, found), next_logits(model, found))
    processor = AutoProcessor.from_pretrained(FOLDER, local_files_only=True)
    assert processor.to_dict() == demo_vlm_processor().to_dict()


def test_it_answers_in_a_word_and_stops(model: LlavaForConditionalGeneration) -> None:
    found, processor = digit_questions(8, seed=4), demo_vlm_processor()
    inputs = processor(text=found.prompts, images=list(found.pixels), return_tensors="pt", do_rescale=False)
    said = processor.batch_decode(model.generate(**inputs)[:, inputs["input_ids"].shape[1] :])
    assert sum(one == f"{wanted}." for one, wanted in zip(said, found.answers, strict=True)) >= 7


@pytest.mark.slow
def test_the_answer_follows_the_digit_that_is_asked_for(model: LlavaForConditionalGeneration) -> None:
    right, anew = evaluate(model, seed=1, n=100), follows(model, seed=1, n=100)
    assert min(right.low, right.high) > 0.88 and min(anew.digit, anew.other) > 0.88
    own, other, share, _ = moved(model, seed=1, n=100)
    assert own > 3 > 1.5 > abs(other) and share < 0.35


def test_a_map_of_the_patches_points_at_the_digit(model: LlavaForConditionalGeneration) -> None:
    found = digit_questions(30, seed=2)
    ids = prompt_ids([f"{prompt} {answer}" for prompt, answer in zip(found.prompts, found.answers, strict=True)])
    words, patches = cv.DecompX(cv.Answer(model, ids.shape[1] - 1)).attribute((ids, found.images), target=0)
    assert words.shape == ids.shape and patches.shape == (30, 1, 8, 8)
    assert pointing_accuracy(patches, found.masks[:, 0], 4) >= 0.85


def test_the_vision_tower_starts_as_the_classifier() -> None:
    tower, vit, images = demo_vlm(False).model.vision_tower, demo_vit(), digit_questions(4).images
    start_from_digits(tower, vit)
    with torch.no_grad():
        found = vit.head(tower(images).last_hidden_state[:, 0])
        torch.testing.assert_close(found, vit(images), atol=1e-3, rtol=1e-4)


def test_answers_as_classes_are_those_of_the_questions(model: LlavaForConditionalGeneration) -> None:
    """The map of a digit is that of the question about its side."""
    found, answers = digit_questions(4, seed=5), DigitAnswers(model)
    names = demo_vlm_processor().tokenizer.convert_tokens_to_ids(found.answers)
    rows = torch.arange(4)
    with torch.no_grad():
        logits = answers(found.images)
    torch.testing.assert_close(logits[rows, found.digits[:, 0]], next_logits(model, found)[rows, names])
    ids = prompt_ids([f"{prompt} {answer}" for prompt, answer in zip(found.prompts, found.answers, strict=True)])
    _, wanted = cv.DecompX(cv.Answer(model, ids.shape[1] - 1)).attribute((ids, found.images), target=0)
    maps = cv.DecompX(answers).attribute(found.images, target=found.digits[:, 0])
    torch.testing.assert_close(maps, wanted, atol=1e-4, rtol=1e-3)
