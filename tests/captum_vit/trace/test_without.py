"""Without some tokens: dropping is hiding, by hand and over every family; and what cannot be taken away is refused."""

import copy
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.tokens import TokenLayout
from captum_vit.trace.modes.explicit import AttentionTap
from captum_vit.trace.removal.absent import _unmask_hidden_rows, patches_absent, words_absent
from captum_vit.trace.removal.without import Without
from captum_vit.trace.run import passes
from captum_vit.trace.run.state import undisturbed
from captum_vit.trace.run.watch import Watch
from tests.captum_vit.models.families import MORE
from tests.contracts.fingerprint import fingerprint
from tests.models import CASES, FURTHER, TEXTS, TIMM, Case, redrawn, timm_vit
from tests.references.forward import Pass, embed, forward, read, run
from tests.references.models import reference_bert, reference_images, reference_sentences, reference_vit

FAMILIES = [*CASES, *MORE, *FURTHER]
EXACT = 1e-10

# Distances shrink with the sequence; a mean over words reads every row. They are hidden, by the model's own mask.
HIDDEN_ONLY = {"HF DeBERTa-v2", "HF DeBERTa-v3", "HF ModernBERT mean"}


@cache
def precise(name: str) -> Case:
    torch.manual_seed(0)
    made = (CASES | MORE | FURTHER)[name]()
    args = tuple(x.double() if x.is_floating_point() else x for x in made.additional_forward_args)
    inputs = made.inputs.double() if made.inputs.is_floating_point() else made.inputs
    return Case(copy.deepcopy(made.forward_func).double(), inputs, args, made.target)


def without(case: Case, way: str = "auto") -> Without:
    return Without(case.forward_func, (case.inputs,), case.additional_forward_args, way)


def some(case: Case, asked: Without) -> Tensor:  # shape: (3, P)
    """Half of the patches, or of the words behind the first; of each sample others."""
    if not asked.text:
        places = torch.arange(asked.whole()[1].grid[0] * asked.whole()[1].grid[1])
        chosen = torch.stack([places[torch.randperm(len(places))[: len(places) // 2]] for _ in range(3)])
    else:
        lengths = case.additional_forward_args[0].sum(1) if case.additional_forward_args else torch.tensor([9, 6, 4])
        chosen = torch.stack([1 + torch.randperm(int(n) - 2)[:2] for n in lengths])
    shape = (3, len(places) if not asked.text else case.inputs.shape[1])
    return torch.zeros(shape, dtype=torch.bool).scatter(1, chosen, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_dropping_is_hiding(name: str):
    case, everyone = precise(name), torch.arange(3)
    with undisturbed(case.forward_func):
        auto, mask = without(case), without(case, "mask")
        gone = some(case, auto)
        found, wanted = auto(everyone, gone), mask(everyone, gone)
        plain, _ = auto.whole()
    assert (auto.way, mask.way) == ("mask" if name in HIDDEN_ONLY else "drop", "mask")
    assert (found - wanted).abs().max() < EXACT
    assert (found - plain).abs().amax(1).min() > 1e-3, "each sample misses what is gone"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["drop", "mask"])
@pytest.mark.parametrize("name", FAMILIES)
def test_without_nothing_it_is_the_model(name: str, way: str):
    case = (CASES | MORE | FURTHER)[name]()
    nothing = torch.zeros(3, 16 if case.inputs.is_floating_point() else case.inputs.shape[1], dtype=torch.bool)
    with undisturbed(case.forward_func):
        found = without(case, way)(torch.arange(3), nothing)
        wanted = cv.logits_of(case.forward_func)(case.inputs, *case.additional_forward_args)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("way", ["drop", "mask"])
def test_a_vit_by_hand(way: str):
    """Rows are cut out of the sequence, and the rest goes through the weights."""
    model, images = reference_vit(layer_scale=True), reference_images()
    gone = torch.rand(2, 16).argsort(1) < 7
    with undisturbed(model):
        found = Without(model, (images,), (), way)(torch.arange(2), gone)
    for image, lost, logits in zip(images, gone, found, strict=True):
        x, _ = embed(model, image)
        left = x[[0, *(1 + i for i in range(16) if not lost[i])]]
        by_hand = run(read(model), left, torch.ones(len(left), dtype=torch.bool)).logits
        assert (by_hand - logits).abs().max() < EXACT


def by_hand(model: nn.Module, ids: Tensor, mask: Tensor, lost: Tensor) -> Pass:
    """No query attends to what is lost, in any block."""
    return forward(model, (ids, mask), hide={layer: lost.nonzero().flatten().tolist() for layer in range(3)})


@pytest.mark.parametrize("way", ["drop", "mask"])
def test_a_bert_by_hand(way: str):
    """A word, CLS, a word and CLS; padding besides."""
    model, (ids, mask) = reference_bert(), reference_sentences()
    for places in ([3], [0], [0, 2], [1, 2, 4]):
        gone = torch.zeros_like(ids, dtype=torch.bool)
        gone[:, places] = True
        with undisturbed(model):
            found = Without(model, (ids,), (mask,), way)(torch.arange(2), gone)
        for row in range(2):
            wanted = by_hand(model, ids[row], mask[row], gone[row]).logits
            assert (wanted - found[row]).abs().max() < EXACT


def test_padding_is_absent_already():
    case = precise("HF BERT")
    gone = torch.zeros(3, 9, dtype=torch.bool)
    gone[:, 2] = True
    padding = case.additional_forward_args[0] == 0
    for way in ("drop", "mask"):
        with undisturbed(case.forward_func):
            found = without(case, way)(torch.arange(3), gone | padding)
            wanted = without(case, way)(torch.arange(3), gone)
        assert (found - wanted).abs().max() < EXACT


@pytest.mark.parametrize("name", [name for name in TEXTS if "words" not in name])
def test_without_the_row_that_the_head_reads_padding_is_still_nothing(name: str):
    case = precise(name)
    ids, mask = case.inputs[2:], case.additional_forward_args[0][2:]
    gone = torch.zeros(1, 9, dtype=torch.bool)
    gone[0, 0] = True
    length = int(mask.sum())
    with undisturbed(case.forward_func):
        padded = Without(case.forward_func, (ids,), (mask,), "mask")(torch.arange(1), gone)
        cut = Without(case.forward_func, (ids[:, :length],), (), "mask")(torch.arange(1), gone[:, :length])
    assert (padded - cut).abs().max() < EXACT


@pytest.mark.parametrize("name", ["timm ViT", "timm ViT mean", "HF BERT", "timm ViT prompted"])
def test_samples_that_lose_different_numbers(name: str):
    """In any order, and more than once; each as it is alone."""
    case = precise(name)
    places = case.inputs.shape[1] if name == "HF BERT" else 16
    rows = torch.tensor([2, 0, 2, 1, 0])
    gone = torch.zeros(5, places, dtype=torch.bool)
    for row, lost in enumerate(([1, 2], [], [1], [2, 1], [1, 2, 3])):
        gone[row, lost] = True
    with undisturbed(case.forward_func):
        asked = without(case)
        together = asked(rows, gone)
        for i in range(5):
            assert (asked(rows[i : i + 1], gone[i : i + 1]) - together[i]).abs().max() < EXACT


@pytest.mark.parametrize("tap_first", [True, False])
def test_the_tap_sees_no_attention_to_what_is_hidden(tap_first: bool):
    """The modes compose, in either order."""
    case, seen = precise("timm ViT"), []
    gone = torch.arange(16).repeat(3, 1) < torch.tensor([[4]])
    transformer = cv.spec_of(case.forward_func)
    absent = patches_absent(transformer, TokenLayout(17, (4, 4)), gone, drop=False)
    modes = [AttentionTap(seen.append), absent]
    with torch.no_grad():
        Watch(passes.Pass(case.forward_func, (case.inputs,), (), transformer)).run(
            *(modes if tap_first else modes[::-1])
        )
    for attention in seen:
        assert not attention.probs[..., 1:5].any()
        assert torch.allclose(attention.probs.sum(-1), torch.ones(3, 3, 17).double())
    assert len(seen) == 3


def test_attention_that_is_written_out():
    """Eager attention hides keys in its softmax."""
    for name in ("timm ViT", "timm BEiT"):
        case = precise(name)
        eager = case._replace(forward_func=copy.deepcopy(case.forward_func))
        for block in eager.forward_func.blocks:
            block.attn.fused_attn = False
        with undisturbed(case.forward_func), undisturbed(eager.forward_func):
            asked, other = without(case, "mask"), without(eager)
            gone = some(case, asked)
            assert (asked(torch.arange(3), gone) - other(torch.arange(3), gone)).abs().max() < EXACT
        assert other.way == ("mask" if name == "timm BEiT" else "drop"), "a bias of pairs is added to whole sequences"


# -- what is refused ---------------------------------------------------------------------------------------------


class Blurring(nn.Module):
    """A block's attention that also averages neighbours, whatever attention may see."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, **kwargs: object) -> Tensor:
        return self.attention(x, **kwargs) + 0.3 * x.roll(1, 1)


def test_tokens_that_mix_past_the_attention_cannot_be_taken_away():
    model = redrawn(timm_vit(**TIMM)).double()
    model.blocks[1].attn = Blurring(model.blocks[1].attn).eval()
    gone = torch.arange(16).repeat(3, 1) < 3
    for way in ("auto", "mask"):
        with undisturbed(model), pytest.raises(cv.UnsupportedModelError, match="changed with what was hidden"):
            Without(model, (torch.randn(3, 3, 32, 32).double(),), (), way)(torch.arange(3), gone)


def test_who_insists_on_dropping_is_told_why_not():
    case = precise("HF DeBERTa-v2")
    with undisturbed(case.forward_func), pytest.raises(cv.UnsupportedModelError, match="dropped"):
        without(case, "drop")(torch.arange(3), some(case, without(case)))


WRONG = {
    "places of another grid": ("timm ViT", 4, "One place for each"),
    "more places than tokens": ("timm ViT", 64, "One place for each"),
    "nothing left": ("timm ViT mean, no CLS", 16, "At least one token"),
    "no patch left for the mean": ("timm ViT mean", 16, "At least one patch"),
    "no word left": ("HF BERT", 9, "At least one word"),
}


def test_places_may_be_a_grid_but_not_another():
    case = precise("timm ViT non-square")
    gone = torch.rand(3, 4, 6).flatten(1).argsort(1).unflatten(1, (4, 6)) < 9
    with undisturbed(case.forward_func):
        asked = without(case)
        assert torch.equal(asked(torch.arange(3), gone), asked(torch.arange(3), gone.flatten(1)))
        with pytest.raises(cv.InputError, match="One place for each"):
            asked(torch.arange(3), gone.mT)


@pytest.mark.parametrize("way", ["auto", "mask"])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_places(wrong: str, way: str):
    name, places, complaint = WRONG[wrong]
    case = precise(name)
    gone = torch.ones(3, places, dtype=torch.bool)
    if places in (4, 64):
        gone[:, 1:] = False
    before = fingerprint(case.forward_func, case.inputs)
    with undisturbed(case.forward_func), pytest.raises(cv.InputError, match=complaint):
        without(case, way)(torch.arange(3), gone)
    assert fingerprint(case.forward_func, case.inputs) == before


def test_unknown_ways_and_masks_of_pairs():
    case = precise("HF BERT")
    with pytest.raises(cv.OptionError, match="way"):
        without(case, "fade")
    gone = torch.zeros(3, 9, dtype=torch.bool)
    pairs = torch.ones(3, 1, 9, 9)
    with (
        pytest.raises(cv.InputError, match="one number for each word"),
        words_absent(case.forward_func, cv.spec_of(case.forward_func), gone),
    ):
        case.forward_func(case.inputs, pairs)


@pytest.mark.parametrize("name", ["timm ViT", "timm SigLIP", "timm DINOv3", "HF BERT", "HF CLIP words"])
def test_the_model_is_left_as_it_was_found(name: str):
    case = CASES[name]()
    before = fingerprint(case.forward_func, case.inputs, *case.additional_forward_args, rng=False)
    for way in ("auto", "mask"):
        with undisturbed(case.forward_func):
            asked = without(case, way)
            asked(torch.arange(3), some(case, asked))
            assert not torch.is_grad_enabled()
    last = cv.spec_of(case.forward_func).modules()[-1]

    def fail(*_: object) -> None:
        raise ArithmeticError

    handle = last.register_forward_pre_hook(fail)
    with undisturbed(case.forward_func), pytest.raises(ArithmeticError):
        asked(torch.arange(3), some(case, asked) if asked.text else torch.arange(16).repeat(3, 1) < 3)
    handle.remove()
    assert fingerprint(case.forward_func, case.inputs, *case.additional_forward_args, rng=False) == before


def test_only_masks_of_pairs_are_opened():
    """Other numbers for pairs of words, such as biases of their distances, stay as they are."""
    mask = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 0]])[None, None]
    bias = torch.tensor([[0.5, -1.0, 0.0], [0.0, 0.3, -2.0], [-1.0, -0.5, 0.0]])[None, None]
    (opened, kept), _ = _unmask_hidden_rows(torch.nn.Identity(), (mask, bias), {})
    assert opened[0, 0].tolist() == [[1, 1, 0]] * 3
    assert torch.equal(kept, bias)
