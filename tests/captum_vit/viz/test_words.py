"""Text maps: one ground per token, nothing from a token is ever markup."""

from html.parser import HTMLParser

import pytest
import torch
from captum.attr import visualization

from captum_vit.errors import InputError
from captum_vit.viz import text
from captum_vit.viz.lines import INK, ground
from captum_vit.viz.pieces import merged, pieces

TOKENS = ["[CLS]", "un", "##believ", "##able", "<script>alert(1)</script>", "\"&'$x_1$", "[SEP]"]


class Reader(HTMLParser):
    """What a browser would make of it: tags, the paragraphs of words, and all other text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.lines: list[str] = []
        self.words: list[str] = []
        self.others: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        if tag == "p":
            self.inside = True
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "p"

    def handle_data(self, data: str) -> None:
        (self.words if self.inside else self.others).append(data)
        if self.inside:
            self.lines[-1] += data


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
    shown = text(["a"], torch.randn(2, 1), rows=["<script>alert(1)</script>", "&"])
    assert set(read(shown.html).tags) == {"div", "p", "span"}
    assert {"<script>alert(1)</script>", "&"} < set(read(shown.html).others)


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
        (["[CLS]", "Hello", "Ġcaf", "Ã©", "Ċ", "Ġna", "Ã", "¯", "ve", "[SEP]"], "[CLS] Hello café⏎ naïve [SEP]"),
    ],
)
def test_word_pieces_read_as_words(tokens: list[str], words: str):
    assert "".join(p.text if p.glued else f" {p.text}" for p in pieces(tokens)).strip() == words


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

    def luminance(colour: str) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for strength in torch.linspace(-1, 1, 21):
        assert (luminance(ground(strength)) + 0.05) / (luminance(INK) + 0.05) >= 4.5


MERGED = [
    (["[CLS]", "play", "##ing", "[UNK]", "[SEP]"], "[CLS] playing [UNK] [SEP]"),
    (["<s>", "Hello", "Ġwor", "ld", ",", "Ġdon", "'t", "Ġwell", "-", "known", ".", "</s>"],
     "<s> Hello world , don't well - known . </s>"),
    (["▁Hello", "▁wor", "ld", "!", "</s>"], "Hello world ! </s>"),
    (["<|startoftext|>", "do", "g</w>", "run", "s</w>", "<|endoftext|>"], "<|startoftext|> dog runs <|endoftext|>"),
]  # fmt: skip


def byte_level(word: str) -> str:
    """A word as GPT-2's vocabulary writes its bytes; written out, not by the function that is tested."""
    others = {byte: 256 + place for place, byte in enumerate([*range(33), *range(127, 161), 173])}
    return "".join(chr(others.get(byte, byte)) for byte in word.encode())


LAUGH = byte_level("😀")
MERGED += [
    (["I", "Ġlove", f"Ġ{LAUGH[:3]}", LAUGH[3:]], "I love 😀"),
    (["caf", "Ã©"], "café"),
    ([byte_level("При"), byte_level("вет"), byte_level(" мир")], "Привет мир"),
    ([byte_level("日本")[:4], byte_level("日本")[4:], byte_level("語")], "日本語"),
    (["<|startoftext|>", "caf", "Ã©</w>", "dog</w>", "<|endoftext|>"], "<|startoftext|> café dog <|endoftext|>"),
    (["▁Hello", "▁", "世界", "▁", "(", "a"], "Hello 世界 ( a"),
    (["Hello", "Ġ", "世界", "Ġyou"], "Hello 世界 you"),
    (["▁Hi", "▁", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "▁you"], "Hi 😀 you"),
    (["क", "##ि", "##ताब"], "किताब"),
    (["[CLS]", "était", "ma", "##ł", "##y", "ł", "Ã", "[SEP]"], "[CLS] était mały ł Ã [SEP]"),
]


@pytest.mark.parametrize(("tokens", "words"), MERGED)
def test_pieces_are_merged_into_words(tokens: list[str], words: str):
    found = merged(pieces(tokens))
    assert [piece.text for piece in found] == words.split()
    assert [i for piece in found for i in piece.tokens] == list(range(len(tokens)))
    scores = torch.rand(2, len(tokens), dtype=torch.float64)
    shown = text(tokens, scores, words=True)
    assert torch.allclose(shown.scores.sum(1), scores.sum(1).float(), atol=1e-6)
    assert torch.allclose(text(tokens, scores).scores.sum(1), scores.sum(1).float(), atol=1e-6)


IDS = [
    (["un", "believ", "able"], [0, 0, 0], ["unbelievable"]),
    (["▁Hello", ",", "▁", "世", "界", "</s>"], [0, 0, 1, 1, 1, None], ["Hello,", "世界", "</s>"]),
    (["[CLS]", "a", ".", "[SEP]", "b", "##c"], [None, 0, 1, None, 0, 0], ["[CLS]", "a", ".", "[SEP]", "bc"]),
    (["▁all", "▁one", "▁word", "s"], [0, 0, 0, 0], ["all", "one", "words"]),
    (["a", "</s>", "</s>", "b"], [0, None, None, 0], ["a", "</s>", "</s>", "b"]),
]  # fmt: skip


@pytest.mark.parametrize(("tokens", "word_ids", "words"), IDS)
def test_words_are_those_of_the_tokenizer_where_it_tells_them(tokens: list, word_ids: list, words: list):
    shown = text(tokens, torch.ones(len(tokens)), words=True, word_ids=word_ids)
    assert list(shown.words) == words and shown.scores.sum() == len(tokens)
    with pytest.raises(InputError, match="word id"):
        text(tokens, torch.ones(len(tokens)), word_ids=word_ids[1:])


def test_a_character_is_shown_whole():
    shown = text(["I", f"Ġ{LAUGH[:3]}", LAUGH[3:], "Ġ"], torch.tensor([1.0, 2, 3, 4]))
    assert shown.words == ("I", "😀", "␣") and shown.scores.tolist() == [[1, 5, 4]]
    assert "�" not in shown.html and "😀" in shown.html


def test_a_word_has_the_sum_of_its_pieces():
    scores = torch.tensor([[1.0, 0.5, -0.25, 0.5, 2.0, 1.0, -1.0], [0, 1, 1, 1, 0, 0, 0]])
    shown = text(TOKENS, scores, words=True)
    assert shown.words == ("[CLS]", "unbelievable", "<script>alert(1)</script>", "\"&'$x_1$", "[SEP]")
    assert shown.scores.tolist() == [[1, 0.75, 2, 1, -1], [0, 3, 0, 0, 0]]
    assert shown.scores.sum() == scores.sum()
    assert shown.strength[1].tolist() == [0, 1, 0, 0, 0]


def test_special_tokens_are_hidden_by_choice():
    tokens = ["<s>", "a", "<mask>", "</s>", "</s>", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "<pad>"]
    scores = torch.tensor([9.0, 1, -2, 9, 9, 1, 9, 9, 0, 3])
    shown = text(tokens, scores, special=False)
    assert shown.words == ("a", "<mask>", "[UNK]")
    assert shown.strength.tolist() == [[0.5, -1, 0.5]]  # colours of the words alone
    assert text(tokens, scores).words == tuple(token for token in tokens if token != "[PAD]")
    with pytest.raises(InputError, match="special"):
        text(["[CLS]", "[SEP]"], torch.rand(2), special=False)


def test_each_text_of_a_pair_begins_a_line():
    tokens = ["[CLS]", "does", "it", "[SEP]", "it", "does", "[SEP]"]
    for special, lines in ((True, ["[CLS] does it [SEP]", "it does [SEP]"]), (False, ["does it", "it does"])):
        shown = text(tokens, torch.randn(2, 7), segments=[0, 0, 0, 0, 1, 1, 1], special=special)
        assert read(shown.html).lines == lines * 2
        one_line = text(tokens, torch.randn(2, 7), special=special)
        assert shown.figure().get_figheight() > one_line.figure().get_figheight()
    with pytest.raises(InputError, match="segment"):
        text(tokens, torch.rand(7), segments=[0])


def test_captums_records_draw_the_same_words():
    """Escaped, since Captum writes them into its page as they are; in [-1, 1], as its colours want them."""
    shown = text(TOKENS, 5 * torch.randn(2, 7), rows=["<b>good</b>", "bad"], words=True)
    good, bad = shown.records(pred_prob=0.9, pred_class="<i>good</i>", true_class=1)
    assert good.raw_input_ids[2] == "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert good.word_attributions.abs().max() == 1 and len(good.word_attributions) == 5
    assert (good.attr_class, bad.attr_class) == ("&lt;b&gt;good&lt;/b&gt;", "bad")
    assert (good.pred_class, good.true_class, good.pred_prob) == ("&lt;i&gt;good&lt;/i&gt;", 1, 0.9)
    assert good.attr_score == pytest.approx(shown.scores[0].sum().item())
    page = visualization.format_word_importances(good.raw_input_ids, good.word_attributions)
    assert set(read(page).tags) == {"td", "mark", "font"}


def test_the_colours_are_explained():
    assert {"against", "for"} <= {word.strip() for word in read(text(["a"], torch.tensor([-1.0])).html).others}
    assert {"little", "much"} <= {word.strip() for word in read(text(["a"], torch.tensor([1.0])).html).others}
