"""TokenAblation: its passes, its options, and what its map means. The twin is in test_twins.py."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from tests.models import CASES, CLASSES, TEXTS, Case

IMAGES = ("timm ViT", "timm SigLIP", "timm ViT registers", "timm BEiT", "HF CLIP")


def double(name: str) -> Case:
    case = CASES[name]()
    inputs = case.inputs.double() if case.inputs.is_floating_point() else case.inputs
    return case._replace(forward_func=copy.deepcopy(case.forward_func).double(), inputs=inputs)


def explain(method: cv.TokenAblation, case: Case, **options: object) -> Tensor:
    return method.attribute(case.inputs, case.target, case.additional_forward_args or None, **options)


def batches(model: nn.Module) -> list[int]:
    """The number of rows of every pass from now on."""
    seen: list[int] = []
    cv.spec_of(model).modules()[0].register_forward_hook(lambda m, a, out: seen.append(len(out)))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("name", [*IMAGES, *TEXTS])
def test_portions_change_nothing(name: str):
    case = double(name)
    wanted = explain(cv.TokenAblation(case.forward_func), case)
    for internal in (1, 2, 7, 1000):
        found = explain(cv.TokenAblation(case.forward_func), case, internal_batch_size=internal)
        assert (found - wanted).abs().max() < 1e-12 * wanted.abs().max(), internal


@pytest.mark.parametrize("internal", [None, 1, 5, 48])
def test_the_passes_are_as_documented(internal: int | None):
    """The whole batch, a trial of two rows twice, and every patch of every sample once."""
    case = double("timm ViT")
    seen = batches(case.forward_func)
    explain(cv.TokenAblation(case.forward_func), case, internal_batch_size=internal)
    assert seen[:3] == [3, 2, 2]
    assert len(seen[3:]) == math.ceil(3 * 16 / (internal or 3))
    assert sum(seen[3:]) == 3 * 16 and max(seen[3:]) <= (internal or 3)


def test_the_passes_of_a_text_are_its_words():
    case = double("HF BERT")
    cv.spec_of(case.forward_func, case.inputs, case.additional_forward_args)  # the first pass finds the blocks
    seen = batches(case.forward_func)
    explain(cv.TokenAblation(case.forward_func), case)
    assert seen[0] == 3 and sum(seen[1:]) == case.additional_forward_args[0].sum()


def test_one_patch_by_timms_own_patch_dropout():
    """The forward of the library, with a row cut out where it would drop patches itself in training."""
    case = double("timm ViT registers")
    model = case.forward_func
    found = cv.TokenAblation(model, score="logit", output="tokens").attribute(case.inputs, case.target)
    whole = model(case.inputs)
    for i in (5, 9, 20):
        others = [j for j in range(21) if j != i]
        handle = model.patch_drop.register_forward_hook(lambda m, a, out, others=others: out[:, others])
        without = model(case.inputs)
        handle.remove()
        wanted = (whole - without)[range(3), case.target]
        assert (found[:, i] - wanted).abs().max() < 1e-12
    assert not found[:, :5].any(), "prefix tokens stay"


@pytest.mark.slow
def test_scores():
    """The probability of a classifier, the raw value of a target; they differ in what they say."""
    case = double("timm ViT")
    model = case.forward_func
    auto, prob, logit = (explain(cv.TokenAblation(model, score=s), case) for s in ("auto", "prob", "logit"))
    assert torch.equal(auto, prob) and not torch.allclose(auto, logit)
    margin = cv.TokenAblation(cv.Margin(model, 1, 2)).attribute(case.inputs)
    one, other = (cv.TokenAblation(model, score="logit").attribute(case.inputs, target=c) for c in (1, 2))
    assert (margin - (one - other)).abs().max() < 1e-12
    assert (one > 0).any() and (one < 0).any()
    with pytest.raises(cv.OptionError, match="score"):
        cv.TokenAblation(model, score="odds")


@pytest.mark.slow
def test_probabilities_of_all_classes_sum_to_nothing():
    """What one class loses, the others gain."""
    case = double("timm SigLIP")
    maps = [cv.TokenAblation(case.forward_func).attribute(case.inputs, target=c) for c in range(CLASSES)]
    assert sum(maps).abs().max() < 1e-12


def test_a_head_that_scores_every_token():
    """The score of one token's class, without each of the words in turn."""
    import transformers

    from tests.models import SIZES, VOCABULARY, padded, redrawn

    config = transformers.BertConfig(**SIZES | VOCABULARY, num_labels=CLASSES)
    model = redrawn(transformers.BertForTokenClassification(config)).double()
    ids, mask = padded()
    found = cv.TokenAblation(model, score="logit").attribute(ids, [(2, 1), (3, 0), (1, 4)], (mask,))
    whole = model(ids, mask).logits
    for i in (0, 3):
        hidden = mask.clone()
        hidden[:, i] = 0
        wanted = (whole - model(ids, hidden).logits)[range(3), [2, 3, 1], [1, 0, 4]]
        assert (found[:, i] - wanted).abs().max() < 1e-12
    assert not found[mask == 0].any()


def test_a_model_whose_tokens_mix_past_the_attention_is_refused():
    case = CASES["timm ViT"]()
    model = copy.deepcopy(case.forward_func)
    model.blocks[1].mlp.register_forward_hook(lambda m, a, out: out + out.roll(1, 1))
    with pytest.raises(cv.UnsupportedModelError, match=r"reach each other behind the attention \(roll\)"):
        explain(cv.TokenAblation(model), case)


@pytest.mark.parametrize("internal", [0, -1])
def test_a_wrong_internal_batch_size(internal: int):
    case = CASES["timm ViT"]()
    with pytest.raises(cv.OptionError, match="internal_batch_size"):
        explain(cv.TokenAblation(case.forward_func), case, internal_batch_size=internal)


def test_a_wrong_target_is_refused_before_the_work():
    case = CASES["timm ViT"]()
    model = copy.deepcopy(case.forward_func)
    seen = batches(model)
    with pytest.raises(cv.TargetError):
        cv.TokenAblation(model).attribute(case.inputs, target=99)
    assert seen == [3]


def test_progress(capsys: pytest.CaptureFixture[str]):
    case = CASES["timm ViT"]()
    quiet = explain(cv.TokenAblation(case.forward_func), case)
    assert not capsys.readouterr().err
    assert torch.equal(explain(cv.TokenAblation(case.forward_func), case, show_progress=True), quiet)
    assert "Token Ablation" in (err := capsys.readouterr().err) and "16/16" in err
