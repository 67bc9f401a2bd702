"""Tokens that go away inside the model: on pictures and on texts, against passes by hand."""

import copy

import pytest
import torch
from torch import nn

import captum_vit as cv
from captum_vit.errors import InputError, ModelStateError, UnsupportedModelError
from quantus_metrics.bridge import logits, wrap
from quantus_metrics.perturb import DropTokens, MaskKeys, ReplaceTokens, curves, rank, removable_words
from tests.models import CASES
from tests.references.forward import embed, forward, read, run
from tests.references.models import reference_bert, reference_images, reference_sentences, reference_vit

EXACT = 1e-10
REMOVERS = [DropTokens(), DropTokens(fallback=False), MaskKeys()]
SPECIAL = (1, 2)  # CLS and SEP of the reference sentences


def half(n=2, places=16):
    return torch.rand(n, places).argsort(1) < places // 2


@pytest.mark.parametrize("remover", REMOVERS, ids=repr)
def test_patches_are_not_there(remover):
    """The rows are cut out of the sequence by hand, positions added before."""
    model, images = reference_vit(), reference_images()
    gone = half().unflatten(1, (4, 4))
    found = remover.bind(model, images)(torch.tensor([1, 0]), gone)
    for row, lost, scores in zip((1, 0), gone.flatten(1), found, strict=True):
        left = embed(model, images[row])[0][[0, *(1 + (~lost).nonzero().flatten()).tolist()]]
        wanted = run(read(model), left, torch.ones(len(left), dtype=torch.bool)).logits
        assert (scores - wanted).abs().max() < EXACT


@pytest.mark.parametrize("remover", REMOVERS, ids=repr)
def test_words_are_not_there(remover):
    model, (ids, mask) = reference_bert(), reference_sentences()
    gone = half(places=ids.shape[1]) & removable_words(ids, mask, SPECIAL)
    found = remover.bind(model, ids, (mask,))(torch.arange(2), gone)
    for row in range(2):
        x, real = embed(model, (ids[row], mask[row]))
        left = (~gone[row]).nonzero().flatten()
        assert (run(read(model), x[left], real[left]).logits - found[row]).abs().max() < EXACT


@pytest.mark.parametrize("remover", REMOVERS, ids=repr)
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
def test_where_nothing_is_gone_it_is_the_model(timm_vit, remover, wrapped):
    images = torch.randn(3, 3, 32, 32)
    model = wrap(timm_vit) if wrapped else timm_vit
    found = remover.bind(model, images)(torch.arange(3), torch.zeros(3, 4, 4, dtype=torch.bool))
    with torch.no_grad():
        assert torch.equal(found, timm_vit(images))


def test_a_half_precision_model_of_hugging_face(hf_vit):
    model, images, gone = copy.deepcopy(hf_vit).bfloat16(), torch.randn(2, 3, 32, 32), half().unflatten(1, (4, 4))
    found = DropTokens().bind(wrap(model), images)(torch.arange(2), gone)
    wanted = DropTokens().bind(hf_vit, images)(torch.arange(2), gone)
    assert found.dtype == torch.float32
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_dropping_falls_back_to_hiding_or_says_why_not():
    """Relative distances would shrink with the sequence."""
    case = CASES["HF DeBERTa-v2"]()
    gone = torch.zeros(3, 9, dtype=torch.bool)
    gone[:, [1, 2]] = True
    call = (case.forward_func, case.inputs, case.additional_forward_args)
    found = DropTokens().bind(*call)(torch.arange(3), gone)
    assert torch.equal(found, MaskKeys().bind(*call)(torch.arange(3), gone))
    with pytest.raises(UnsupportedModelError, match="dropped"):
        DropTokens(fallback=False).bind(*call)(torch.arange(3), gone)


def test_curves_of_dropped_patches(timm_vit):
    """Step by step as one would write it, in any size of passes; the same for hidden keys."""
    images, relevance, target = torch.randn(2, 3, 32, 32), torch.randn(2, 4, 4), torch.tensor([1, 4])
    fractions = (0, 0.1, 0.5, 1)
    found = curves(timm_vit, images, target, relevance, remover=DropTokens(), fractions=fractions)
    for internal in (1, 3):
        again = curves(
            timm_vit, images, target, relevance,
            remover=DropTokens(), fractions=fractions, internal_batch_size=internal,
        )  # fmt: skip
        hidden = curves(timm_vit, images, target, relevance, remover=MaskKeys(), fractions=fractions)
        for order, curve in found.items():
            torch.testing.assert_close(again[order].scores, curve.scores, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(hidden[order].scores, curve.scores, rtol=1e-5, atol=1e-5)
    for order in ("mif", "lif"):
        leaving = rank(relevance, order).flatten(1)
        for b in range(2):
            for k, n in enumerate((0, 2, 8, 16)):
                kept = (leaving[b] >= n).nonzero().flatten() + 1
                hook = timm_vit.patch_drop.register_forward_hook(lambda m, a, out, kept=kept: out[:, [0, *kept]])
                with torch.no_grad():
                    score = timm_vit(images[b : b + 1])[0, target[b]]
                hook.remove()
                torch.testing.assert_close(found[order].scores[b, k], score, rtol=1e-5, atol=1e-5)


def test_curves_of_a_text():
    """Padding is never chosen and special tokens stay; each text loses its own share."""
    model, (ids, mask) = reference_bert(), reference_sentences()
    relevance, target = torch.randn(ids.shape), torch.tensor([3, 0])
    among, fractions = removable_words(ids, mask, SPECIAL), (0, 0.3, 0.75, 1)
    for remover in (None, MaskKeys()):
        found = curves(model, ids, target, relevance, remover=remover, fractions=fractions, args=(mask,), among=among)
        for order, sign in (("mif", -1), ("lif", 1)):
            for b in range(2):
                free = among[b].nonzero().flatten().tolist()
                leaving = sorted(free, key=lambda i: sign * relevance[b, i].item())
                for k, fraction in enumerate(fractions):
                    lost = leaving[: int(fraction * len(free) + 0.5)]
                    by_hand = forward(model, (ids[b], mask[b]), hide={layer: lost for layer in range(3)})
                    assert (by_hand.logits[target[b]] - found[order].scores[b, k]).abs() < EXACT


def test_words_may_be_replaced_instead():
    model, (ids, mask) = reference_bert(), reference_sentences()
    gone = half(places=ids.shape[1]) & removable_words(ids, mask, SPECIAL)
    found = logits(ReplaceTokens(39).bind(model, ids, (mask,))(torch.arange(2), gone))
    for row in range(2):
        words = torch.tensor([39 if lost else word for word, lost in zip(ids[row], gone[row], strict=True)])
        assert (forward(model, (words, mask[row])).logits - found[row]).abs().max() < EXACT


def test_one_pass_for_each_call(timm_vit):
    """And three rows of trial before, once."""
    images, sizes = torch.randn(4, 3, 32, 32), []
    cv.spec_of(timm_vit, images)  # the first pass finds the blocks
    timm_vit.blocks[1].register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))  # an embedding is no pass
    answer = DropTokens().bind(timm_vit, images)
    for _ in range(2):
        answer(torch.arange(4), half(4).unflatten(1, (4, 4)))
    assert sizes == [2, 2, 4, 4]


def test_what_is_left_costs_less(timm_vit):
    lengths = []
    timm_vit.blocks[1].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    DropTokens().bind(timm_vit, torch.randn(2, 3, 32, 32))(torch.arange(2), half().unflatten(1, (4, 4)))
    assert lengths[-1] == 1 + 8


def test_errors(timm_vit):
    images = torch.randn(2, 3, 32, 32)
    for remover in REMOVERS:
        with pytest.raises(UnsupportedModelError, match="itself"):
            remover.bind(lambda x: x, images)
        with pytest.raises(UnsupportedModelError):
            remover.bind(nn.Conv2d(3, 2, 4).eval(), images)
        with pytest.raises(InputError, match="Finite"):
            remover.bind(timm_vit, images * torch.nan)
        with pytest.raises(InputError, match="One place for each"):
            remover.bind(timm_vit, images)(torch.arange(2), torch.ones(2, 2, 2, dtype=torch.bool))
        with pytest.raises(ModelStateError, match="eval"):
            remover.bind(copy.deepcopy(timm_vit).train(), images)
    with pytest.raises(InputError, match="Token ids"):
        ReplaceTokens(3).bind(timm_vit, images)
    ids = torch.arange(6).view(2, 3)
    for among in (torch.ones(2, 3), torch.ones(3, 2).bool(), torch.zeros(2, 3).bool()):
        with pytest.raises(InputError, match="among"):
            curves(timm_vit, ids, 0, torch.randn(2, 3), among=among)


def test_a_method_of_a_module_is_its_module(timm_vit):
    images, gone = torch.randn(2, 3, 32, 32), half().unflatten(1, (4, 4))
    found = DropTokens().bind(timm_vit.forward, images)(torch.arange(2), gone)
    assert torch.equal(found, DropTokens().bind(timm_vit, images)(torch.arange(2), gone))
