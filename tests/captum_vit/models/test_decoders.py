"""Decoders: causal attention, output projections and norms of their own classes, a head that reads the last word."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import captum_vit as cv

LLAMA = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
WORDS = {"vocab_size": 60, "num_labels": 3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DECODERS: dict[str, Callable[[], nn.Module]] = {
    "GPT-2": lambda: hf.GPT2ForSequenceClassification(hf.GPT2Config(n_embd=24, n_layer=2, n_head=2, **WORDS)),
    "GPT-NeoX": lambda: hf.GPTNeoXForSequenceClassification(hf.GPTNeoXConfig(**LLAMA, **WORDS)),
    "OPT": lambda: hf.OPTForSequenceClassification(
        hf.OPTConfig(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=2, ffn_dim=40, word_embed_proj_dim=24, **WORDS
        )
    ),
    "Llama": lambda: hf.LlamaForSequenceClassification(hf.LlamaConfig(num_key_value_heads=1, **LLAMA, **WORDS)),
    "Gemma": lambda: hf.GemmaForSequenceClassification(
        hf.GemmaConfig(num_key_value_heads=1, head_dim=12, **LLAMA, **WORDS)
    ),
}
METHODS = (
    "LayerCDAM", "GenAtt", "DecompX", "VTranM", "AttentionRollout", "InputXGradient", "TokenAblation", "PredictionMap",
    "PredicAtt", "AttIN", "GlobEnc", "LRP",
)  # fmt: skip
QUICK = ("LayerCDAM", "GenAtt", "DecompX", "VTranM")
PARALLEL = {("GPT-NeoX", "VTranM")}  # there is no stream between attention and feed-forward
RIGHT = torch.tensor([[5, 6, 7, 8, 9, 11], [3, 4, 12, 0, 0, 0]])
LEFT = torch.tensor([[5, 6, 7, 8, 9, 11], [0, 0, 0, 3, 4, 12]])


@cache
def decoder(name: str) -> nn.Module:
    """One model for all methods: what is found in it is found once."""
    model = DECODERS[name]()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.25)
    return model.eval().double()


def masked(model: nn.Module, ids: Tensor) -> tuple[Any, ...]:
    """The further arguments of a call in their order, of which the attention mask is the last."""
    place = list(signature(model.forward).parameters).index("attention_mask")
    return (*[None] * (place - 1), (ids > 0).long())


def explained(model: nn.Module, method: str, ids: Tensor, **options: Any) -> Tensor:
    found = cv.METHODS[method](model, **options)
    return found.attribute(ids, target=1, additional_forward_args=masked(model, ids))


@pytest.mark.parametrize("method", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in METHODS])
@pytest.mark.parametrize("name", DECODERS)
def test_a_padded_text_has_the_map_that_it_has_alone(name: str, method: str) -> None:
    model = decoder(name)
    if (name, method) in PARALLEL:
        with pytest.raises(cv.UnsupportedModelError, match="mid"):
            explained(model, method, RIGHT)
        return
    both, alone = explained(model, method, RIGHT), explained(model, method, RIGHT[1:, :3])
    assert alone.any() and not both[1, 3:].any()
    torch.testing.assert_close(both[1, :3], alone[0], rtol=1e-5, atol=1e-6)  # Llama's norms compute in float32


@pytest.mark.parametrize("ids", [RIGHT, LEFT], ids=["right", "left"])
@pytest.mark.parametrize("name", DECODERS)
def test_a_prediction_map_is_the_head_on_every_word(name: str, ids: Tensor) -> None:
    model = decoder(name)
    keep = ids > 0
    psi = explained(model, "PredictionMap", ids)
    with torch.no_grad():
        states = model.base_model(ids, attention_mask=keep.long()).last_hidden_state
        each = model.score(states).softmax(-1)[..., 1]
        own = model(ids, attention_mask=keep.long()).logits.softmax(-1)[:, 1]
    torch.testing.assert_close(psi, each * keep, rtol=1e-6, atol=1e-7)
    last = (keep * torch.arange(ids.shape[1])).argmax(1)
    torch.testing.assert_close(psi[[0, 1], last], own, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["GPT-2", "GPT-NeoX", "Llama", "Gemma"])
def test_token_ablation_hides_a_word_from_all_others(name: str) -> None:
    model, ids = decoder(name), RIGHT[:1]
    S = explained(model, "TokenAblation", ids, score="logit")
    keep = torch.ones_like(ids).repeat(7, 1)
    keep[range(1, 7), range(6)] = 0
    with torch.no_grad():
        logits = model(ids.expand(7, -1), attention_mask=keep).logits[:, 1]
    torch.testing.assert_close(S[0, :5], (logits[0] - logits[1:])[:5], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", DECODERS)
def test_the_attention_is_the_one_that_the_eager_model_hands_out(name: str) -> None:
    model, ids = copy.deepcopy(decoder(name)), RIGHT[:1]
    fused = explained(model, "RawAttention", ids)
    model.set_attn_implementation("eager")
    eager = explained(model, "RawAttention", ids)
    with torch.no_grad():
        A = model(ids, output_attentions=True).attentions[-1]
    for found in (fused, eager):
        torch.testing.assert_close(found[0], A[0].mean(0)[-1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "Gemma"])
def test_vectors_are_followed_through_norms_of_any_name(name: str) -> None:
    model, ids = decoder(name), RIGHT[:1]
    plain, with_norm = explained(model, "GlobEnc", ids), explained(model, "GlobEnc", ids, include_ln2=True)
    assert torch.isfinite(with_norm).all() and not torch.allclose(plain, with_norm)


def test_a_cache_is_refused_and_stays_empty() -> None:
    model, ids, cache = decoder("Llama"), RIGHT[:1], hf.DynamicCache()
    with pytest.raises(cv.InputError, match="Got: DynamicCache"):
        cv.LayerCDAM(model).attribute(ids, target=1, additional_forward_args=(None, None, cache))
    assert cache.get_seq_length() == 0


def test_detection_tokens_need_whole_sequences() -> None:
    config = hf.YolosConfig(image_size=[32, 32], patch_size=8, num_detection_tokens=7, num_labels=3, **LLAMA)
    model, images = hf.YolosForObjectDetection(config).eval().double(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    psi = cv.PredictionMap(model, output="tokens", score="logit").attribute(images, target=(2, 1))
    with torch.no_grad():
        wanted = model.class_labels_classifier(model.vit(images).last_hidden_state)[..., 1]
    torch.testing.assert_close(psi, wanted, rtol=1e-9, atol=1e-12)
