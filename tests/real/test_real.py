"""The scripts without weights: what they ask, how they mark, and that the page shows what they print."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantus_metrics.perturb import Fill
from tests.real.boxes import PHOTOGRAPHS, SIDE, halves, photograph
from tests.real.dinov2 import SIZES, BoxSaliency, Head
from tests.real.linear import DECAY, PAIRS, POOLINGS, Classifier, fitted, pairs
from tests.real.marks import COLUMNS, ROWS, Pairs, area, correlation, points
from tests.real.sentences import CLAUSES, scenes, within

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "real-models.md").read_text("utf-8")
LEFT, RIGHT = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([0, 0, 1, 0]).bool()


def test_marks_by_hand() -> None:
    relevance = torch.tensor([0.1, 0.5, 0.5, 9.0])
    assert area(relevance, LEFT, RIGHT) == 0.25  # below once, equal once
    assert area(relevance, RIGHT, LEFT) == 0.75
    assert points(relevance, LEFT, LEFT | RIGHT)  # the first of two equal ones
    assert not points(relevance, LEFT, LEFT | RIGHT | ~LEFT)
    assert correlation(relevance, -2 * relevance + 1) == pytest.approx(-1)
    assert correlation(torch.ones(3), torch.ones(3)) == 1


class Sum(nn.Module):
    """Output k is the sum of half k of a picture of 2 x 2 patches."""

    def forward(self, images: Tensor) -> Tensor:  # shape: (B, 1, 4, 4)
        return torch.stack([images[..., :2].sum((1, 2, 3)), images[..., 2:].sum((1, 2, 3))], 1)


def test_a_map_that_is_right_has_the_best_marks() -> None:
    left = torch.tensor([[True, False], [True, False]])
    image = torch.cat([torch.full((1, 1, 4, 2), 3.0), torch.ones(1, 1, 4, 2)], -1)
    quarters = [0, 0.25, 0.5, 0.75, 1]
    own = torch.stack([left, ~left])[None]
    pairs = Pairs(Sum(), image, (), torch.tensor([[0, 1]]), own, Fill(0.0), measured=1, fractions=quarters)
    truth = torch.stack([left * 12.0, ~left * 4.0])[None]  # each patch's part of its sum
    pointing, auc, fidelity, correlated = pairs.marks(truth)
    assert (pointing, auc) == (1, 1) and correlated == pytest.approx(-1)
    assert fidelity == pytest.approx((12 + 4) / 2)  # from 24: 24 24 24 12 0 above 24 12 0 0 0; from 8 the same
    assert pairs.marks(torch.ones(1, 2, 2, 2)) == (0.5, 0.5, 0, 1)


def test_each_clause_is_told_apart() -> None:
    for scene in scenes():
        (a, b), clauses = scene.spans, list(CLAUSES)
        assert scene.text[a[0] : a[1]].lower() == clauses[scene.first]
        assert scene.text[b[0] : b[1]] == clauses[scene.second] and scene.first != scene.second
    offsets = torch.tensor([[0, 0], [0, 3], [3, 5], [5, 6]])
    assert within(offsets, (0, 5)).tolist() == [False, True, True, False]


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_photograph_is_a_square(name: str) -> None:
    found = photograph(name)
    assert found.shape == (3, SIDE, SIDE) and found.std() > 0.1 and 0 <= found.min() < found.max() <= 1


def test_a_box_is_the_mean_over_its_patches() -> None:
    torch.manual_seed(0)

    class Backbone(nn.Module):
        def forward(self, images: Tensor) -> object:
            return type("Output", (), {"last_hidden_state": images})

    tokens, boxes = torch.randn(2, 1 + 8 * 16, SIZES["hidden_size"]), halves()
    model = BoxSaliency(Backbone(), Head(), boxes).eval()
    with torch.no_grad():
        saliency, found = model.saliency(tokens), model(tokens)
    assert saliency.shape == (2, 64, 128)
    torch.testing.assert_close(
        found, torch.stack([saliency[..., :64].mean((1, 2)), saliency[..., 64:].mean((1, 2))], 1)
    )


def test_a_classifier_is_the_optimum_for_plain_features() -> None:
    torch.manual_seed(0)
    classes = torch.arange(3).repeat(20)
    x = 5 + torch.randn(60, 4) * torch.tensor([0.1, 1, 10, 1]) + F.one_hot(classes, 4)
    head = fitted(x, classes)
    std = x.std(0)
    weight, bias = (head.weight * std).requires_grad_(), (head.bias + head.weight @ x.mean(0)).requires_grad_()
    logits = (x - x.mean(0)) / std @ weight.T + bias
    loss = F.cross_entropy(logits, classes) + DECAY / 2 * weight.square().sum()
    assert max(g.abs().max() for g in torch.autograd.grad(loss, (weight, bias))) < 1e-4
    torch.testing.assert_close(logits.detach(), head(x), atol=1e-4, rtol=1e-4)


def test_pairs_are_of_different_classes_and_classified_right() -> None:
    classes, right = torch.arange(10).repeat(8), torch.rand(80) < 0.9
    found = pairs(classes, right, torch.Generator().manual_seed(0))
    assert found.shape == (PAIRS, 2) and len(found.unique()) == 2 * PAIRS and right[found].all()
    assert (classes[found[:, 0]] != classes[found[:, 1]]).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_classifier_reads_what_it_was_fitted_to(pooling: str) -> None:
    class Backbone(nn.Module):
        def forward(self, images: Tensor) -> object:
            return type("Output", (), {"last_hidden_state": images})

    tokens = torch.randn(2, 5, 4)
    head = nn.Linear(8 if pooling == "both" else 4, 3)
    wanted = {"cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1)}
    pooled = torch.cat([*wanted.values()], 1) if pooling == "both" else wanted[pooling]
    torch.testing.assert_close(Classifier(Backbone(), pooling, head)(tokens), head(pooled))


@pytest.mark.parametrize("script", ["sentences", "boxes", "linear"])
def test_without_a_model_a_script_says_what_it_wants(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "tests" / "real" / f"{script}.py"), run_name="__main__")
    assert not end.value.code
    said = capsys.readouterr().out
    assert said.startswith("skipped: no model given") and "docs/real-models.md" in said


def test_the_page_shows_what_the_scripts_print() -> None:
    tables = re.findall(r"^\| method \| (.+) \|\n\|[-:|]+\|\n((?:\| .*\n)+)", PAGE, re.MULTILINE)
    assert len(tables) == 5
    for header, rows in tables:
        assert tuple(header.split(" | ")) == COLUMNS
        assert tuple(row.split(" | ")[0].removeprefix("| ") for row in rows.splitlines()) == ROWS
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", PAGE):
        assert (ROOT / "docs" / picture).stat().st_size < 150_000
