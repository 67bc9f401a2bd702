"""The section of reviews: marks that mean what they say, a picture and a page."""

from pathlib import Path

import pytest
import torch

from captum_vit import METHODS
from captum_vit.demo import demo_bert_tokenizer, generated_reviews
from captum_vit.demo.reviews import read
from captum_vit.errors import InputError
from quantus_metrics.demo import reviews
from quantus_metrics.demo.reviews import COLUMNS, on_rationale, run, task, values


def on_words(tokens, of_words: torch.Tensor) -> torch.Tensor:
    """Relevance of words, put on the first piece of each; the tokens that frame a text get much."""
    first = torch.zeros(tokens.ids.shape)
    for i, row in enumerate(tokens.word.tolist()):
        for t, word in enumerate(row):
            first[i, t] = 7.0 if word < 0 else of_words[i, word] * (row.index(word) == t)
    return first


def test_the_rationale_itself_gets_full_marks_and_its_opposite_none() -> None:
    tasks = {"plain": task(12, False, 0), "negated": task(12, True, 0)}
    right = {kind: on_words(of.tokens, of.tokens.rationale.float()) for kind, of in tasks.items()}
    assert values(tasks, right) == {"plain": 1, "negated": 1, "mass": 1}
    wrong = {kind: on_words(of.tokens, 1 - of.tokens.rationale.float()) for kind, of in tasks.items()}
    assert values(tasks, wrong) == {"plain": 0, "negated": 0, "mass": 0}


def test_mass_is_a_share_of_what_speaks_for_the_label() -> None:
    tokens = read(generated_reviews(8, seed=1), demo_bert_tokenizer())
    of_words = torch.randn(tokens.present.shape) * tokens.present
    found = on_rationale(tokens, on_words(tokens, of_words))
    for i in range(8):
        positive = [value for value in of_words[i].tolist() if value > 0]
        inside = [value for value, decides in zip(of_words[i].tolist(), tokens.rationale[i], strict=True) if decides]
        assert found[i].item() == pytest.approx(sum(value for value in inside if value > 0) / sum(positive), abs=1e-6)
    assert not on_rationale(tokens, on_words(tokens, -tokens.present.float())).any()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory):
    """By those methods that are shown and some others; tests/contracts explains a BERT by all."""
    folder = tmp_path_factory.mktemp("reviews")
    few = {name: METHODS[name] for name in (*reviews.SHOWN, "RandomAttribution", "TokenAblation", "LRP")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reviews, "METHODS", few)
        return run(folder / "reviews.png", n=4, seed=1), folder, set(few)


@pytest.mark.slow
def test_every_method_is_marked(ran) -> None:
    marks, _, methods = ran
    assert {mark.method for mark in marks} == methods and marks[-1].method == "RandomAttribution"
    for mark in marks:
        assert set(mark.values) == set(COLUMNS)
        assert all(0 <= mark.values[name] <= 1 for name in ("plain", "negated", "mass")) and mark.values["time"] > 0
    assert marks[0].values["plain"] > 0.9


@pytest.mark.slow
def test_it_leaves_a_picture_and_a_page(ran) -> None:
    _, folder, _ = ran
    assert (folder / "reviews.png").stat().st_size > 10_000
    page = (folder / "reviews.html").read_text(encoding="utf-8")
    assert "GenAtt" in page and "http" not in page and "<script" not in page and "##" not in page
    assert {path.name for path in folder.iterdir()} == {"reviews.png", "reviews.html"}


@pytest.mark.parametrize("taken", ["reviews.png", "reviews.html"])
def test_nothing_is_replaced_unasked(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(InputError, match="overwrite"):
        run(tmp_path / "reviews.png", n=1)
    assert (tmp_path / taken).read_text() == "mine"
