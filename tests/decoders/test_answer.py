"""Tokens of an answer as targets: the shift by one, foils, spans, likely tokens, padding, what is refused."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from tests.models import redrawn

N = 7  # the prompt
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
WORDS = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}


@pytest.fixture(scope="module")
def lm() -> nn.Module:
    torch.manual_seed(0)
    return redrawn(hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, **WORDS))).double().eval()


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(2, 60, (2, N + 3), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def logits(lm: nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return lm(ids).logits


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)  # Llama's norms compute in float32


def test_each_token_is_read_one_place_before_it(lm: nn.Module, ids: Tensor, logits: Tensor) -> None:
    wanted = logits[:, N - 1 : -1].gather(-1, ids[:, N:, None]).squeeze(-1)
    close(cv.Answer(lm, N)(ids), wanted)
    close(
        cv.Answer(lm, N, score="log_prob")(ids).exp(),
        logits.softmax(-1)[:, N - 1 : -1].gather(-1, ids[:, N:, None])[..., 0],
    )
    place = int(logits[0, N - 1].argmax())
    written = lm.generate(ids[:1, :N], attention_mask=torch.ones(1, N), max_new_tokens=1, do_sample=False)
    assert written[0, N] == place
    close(cv.Answer(lm, N)(written), logits[:1, N - 1, place, None])


@pytest.mark.parametrize("target", [0, 2])
def test_a_map_is_that_of_the_models_own_place_and_sums_to_the_score(lm: nn.Module, ids: Tensor, target: int) -> None:
    answer = cv.Answer(lm, N)
    found = cv.DecompX(answer).attribute(ids, target=target)
    close(found, cv.DecompX(lm).attribute(ids, target=[(N - 1 + target, int(w)) for w in ids[:, N + target]]))
    close(found.sum(1), answer(ids)[:, target].detach())
    assert not found[:, N + target :].any()


def test_a_foil_is_subtracted_and_a_span_is_a_sum(lm: nn.Module, ids: Tensor) -> None:
    one, other = cv.Answer(lm, N), torch.cat([ids[:, : N + 1], torch.full((2, 1), 9), ids[:, N + 2 :]], 1)
    method = lambda f, x, t=None: cv.DecompX(f).attribute(x, target=t)  # noqa: E731
    contrast = method(cv.Answer(lm, N, foil=9), ids, 1)
    close(contrast[:, : N + 1], (method(one, ids, 1) - method(one, other, 1))[:, : N + 1])
    close(cv.Answer(lm, N, foil=[3, 9, 4])(ids)[:, 1], cv.Answer(lm, N, foil=9, score="log_prob")(ids)[:, 1])
    close(method(one.span(), ids), sum(method(one, ids, t) for t in range(3)))
    close(method(one.span(1, 2), ids), method(one, ids, 1))


def test_one_graph_gives_the_maps_of_all_tokens(lm: nn.Module, ids: Tensor) -> None:
    calls = []
    handle = lm.register_forward_hook(lambda *_: calls.append(1))
    method = cv.DecompX(cv.Answer(lm, N))
    method.attribute(ids, target=0)
    calls.clear()
    every = method.all_classes(ids)
    handle.remove()
    assert every.shape == (2, N + 3, 3) and len(calls) == 1
    for t in range(3):
        close(every[..., t], method.attribute(ids, target=t))
    for bad in (cv.DecompX(cv.Answer(lm, N), output="channels"), cv.DecompX(cv.Answer(lm, N), checkpoint=True)):
        with pytest.raises(cv.OptionError, match="attribute, one output"):
            bad.all_classes(ids)


def test_the_likeliest_tokens_are_outputs(lm: nn.Module, ids: Tensor, logits: Tensor) -> None:
    for given, after in ((ids[:1, :N], 0), (ids[:1], 2)):
        likeliest = cv.Answer(lm, N).likeliest(given, k=4, after=after)
        top = logits[0, N - 1 + after].topk(4)
        assert likeliest.tokens == tuple(top.indices.tolist())
        close(likeliest(given)[0], top.values)
        close(cv.FullGrad(likeliest, rule="frozen").attribute(given, target=1).sum(), top.values[1])


def test_a_log_probability_is_no_sum_over_tokens(lm: nn.Module, ids: Tensor, logits: Tensor) -> None:
    answer = cv.Answer(lm, N, score="log_prob")
    with pytest.raises(cv.UnsupportedModelError, match="log_softmax"):
        cv.DecompX(answer).attribute(ids, target=0)
    norms = cv.LayerCDAM(answer, "model.model.norm", output="tokens").attribute(ids, target=0).sum(1)
    z = logits[:, N - 1]
    close(norms, z.gather(-1, ids[:, N, None])[:, 0] - (z.softmax(-1) * z).sum(-1))


@pytest.mark.slow
@pytest.mark.parametrize("given", ["argument", "argument of the prompt", "inputs"])
@pytest.mark.parametrize("method", [cv.DecompX, cv.GenAtt, cv.VTranM, cv.LayerCDAM, cv.TokenAblation])
@pytest.mark.parametrize("kind", [hf.LlamaForCausalLM, hf.GPT2LMHeadModel])
def test_left_padding_changes_nothing(kind: type, method: type, given: str, ids: Tensor) -> None:
    torch.manual_seed(0)
    sizes = SIZES if kind is hf.LlamaForCausalLM else {"n_embd": 24, "n_layer": 2, "n_head": 2}
    model = redrawn(kind(kind.config_class(**sizes, **WORDS))).double().eval()
    alone = method(cv.Answer(model, N)).attribute(ids[:1], target=1)
    padded, mask = F.pad(ids[:1], (4, 0)), F.pad(torch.ones_like(ids[:1]), (4, 0))
    if given.startswith("argument"):
        mask = mask if given == "argument" else mask[:, : N + 4]
        found = method(cv.Answer(model, N + 4)).attribute(padded, target=1, additional_forward_args=(mask,))
    else:  # of the prompt, as a tokenizer gives it before the answer is there
        batch = {"input_ids": padded[:, : N + 4], "attention_mask": mask[:, : N + 4]}
        found = method(cv.Answer(model, N + 4, inputs=batch)).attribute(padded, target=1)
    assert not found[:, :4].any()
    close(found[:, 4:], alone)


def test_only_the_rows_that_are_read_have_logits(lm: nn.Module, ids: Tensor) -> None:
    seen = []
    handle = lm.lm_head.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    cv.Answer(lm, N)(ids)
    handle.remove()
    assert seen == [4]


BAD = {
    "no prompt": (lambda lm, ids: cv.Answer(lm, 0), cv.OptionError, "prompt_length"),
    "no model": (lambda lm, ids: cv.Answer(None, 3), cv.UnsupportedModelError, "nn.Module"),
    "foil of letters": (lambda lm, ids: cv.Answer(lm, N, foil="nine"), cv.OptionError, "foil"),
    "no foils": (lambda lm, ids: cv.Answer(lm, N, foil=[]), cv.OptionError, "foil"),
    "inputs": (lambda lm, ids: cv.Answer(lm, N, inputs=ids), cv.OptionError, "processor"),
    "no such foil": (lambda lm, ids: cv.DecompX(cv.Answer(lm, N, foil=60)).attribute(ids, 0), cv.TargetError, "60"),
    "two foils": (lambda lm, ids: cv.DecompX(cv.Answer(lm, N, foil=[3, 4])).attribute(ids, 0), cv.TargetError, "each"),
    "no answer": (lambda lm, ids: cv.DecompX(cv.Answer(lm, 10)).attribute(ids, 0), cv.InputError, "longer than"),
    "not generated": (lambda lm, ids: cv.DecompX(cv.Answer(lm, N)).attribute(ids, 3), cv.TargetError, r"\(2, 3\)"),
    "words": (lambda lm, ids: cv.Answer(lm, N)(ids.double()), cv.InputError, "ids"),
    "mask": (lambda lm, ids: cv.Answer(lm, N)(ids, ids[:, :4]), cv.InputError, "mask"),
    "text": (lambda lm, ids: cv.Answer(lm, N)(ids, "mask"), cv.InputError, "inputs"),
    "pixels": (lambda lm, ids: cv.Answer(lm, N)(ids, ids.double()), cv.InputError, "inputs"),
    "inputs of two": (
        lambda lm, ids: cv.Answer(lm, N, inputs={"attention_mask": torch.ones_like(ids)})(ids[:1]),
        cv.InputError,
        "2 samples",
    ),
    "two prompts": (lambda lm, ids: cv.Answer(lm, N).likeliest(ids), cv.InputError, "One prompt"),
    "k": (lambda lm, ids: cv.Answer(lm, N).likeliest(ids[:1], k=61), cv.OptionError, "60"),
    "place": (lambda lm, ids: cv.Answer(lm, N).likeliest(ids[:1], after=4), cv.InputError, "at least 4"),
    "empty span": (lambda lm, ids: cv.Answer(lm, N).span(2, 2), cv.OptionError, "stop"),
    "long span": (lambda lm, ids: cv.DecompX(cv.Answer(lm, N).span(1, 9)).attribute(ids), cv.TargetError, "1:9"),
}


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertModel", "LlamaModel", "BartForConditionalGeneration"])
def test_a_model_that_continues_no_text_is_refused(kind: str) -> None:
    cls = getattr(hf, kind)
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1} if "Bart" in kind else SIZES
    with pytest.raises(cv.UnsupportedModelError, match="causal language model"):
        cv.Answer(cls(cls.config_class(**sizes, vocab_size=60)), N)


@pytest.mark.parametrize("what", BAD)
def test_a_bad_call_is_refused(what: str, lm: nn.Module, ids: Tensor) -> None:
    call, error, words = BAD[what]
    with pytest.raises(error, match=words):
        call(lm, ids)
