"""Captions say what is in a scene, and which scenes they are true of is told rightly."""

import random

import pytest
import torch

from captum_vit.demo import digit_scenes
from captum_vit.demo.captions.model import FOLDER, demo_clip_tokenizer
from captum_vit.demo.captions.sentences import PROMPTS, TEMPLATES, caption, is_true_of, named, some_of
from captum_vit.demo.captions.vocabulary import main, vocabulary
from captum_vit.demo.digits.model import NAMES


def test_digits_in_words():
    assert named([8]) == "an eight"
    assert named([3, 8]) == "a three and an eight"
    assert named([1, 2, 9]) == "a one, a two and a nine"
    assert named([1, 2], NAMES) == "one and two"
    assert PROMPTS[:2] == ("a zero", "a one")


def test_a_caption_names_its_digits_and_no_other():
    chance = random.Random(0)
    for _ in range(100):
        digits = chance.sample(range(10), chance.randint(1, 3))
        words = demo_clip_tokenizer().tokenize(caption(digits, chance))
        assert sorted(NAMES.index(word) for word in words if word in NAMES) == sorted(digits)
        assert "<unk>" not in words


def test_orders_and_templates_vary():
    chance = random.Random(0)
    assert len({caption([3, 8], chance) for _ in range(500)}) == 2 * 2 * len(TEMPLATES)  # bare, or with articles


def test_what_is_said_is_in_the_scene():
    scenes, chance = digit_scenes(200, (1, 3)), random.Random(0)
    said = some_of(scenes.digits, chance)
    assert is_true_of(said, scenes.digits).diagonal().all()
    assert {len(one) for one in said} == {1, 2, 3}
    assert some_of(scenes.digits, random.Random(0)) == said


def test_of_which_scenes_a_caption_is_true():
    found = is_true_of([[3], [3, 8], [8, 3], [1]], torch.tensor([[3, -1], [8, 3], [1, 3]]))
    wanted = [[True, False, False, False], [True, True, True, False], [True, False, False, True]]
    assert found.tolist() == wanted


def test_the_tokenizer_is_what_its_script_writes(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["vocabulary", f"--out={tmp_path / 'new.json'}"])
    main()
    assert (tmp_path / "new.json").read_text() == (FOLDER / "tokenizer.json").read_text()


def test_the_tokenizer_frames_pads_and_lowers():
    tokenizer = demo_clip_tokenizer()
    read = tokenizer(["A photo of an Eight.", "a two, a dog"], return_tensors="pt", padding=True)
    rows = [tokenizer.convert_ids_to_tokens(row.tolist()) for row in read["input_ids"]]
    assert rows[0] == ["<|startoftext|>", "a", "photo", "of", "an", "eight", ".", "<|endoftext|>"]
    assert rows[1] == ["<|startoftext|>", "a", "two", ",", "a", "<unk>", "<|endoftext|>", "<pad>"]
    assert read["attention_mask"].sum(1).tolist() == [8, 7]
    assert tokenizer.get_vocab() == {word: number for number, word in enumerate(vocabulary())}


@pytest.mark.parametrize("name", PROMPTS)
def test_every_template_takes_every_digit(name):
    words = demo_clip_tokenizer()
    for template in TEMPLATES:
        assert words.unk_token_id not in words(template.format(name))["input_ids"]
