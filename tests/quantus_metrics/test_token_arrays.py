"""Metrics over the words of a text: padding and special tokens stay, and padding changes nothing."""

import math
from functools import cache, partial

import numpy as np
import pytest
import quantus
import torch
from transformers import BertTokenizerFast

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.demo import demo_bert, demo_bert_tokenizer
from captum_vit.errors import InputError, OptionError, TargetError
from quantus_metrics.metrics.aopc import aopc
from quantus_metrics.metrics.fidelity import fidelity
from quantus_metrics.metrics.log_odds import log_odds
from quantus_metrics.perturb import FRACTIONS, DropTokens, MaskKeys, ReplaceTokens
from tests.references.forward import forward, softmax
from tests.references.models import reference_bert, reference_sentences

MASK = 39
REMOVERS = [None, MaskKeys(), ReplaceTokens(MASK)]
MAKES = {
    "deletion": qm.Deletion,
    "deletion, AOPC": lambda **kw: qm.Deletion(score="aopc", **kw),
    "insertion": qm.Insertion,
    "insertion, AOPC": lambda **kw: qm.Insertion(score="aopc", **kw),
    "AOPC": qm.AOPC,
    "log odds": qm.LogOdds,
    "fidelity": qm.Fidelity,
    "accuracy": qm.PerturbationAccuracy,
}
every = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


@pytest.fixture
def texts():
    """The reference BERT as a function of ids; two texts, the shorter one padded by three; relevance of each word."""
    ids, mask = reference_sentences()
    model = qm.wrap_text(reference_bert(), pad_id=0, special_ids=(1, 2))
    return model, ids, mask, np.random.default_rng(3).standard_normal(ids.shape)


def by_hand(model, ids, mask, target: int, relevance, fraction: float, replace: bool, least_first=False) -> float:
    """The probability of the target in float64, words hidden or replaced one by one."""
    free = [i for i in range(len(ids)) if mask[i] and ids[i] not in (1, 2)]
    leaving = sorted(free, key=lambda i: relevance[i] if least_first else -relevance[i])
    gone = leaving[: math.floor(fraction * len(free) + 0.5)]
    words = torch.tensor([MASK if replace and i in gone else int(word) for i, word in enumerate(ids)])
    hide = None if replace else {layer: gone for layer in range(3)}
    with torch.no_grad():
        return softmax(forward(model, (words, mask), hide=hide).logits)[target].item()


@pytest.mark.slow
@pytest.mark.parametrize("remover", REMOVERS, ids=repr)
def test_they_are_their_twins(texts, remover):
    model, ids, mask, relevance = texts
    y, replace = np.array([3, 0]), isinstance(remover, ReplaceTokens)
    ninths = [k / 10 for k in range(1, 10)]
    metrics = (qm.AOPC, qm.LogOdds, partial(qm.Deletion, score="aopc"), partial(qm.Insertion, score="aopc"))
    found = [make(remover=remover)(model, ids.numpy(), y, relevance) for make in metrics]
    for b in range(2):

        @cache
        def p(fraction, least_first=False, b=b):
            return by_hand(model.model, ids[b], mask[b], y[b], relevance[b], fraction, replace, least_first)

        wanted = [
            np.mean([p(0) - p(k) for k in FRACTIONS]),
            np.mean([math.log(p(k) / p(0)) for k in FRACTIONS]),
            100 * np.mean([p(0) - p(r) for r in ninths]),
            100 - 100 * np.mean([p(0) - p(1 - r, True) for r in ninths]),
        ]
        assert [scores[b] for scores in found] == pytest.approx(wanted, abs=1e-6)


# Each metric with one remover, which take turns; fidelity, which reads both orders, with each.
IN_TURN = [(name, REMOVERS[i % 3]) for i, name in enumerate(MAKES)]
IN_TURN += [("fidelity", remover) for remover in REMOVERS if ("fidelity", remover) not in IN_TURN]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "remover"), IN_TURN, ids=repr)
def test_padding_changes_nothing_and_its_relevance_neither(texts, name, remover):
    model, ids, _, relevance = texts
    y, metric = np.array([3, 0]), MAKES[name](remover=remover)
    found = metric(model, ids.numpy(), y, relevance)
    alone = metric(model, ids[1:, :6].numpy(), y[1:], relevance[1:, :6])
    assert found[1:] == pytest.approx(alone, abs=1e-9)
    loud = relevance.copy()
    loud[1, 6:] = 1e6
    loud[:, 0] = -1e6  # CLS
    assert metric(model, ids.numpy(), y, loud) == pytest.approx(found, abs=1e-9)


@pytest.mark.slow
@every
def test_padding_and_special_tokens_are_never_chosen(texts, make, monkeypatch):
    model, ids, mask, relevance = texts
    chosen, bind = [], DropTokens.bind

    def watched(self, *args):
        answer = bind(self, *args)
        return lambda rows, gone: (chosen.append((ids[rows], mask[rows], gone)), answer(rows, gone))[1]

    monkeypatch.setattr(DropTokens, "bind", watched)
    make()(model, ids.numpy(), np.array([3, 0]), relevance)
    assert any(gone.any() for *_, gone in chosen)
    for words, real, gone in chosen:
        assert not (gone & ((real == 0) | (words == 1) | (words == 2))).any()


@pytest.mark.slow
def test_the_functions_say_the_same(texts):
    model, ids, mask, relevance = texts
    y, given = np.array([3, 0]), torch.tensor(relevance)
    call = (model.model, ids, mask, torch.tensor(y), given)
    found = qm.text_curves(*call, special_ids=(1, 2))
    scores = qm.Fidelity()(model, ids.numpy(), y, relevance)
    assert fidelity(found["mif"], found["lif"]).tolist() == pytest.approx(scores)
    mif = qm.text_curves(*call, ("mif",), special_ids=(1, 2), softmax=True)["mif"]
    for function, metric in ((aopc, qm.AOPC()), (log_odds, qm.LogOdds())):
        assert function(mif.scores[:, 0], mif).tolist() == pytest.approx(metric(model, ids.numpy(), y, relevance))


@pytest.mark.slow
def test_through_quantus_from_words_to_scores():
    """A suite with a metric of Quantus beside ours, on an untrained BERT; maps are made on the way."""
    torch.manual_seed(0)
    tokenizer, bert = demo_bert_tokenizer(), demo_bert(pretrained=False)
    model = qm.wrap_text(bert, tokenizer)
    encoded = tokenizer(["the soup was great .", "a truly terrible film , i left early ."], padding=True)
    x, y = np.array(encoded["input_ids"]), np.array([1, 0])
    assert set(model.special_ids) == {tokenizer.cls_token_id, tokenizer.sep_token_id}
    metrics = {"deletion": qm.Deletion(score="aopc"), "sparseness": quantus.Sparseness(disable_warnings=True)}
    methods = {name: qm.explain_func(cv.METHODS[name]) for name in ("GenAtt", "AttCAT")}
    found = quantus.evaluate(metrics, methods, model, x, y, agg_func=list, explain_func_kwargs={})
    for name, explain in methods.items():
        maps = explain(model, x, y)
        assert maps.shape == x.shape
        assert found[name]["deletion"] == pytest.approx(metrics["deletion"](model, x, y, maps), abs=1e-4)
        assert np.isfinite(found[name]["sparseness"]).all()
    flipping = quantus.PixelFlipping(features_in_step=1, perturb_baseline=float(tokenizer.mask_token_id))
    assert len(flipping(model, x, y, maps, softmax=True, channel_first=True)) == 2


def test_the_mask_is_told_from_the_padding(texts):
    model, ids, mask, _ = texts
    with torch.no_grad():
        wanted = model.model(ids, mask).logits
        assert torch.equal(model(ids), wanted)
        assert torch.equal(model(ids.float()), wanted)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"a_batch": np.ones((2, 9))}, InputError),
        ({"a_batch": np.full((2, 9), np.nan)}, InputError),
        ({"a_batch": np.random.rand(2, 8)}, InputError),
        ({"a_batch": np.random.rand(2, 1, 3, 3)}, InputError),
        ({"x_batch": np.tile([1, 2, 0], (2, 3))}, InputError),
        ({"y_batch": np.array([0, 5])}, TargetError),
        ({"model": reference_bert()}, InputError),
    ],
)
def test_bad_input_is_refused_before_any_pass(texts, change, error):
    model, ids, _, relevance = texts
    call = {"model": model, "x_batch": ids.numpy(), "y_batch": np.array([3, 0]), "a_batch": relevance, **change}
    passes = []
    call["model"].register_forward_pre_hook(lambda *_: passes.append(1))
    for make in MAKES.values():
        with pytest.raises(error):
            make()(**call)
    assert passes == []


def test_what_reads_no_texts_says_so(texts):
    model, ids, _, relevance = texts
    for metric in (qm.BoxSensitivity(), qm.Segmentation(), qm.Compactness()):
        with pytest.raises(InputError, match="no texts"):
            metric(model, ids.numpy(), np.array([3, 0]), relevance)


def test_the_padding_must_be_known_and_its_own():
    class EndIsPadding:
        pad_token_id, eos_token_id = 7, 7

    for given in ({}, {"tokenizer": EndIsPadding()}):
        with pytest.raises(OptionError, match="own"):
            qm.wrap_text(reference_bert(), **given)
    assert qm.wrap_text(reference_bert(), EndIsPadding(), pad_id=0).special_ids == (7,)
    assert qm.wrap_text(reference_bert(), EndIsPadding(), pad_id=0, special_ids=()).special_ids == ()


WORDS = ["[PAD]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(37))]


@pytest.fixture
def pairs():
    """The reference BERT, its tokenizer, and two pairs of texts, the second shorter."""
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate([*WORDS, "[UNK]", "[MASK]"])})
    encoded = tokenizer(["w1 w2 w3", "w4"], ["w5 w6", "w7 w8"], padding=True, return_tensors="pt")
    return reference_bert(), tokenizer, encoded


def test_pairs_keep_their_token_types(pairs):
    bert, tokenizer, encoded = pairs
    for model in (qm.wrap_text(bert, tokenizer), qm.wrap_text(bert, pad_id=0, special_ids=(1, 2), sep_id=2)):
        with torch.no_grad():
            wanted = bert(**encoded).logits
            assert torch.equal(model(encoded["input_ids"]), wanted)
            assert not torch.allclose(bert(encoded["input_ids"], encoded["attention_mask"]).logits, wanted, atol=1e-3)
        single = tokenizer(["w1 w2"], return_tensors="pt")
        assert torch.equal(model(single["input_ids"]), bert(**single).logits)


@pytest.mark.slow
@pytest.mark.parametrize("remover", REMOVERS, ids=repr)
def test_curves_of_pairs_are_those_of_the_model_with_its_token_types(pairs, remover):
    bert, tokenizer, encoded = pairs
    ids, mask, types = encoded["input_ids"], encoded["attention_mask"], encoded["token_type_ids"]
    relevance, y = torch.rand(ids.shape), torch.tensor([0, 1])
    options = {"special_ids": (1, 2), "remover": remover, "softmax": True}
    typed = qm.text_curves(bert, ids, mask, y, relevance, ("mif",), token_type_ids=types, **options)["mif"]
    with torch.no_grad():
        whole = bert(**encoded).logits.softmax(-1)[[0, 1], [0, 1]]
    assert torch.allclose(typed.scores[:, 0], whole.to(typed.scores))
    found = qm.AOPC(remover=remover)(qm.wrap_text(bert, tokenizer), ids.numpy(), y.numpy(), relevance.numpy())
    assert found == pytest.approx(aopc(typed.scores[:, 0], typed).tolist(), abs=1e-6)


def test_pairs_whose_token_types_are_not_known_are_refused(pairs):
    bert, tokenizer, encoded = pairs
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    call = (bert, ids, mask, 0, torch.rand(ids.shape))
    for refused, advice in (
        (lambda: qm.wrap_text(bert, pad_id=0, special_ids=(1, 2))(ids), "sep_id=tokenizer.sep_token_id"),
        (lambda: qm.wrap_text(bert, tokenizer, special_ids=())(ids), "special_ids"),
        (lambda: qm.text_curves(*call, special_ids=(1, 2)), "token_type_ids=tokenizer"),
        (lambda: qm.text_curves(*call, token_type_ids=ids[:, 1:]), "tokenizer"),
    ):
        with pytest.raises(InputError) as refusal:
            refused()
        assert advice in refusal.value.hint

    class Reversed(BertTokenizerFast):
        """As XLNet numbers: the other way round."""

        def __call__(self, *texts, **options):
            found = super().__call__(*texts, **options)
            found["token_type_ids"] = 1 - found["token_type_ids"]
            return found

    with pytest.raises(InputError, match="two in rows 0, 1"):
        qm.wrap_text(bert, Reversed(vocab=tokenizer.get_vocab()))(ids)


def test_another_padding_than_the_models_own_warns():
    with pytest.warns(cv.PaddingWarning, match="is 0, not 7"):
        qm.wrap_text(reference_bert(), pad_id=7)
