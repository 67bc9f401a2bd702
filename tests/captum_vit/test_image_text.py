"""Images against texts and texts against images: templates, contrast, tokenizing, and what is refused."""

from functools import partial

import open_clip
import pytest
import torch
from captum.attr import NoiseTunnel
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.models.positions import most_tokens
from captum_vit.models.towers import embed_images, embed_texts, text_tower
from tests.captum_vit.models.families import _siglip
from tests.models import captions, clip_model, image, open_clip_model

WORDS = ["<pad>", "dog", "cat", "a", "photo", "drawing", "of", "the"]
START, END = 48, 49


class Tokenizer:
    """As Hugging Face's: a number for each word, between a start and an end, padded as asked."""

    def __init__(self, masks: bool = True) -> None:
        self.masks, self.asked = masks, {}

    def __call__(self, text, return_tensors, **asked):
        self.asked = asked
        rows = [[START, *(WORDS.index(word) for word in one.strip(".").split()), END] for one in text]
        length = asked.get("max_length", max(map(len, rows)))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        return {"input_ids": ids} | ({"attention_mask": (ids != 0).long()} if self.masks else {})


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def texts(model: nn.Module, *some: str) -> Tensor:
    with torch.no_grad():
        return unit(embed_texts(model, *Tokenizer()(some, "pt").values()))


def test_a_text_is_one_target():
    model, pixels = clip_model(), image()
    similarity = cv.TextSimilarity.from_texts(model, Tokenizer(), ["dog", "the cat"])
    with torch.no_grad():
        wanted = unit(embed_images(model, pixels)) @ texts(model, "dog", "the cat").T
        assert torch.allclose(similarity(pixels), wanted, atol=1e-6)
    assert similarity.names == ["dog", "the cat"]


def test_templates_are_averaged_as_directions():
    model = clip_model()
    templates = ["a photo of a {}.", "the drawing of the {}."]
    similarity = cv.TextSimilarity.from_texts(model, Tokenizer(), ["dog", "cat"], templates=templates)
    for k, word in enumerate(("dog", "cat")):
        mean = texts(model, f"a photo of a {word}.", f"the drawing of the {word}.").mean(0)
        assert torch.allclose(similarity.text_embeddings[k], unit(mean), atol=1e-6)
    assert similarity.names == ["dog", "cat"]
    with pytest.raises(cv.OptionError, match="photo"):
        cv.TextSimilarity.from_texts(model, Tokenizer(), ["dog"], templates=["a photo"])


@pytest.mark.parametrize("contrast", ["cat", ["cat"], ["cat", "the"]])
def test_a_contrast_is_a_difference_of_two_similarities(contrast):
    model, pixels = clip_model().double(), image().double()
    found = cv.TextSimilarity.from_texts(model, Tokenizer(), ["dog", "a"], contrast=contrast)
    others = contrast if len(contrast) == 2 else ["cat", "cat"]
    plain = cv.TextSimilarity.from_texts(model, Tokenizer(), ["dog", "a", *others])
    with torch.no_grad():
        said = plain(pixels)
        assert torch.allclose(found(pixels), said[:, :2] - said[:, 2:], atol=1e-6)
    assert found.names == [f"dog rather than {others[0]}", f"a rather than {others[1]}"]
    maps = [cv.DecompX(target).attribute(pixels, k) for target, k in ((found, 0), (plain, 0), (plain, 2))]
    assert torch.allclose(maps[0], maps[1] - maps[2], atol=1e-12)


def test_more_texts_than_images_under_noise():
    """Captum repeats the batch; the bank of texts stays as it is."""
    model, pixels = clip_model().double(), image().double()
    similarity = cv.TextSimilarity.from_texts(model, Tokenizer(), WORDS[1:])
    method = cv.LayerCDAM(similarity)
    for k in (0, 5):
        found = NoiseTunnel(method).attribute(pixels, nt_samples=4, stdevs=0.0, target=k)
        assert torch.allclose(found, method.attribute(pixels, k), atol=1e-12)


def test_siglip_reads_texts_of_the_length_it_was_trained_with():
    model, tokenizer = _siglip(), Tokenizer(masks=False)
    similarity = cv.TextSimilarity.from_texts(model, tokenizer, ["dog"])
    assert tokenizer.asked == {"padding": "max_length", "max_length": 24, "truncation": True}
    ids = tokenizer(["dog"], "pt", max_length=24)["input_ids"]
    with torch.no_grad():
        assert torch.allclose(similarity.text_embeddings, unit(embed_texts(model, ids)), atol=1e-6)


def test_open_clips_tokenizer_is_called_its_own_way():
    model = open_clip_model()
    numbers = {"dog": [48, 3, 49], "cat": [48, 4, 5, 49]}
    similarity = cv.TextSimilarity.from_texts(
        model, lambda some: torch.tensor([numbers[one] + [0] * (9 - len(numbers[one])) for one in some]), ["cat", "dog"]
    )
    assert similarity.text_embeddings.shape == (2, 16)
    assert torch.allclose(similarity.text_embeddings.norm(dim=1), torch.ones(2))


def test_the_words_that_match_an_image():
    model, pixels = clip_model(), image()
    ids, mask = captions()
    found = cv.ImageSimilarity.from_images(model, pixels)
    with torch.no_grad():
        wanted = unit(embed_texts(model, ids, mask)) @ unit(embed_images(model, pixels)).T
        assert torch.allclose(found(ids, mask), wanted, atol=1e-6)
    named = cv.ImageSimilarity.from_images(model, {"pets": pixels[:2], "rest": pixels[2:]})
    assert named.names == ["pets", "rest"]
    assert torch.allclose(named.image_embeddings[0], unit(found.image_embeddings[:2].mean(0)), atol=1e-6)
    against = cv.ImageSimilarity.from_images(model, pixels[:2], contrast=pixels[2:])
    with torch.no_grad():
        said = found(ids, mask)
        assert torch.allclose(against(ids, mask), said[:, :2] - said[:, 2:], atol=1e-6)


def test_both_sides_agree_about_one_pair():
    """The similarity is the same number, whichever side is explained."""
    model, pixels = clip_model(), image()[:1]
    ids, mask = (x[:1] for x in captions())
    with torch.no_grad():
        words = cv.ImageSimilarity.from_images(model, pixels)(ids, mask)
        patches = cv.TextSimilarity(model, embed_texts(model, ids, mask))(pixels)
    assert torch.allclose(words, patches, atol=1e-6)
    assert cv.LayerCDAM(cv.ImageSimilarity.from_images(model, pixels)).attribute(ids, 0, mask).shape == ids.shape


@pytest.mark.parametrize("of", [open_clip.model.CLIP, open_clip.model.CustomTextCLIP])
def test_what_follows_the_end_of_a_text_is_padding(of):
    ids, mask = captions()
    words = cv.ImageSimilarity.from_images(open_clip_model(of), image())
    for method in ("PredictionMap", "RawAttention", "LayerCDAM"):
        assert torch.equal(cv.METHODS[method](words).attribute(ids, 0) != 0, mask.bool())
        assert torch.equal(cv.METHODS[method](cv.Margin(words, 0, 1)).attribute(ids, 0)[mask == 0], torch.zeros(8))


REFUSED = {
    "one text as a string": lambda m: cv.TextSimilarity.from_texts(m, Tokenizer(), "dog"),
    "no texts": lambda m: cv.TextSimilarity.from_texts(m, Tokenizer(), []),
    "two contrasts for three": lambda m: cv.TextSimilarity.from_texts(
        m, Tokenizer(), ["dog", "cat", "a"], contrast=["of", "the"]
    ),
    "a row": lambda m: cv.ImageSimilarity(m, torch.randn(16)),
    "a list": lambda m: cv.TextSimilarity(m, [1.0]),
    "a tower": lambda m: cv.TextSimilarity(m.vision_model, torch.randn(1, 16)),
    "the other tower": lambda m: cv.ImageSimilarity(m.text_model, torch.randn(1, 16)),
    "both towers": lambda m: cv.LayerCDAM(m).attribute(image(), 0),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused(case):
    with pytest.raises(cv.CaptumVitError) as refused:
        REFUSED[case](clip_model())
    assert isinstance(refused.value, (cv.InputError, cv.UnsupportedModelError))


def test_open_clips_two_towers_are_not_guessed_at():
    with pytest.raises(cv.UnsupportedModelError, match="TextSimilarity"):
        cv.spec_of(open_clip_model())
    model = open_clip.model.CustomTextCLIP(
        16, {"layers": 1, "width": 8, "head_width": 8, "patch_size": 8, "image_size": 32},
        {"context_length": 9, "vocab_size": 50, "width": 8, "heads": 1, "layers": 1, "embed_cls": True},
    )  # fmt: skip
    with pytest.raises(cv.TraceError, match="One token for each word"):
        cv.LayerCDAM(cv.ImageSimilarity(model.eval(), torch.randn(1, 16))).attribute(captions()[0], target=0)


def test_a_caption_longer_than_the_positions_is_refused_by_name():
    """CLIP's own error is of Python; SigLIP's tokenizer would cut it without a word."""
    for model in (clip_model(), _siglip()):
        most = most_tokens(text_tower(model))
        captions = ["dog", "dog " * (most - 1)]
        with pytest.raises(cv.InputError, match=f"at most {most} tokens") as refusal:
            cv.TextSimilarity.from_texts(model, Tokenizer(), captions)
        assert "functools.partial(tokenizer, truncation=True" in refusal.value.hint

    class Cuts(Tokenizer):
        def __call__(self, text, return_tensors, truncation=False, max_length=None, **asked):
            ids = super().__call__(text, return_tensors, **asked)["input_ids"]
            return {"input_ids": ids[:, :max_length] if truncation else ids}

    cut = partial(Cuts(), truncation=True, max_length=most_tokens(text_tower(clip_model())))
    assert cv.TextSimilarity.from_texts(clip_model(), cut, captions).text_embeddings.shape[0] == 2
