"""The shipped image-text model is what its card says."""

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, CLIPModel

import captum_vit as cv
from captum_vit.demo import demo_clip, demo_vit, digit_scenes
from captum_vit.demo.captions import PROMPTS, TEMPLATES, demo_clip_tokenizer
from captum_vit.demo.captions.evaluation import effect, retrieval, similarity_to
from captum_vit.demo.captions.model import FOLDER, WEIGHTS
from captum_vit.demo.captions.start import start_from_digits


@pytest.mark.slow
def test_it_is_an_ordinary_clip():
    model, texts = demo_clip(), demo_clip_tokenizer()(list(PROMPTS), return_tensors="pt", padding=True)
    assert type(model) is CLIPModel and not model.training
    assert model(pixel_values=digit_scenes(2).images, **texts).logits_per_image.shape == (2, 10)
    assert WEIGHTS.stat().st_size < 3_000_000 and WEIGHTS.with_suffix(".md").exists()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.slow
def test_transformers_reads_its_folder():
    model, images = AutoModel.from_pretrained(FOLDER, local_files_only=True).eval(), digit_scenes(2).images
    with torch.no_grad():
        wanted, found = (of.get_image_features(images).pooler_output for of in (demo_clip(), model))
    torch.testing.assert_close(found, wanted)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    assert tokenizer("an eight")["input_ids"] == demo_clip_tokenizer()("an eight")["input_ids"]


def test_explain_finds_its_readers_by_itself():
    """A picture is normalised as the scenes are, a text cut as its tokenizer cuts it."""
    from torchvision.transforms.functional import to_pil_image

    scenes, similarity = digit_scenes(1), similarity_to(demo_clip(), PROMPTS)
    picture = to_pil_image(scenes.pixels[0])
    found = cv.explain(similarity, picture, ["an eight", "a two"])
    assert found.labels == ["an eight", "a two"]
    with torch.no_grad():
        wanted = similarity(scenes.images)[0, [8, 2]]
    torch.testing.assert_close(torch.tensor(found.scores), wanted, atol=0.01, rtol=0)  # a picture has 256 levels
    words = cv.explain(cv.ImageSimilarity.from_images(demo_clip(), scenes.images), "an eight", special=False)
    assert words.text().words == ("an", "eight")


@pytest.mark.slow
def test_the_nearest_texts_of_held_out_scenes_are_true():
    found = retrieval(demo_clip(), seed=1, n=150)
    assert found.single > 0.9 and found.both > 0.75 and found.pair > 0.75


@pytest.mark.slow
def test_what_a_similarity_is_about():
    own, other, share, _ = effect(demo_clip(), seed=1, n=100)
    assert own > 0.3 > 3 * abs(other) and share < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("method", ["PLUS(DecompX)", "GenAtt"])
def test_maps_point_at_the_digit_that_is_named(method):
    """Of the prompts that name one of two digits, at least eight in ten."""
    from quantus_metrics.metrics.pointing import pointing_accuracy

    scenes = digit_scenes(50, 2, seed=1)
    maps = cv.METHODS[method](similarity_to(demo_clip(), PROMPTS)).attribute(
        scenes.images.repeat_interleave(2, 0), target=scenes.digits.flatten()
    )
    assert pointing_accuracy(maps, scenes.masks.flatten(0, 1), 4) >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("method", ["PLUS(DecompX)"])
def test_words_that_name_what_is_there_and_what_is_not(method):
    """A caption that names a digit of the scene and one that is not there: the first has more relevance."""
    model, tokenizer, scenes = demo_clip(), demo_clip_tokenizer(), digit_scenes(50, 1, seed=2)
    there = scenes.digits[:, 0]
    absent = (there + torch.arange(50) % 9 + 1) % 10
    texts = [TEMPLATES[0].format(f"{PROMPTS[a]} and {PROMPTS[b]}") for a, b in zip(there, absent, strict=True)]
    read = tokenizer(texts, return_tensors="pt", padding=True)
    similarity = cv.ImageSimilarity.from_images(model, scenes.images)
    maps = cv.METHODS[method](similarity).attribute(read["input_ids"], list(range(50)), read["attention_mask"])
    assert (maps[:, 5] > maps[:, 8]).float().mean() >= 0.9  # start, a, photo, of, a, DIGIT, and, a, DIGIT


def test_the_vision_tower_starts_as_the_classifier():
    """With the norm that the classifier lacks taken out, the tower says exactly what the classifier says."""
    tower, vit, images = demo_clip(False).vision_model, demo_vit(), digit_scenes(4).images
    start_from_digits(tower, vit)
    tower.pre_layrnorm = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(vit.head(tower(images).pooler_output), vit(images), atol=1e-3, rtol=1e-4)
