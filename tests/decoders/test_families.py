"""Language models of many families: tokens and biases sum to the score, later words have nothing, padding changes
nothing, heads on the last word; and those that no rule covers are refused by the name of the operation."""

from __future__ import annotations

import copy
import re
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import captum_vit as cv
from tests.decoders.families import COMPLETE, FAMILIES, IN_FLOAT32, REFUSED, classifier, decoder

N = 6  # the prompt
IDS = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(0))
CLASSIFIERS = [name for name in COMPLETE if name not in ("Cohere2", "Granite")]  # of which there are none
WITHOUT_PARTS = dict.fromkeys(("Cohere2", "Falcon", "GPT-J", "GPT-NeoX", "Phi"), "feed-forward run side by side")
WITHOUT_PARTS |= dict.fromkeys(("Gemma2", "Gemma3", "OLMo2"), "rsqrt, mul in between")


@pytest.mark.parametrize("rule", ["frozen", "libra"])
@pytest.mark.parametrize("name", COMPLETE)
def test_tokens_and_biases_sum_to_the_score(name: str, rule: str) -> None:
    model = decoder(name)
    answer = cv.Answer(model, N)
    with torch.no_grad():
        scores = answer(IDS)[:, 1]
    found = cv.FullGrad(answer, rule=rule).attribute(IDS, target=1)
    torch.testing.assert_close(found.sum(1), scores, rtol=0, atol=1e-6 if name in IN_FLOAT32 else 1e-12)
    assert found[:, : N + 1].any() and not found[:, N + 1 :].any()
    if rule == "frozen":
        pairs = [(N, int(word)) for word in IDS[:, N + 1]]
        torch.testing.assert_close(cv.FullGrad(model, rule=rule).attribute(IDS, target=pairs), found)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPLETE)
def test_padding_on_either_side_changes_nothing(name: str) -> None:
    model = decoder(name)
    if name == "Gemma2":  # its own attention has no number for a row that is hidden throughout in float64
        with pytest.raises(cv.InputError, match="NaN"):
            hidden = (torch.arange(9) > 1).long().expand_as(IDS)
            cv.FullGrad(cv.Answer(model, N)).attribute(IDS, 1, hidden)
        model = copy.deepcopy(model).float()
    method, left = (cv.FullGrad(cv.Answer(model, n), rule="frozen") for n in (N, N + 2))
    alone = method.attribute(IDS[1:, :8], target=1)
    both = torch.stack([IDS[0, :8], IDS[1, :8]])
    torch.testing.assert_close(method.attribute(both, target=1)[1:], alone, rtol=0, atol=1e-6)
    for explain, (before, behind) in ((method, (0, 2)), (left, (2, 0))):
        sides, at = (before, behind), slice(before, before + 8)
        found = explain.attribute(F.pad(IDS[1:, :8], sides), 1, F.pad(torch.ones(1, 8).long(), sides))
        torch.testing.assert_close(found[:, at], alone, rtol=0, atol=2e-6)
        assert found.count_nonzero() == found[:, at].count_nonzero()


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_reads_the_last_word_that_is_no_padding(name: str) -> None:
    model, ids = classifier(name), torch.cat([IDS[:1], F.pad(IDS[1:, :5], (0, 4))])
    before = list(signature(model.forward).parameters).index("attention_mask") - 1
    for method in ("DecompX", "GenAtt", "LayerCDAM", "PredictionMap"):
        explain = cv.METHODS[method](model).attribute
        both, alone = explain(ids, 1, (*[None] * before, (ids > 0).long())), explain(ids[1:, :5], 1)
        torch.testing.assert_close(both[1:, :5], alone, rtol=0, atol=2e-6)
        assert alone.any() and not both[1, 5:].any()


@pytest.mark.parametrize("name", WITHOUT_PARTS)
def test_a_method_names_the_part_that_a_family_lacks(name: str) -> None:
    with pytest.raises(cv.UnsupportedModelError, match=WITHOUT_PARTS[name]):
        cv.VTranM(cv.Answer(decoder(name), N)).attribute(IDS, target=1)


def test_the_page_has_the_figures_of_all_families() -> None:
    page = (Path(__file__).parents[2] / "docs" / "language-models.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+?) \| [\d.]+ \| (.+?) \| (.+?) \|.*$", page, re.MULTILINE)
    assert [name for name, *_ in rows] == list(FAMILIES)
    for name, frozen, libra in rows:
        bound = 1e-6 if name in IN_FLOAT32 else 1e-12
        assert frozen.startswith("refused") if name in REFUSED else max(float(frozen), float(libra)) < bound


WORDS = {
    "Bloom": "GeLUFunction",
    "Mamba": r"`torch.matmul` \(MambaMixer",
    "Mamba-2": r"`torch.functional.einsum` \(Mamba2Mixer",
    "Qwen3-Next": r"`torch.Tensor.matmul` \(Qwen3NextGatedDeltaNet",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_rule_covers_is_refused_by_name(name: str) -> None:
    with pytest.raises(cv.UnsupportedModelError, match=WORDS[name]):
        cv.DecompX(cv.Answer(decoder(name), N)).attribute(IDS, target=1)
