"""Text maps: one ground per token, nothing from a token is ever markup."""

from html.parser import HTMLParser

import pytest
import torch

from captum_vit.errors import InputError
from captum_vit.viz import text
from captum_vit.viz.words import pieces

TOKENS = ["[CLS]", "un", "##believ", "##able", "<script>alert(1)</script>", "\"&'$x_1$", "[SEP]"]


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def test_tokens_are_escaped_and_read_as_words():
    page = read(text(TOKENS, torch.randn(len(TOKENS))).html)
    assert set(page.tags) == {"div", "p", "span"}
    words = "".join(page.words)
    assert words.split() == ["[CLS]", "unbelievable", "<script>alert(1)</script>", "\"&'$x_1$", "[SEP]"]


def test_labels_are_escaped_too():
    assert "<b>" not in text(["a"], torch.randn(2, 1), rows=["<b>", "&"]).html


def test_values_stand_in_tooltips_and_colours_follow_the_sign():
    shown = text(["good", "bad", "none"], torch.tensor([0.5, -0.5, 0.0]))
    assert 'title="0.5"' in shown.html and 'title="-0.5"' in shown.html
    assert shown.strength.tolist() == [[1, -1, 0]]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["[CLS]", "play", "##ing", "##"], "[CLS] playing ##"),
        (["<s>", "Hello", "Ġwor", "ld", "</s>"], "<s> Hello world </s>"),
        (["▁Hello", "▁wor", "ld", "</s>"], "Hello world </s>"),
        (["<|startoftext|>", "a</w>", "do", "g</w>", "<|endoftext|>"], "<|startoftext|> a dog <|endoftext|>"),
        (["a", "<", "b"], "a < b"),
    ],
)
def test_word_pieces_read_as_words(tokens: list[str], words: str):
    assert "".join(word if glued else f" {word}" for word, glued in pieces(tokens)).strip() == words


def test_a_figure_breaks_lines_and_reads_no_formulas():
    short, long = text(TOKENS, torch.randn(7)), text(TOKENS * 8, torch.randn(2, 56), rows=["a", "b"])
    assert long.figure().get_figheight() > 3 * short.figure().get_figheight()
    short.figure().canvas.draw()


def test_zero_scores_are_drawn_neutrally():
    shown = text(["a", "b"], torch.zeros(2))
    assert shown.strength.abs().sum() == 0
    shown.figure().canvas.draw()


@pytest.mark.parametrize(
    ("tokens", "scores"),
    [
        ([], torch.rand(0)),
        (["a"], torch.rand(2)),
        (["a"], torch.tensor([torch.nan])),
        (["a"], torch.rand(1, 1, 1)),
    ],
)
def test_scores_that_do_not_fit_are_refused(tokens: list[str], scores: torch.Tensor):
    with pytest.raises(InputError):
        text(tokens, scores)


def test_rows_need_a_label_each():
    with pytest.raises(InputError):
        text(["a"], torch.rand(2, 1), rows=["one"])


def test_words_stay_legible_on_every_ground():
    """WCAG's contrast, 4.5 at least, for ink on the deepest colours."""
    from matplotlib.colors import to_rgb

    from captum_vit.viz.words import INK, _ground

    def luminance(colour: str) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for strength in torch.linspace(-1, 1, 21):
        assert (luminance(_ground(strength)) + 0.05) / (luminance(INK) + 0.05) >= 4.5
