"""All classes at once are each class by itself; values and keys share a score between them."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import captum_vit as cv
from tests.captum_vit.attr.test_cdam_routes import close, double, explain, with_a_hook
from tests.contracts.pairs import in_float64
from tests.models import CASES
from tests.references import cdam
from tests.references.models import reference_images, reference_vit

CLASSIFIERS = [name for name in CASES if name != "HF CLIP"]


def one_by_one(method: cv.LayerCDAM, case, n_classes: int) -> Tensor:  # shape: (B, N, C)
    return torch.stack([explain(method, case._replace(target=c)) for c in range(n_classes)], -1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_all_classes_are_each_class(name):
    case = in_float64(name)
    method = cv.LayerCDAM(case.forward_func, output="tokens")
    found = method.all_classes(case.inputs, case.additional_forward_args)
    close(found, one_by_one(method, case, found.shape[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("n_classes", [1, 23, 24, 25, 60])
@pytest.mark.parametrize("linear", [True, False])
def test_probes_at_the_features_or_at_the_outputs(n_classes, linear):
    """Of a model of width 24: more classes than features, and fewer; a head that is linear, or ends otherwise."""
    case = double("timm ViT registers")
    head = nn.Linear(24, n_classes, dtype=torch.float64)
    case.forward_func.head = (head if linear else nn.Sequential(head, nn.Softplus())).eval()
    method = cv.LayerCDAM(case.forward_func, output="tokens")
    close(method.all_classes(case.inputs), one_by_one(method, case, n_classes))


def test_many_samples_are_probed_in_portions(monkeypatch):
    case = double("timm ViT")
    method = cv.LayerCDAM(case.forward_func, output="tokens")
    wanted = method.all_classes(case.inputs)
    monkeypatch.setattr("captum_vit.trace.replay.every_output.ROWS_AT_ONCE", 6)
    close(method.all_classes(case.inputs), wanted)


@pytest.mark.parametrize("layer", [1, "blocks.1.norm1", None])
def test_forms_of_output(layer):
    case = double("timm ViT non-square")
    found = {o: cv.LayerCDAM(case.forward_func, layer, output=o).all_classes(case.inputs)
             for o in ("tokens", "grid", "pixels")}  # fmt: skip
    assert found["tokens"].shape == (3, 25, 5)
    assert found["grid"].shape == (3, 5, 4, 6)
    assert found["pixels"].shape == (3, 5, 32, 48)
    close(found["grid"].flatten(2).mT, found["tokens"][:, 1:])
    for c in range(5):
        alone = cv.LayerCDAM(case.forward_func, layer, output="pixels").attribute(case.inputs, target=c)
        close(found["pixels"][:, c : c + 1], alone)


def test_half_precision_gives_single():
    case = CASES["timm ViT"]()
    model = double("timm ViT").forward_func.bfloat16()
    found = cv.LayerCDAM(model).all_classes(case.inputs)
    wanted = cv.LayerCDAM(case.forward_func).all_classes(case.inputs)
    assert found.dtype == torch.float32
    assert torch.corrcoef(torch.stack([found.flatten(), wanted.flatten()]))[0, 1] > 0.99


@pytest.mark.parametrize("spoil", [lambda model: None, with_a_hook])
def test_what_has_no_map_for_each_class(spoil):
    case = double("timm ViT")
    spoil(case.forward_func)
    tokens = cv.Scalar(case.forward_func, lambda scores: scores.unsqueeze(1).expand(-1, 4, -1))
    with pytest.raises(cv.TargetError, match="one score for each class"):
        cv.LayerCDAM(tokens).all_classes(case.inputs)
    with pytest.raises(cv.OptionError, match="every class"):
        cv.LayerCDAM(case.forward_func, output="channels").all_classes(case.inputs)


# -- values and keys -------------------------------------------------------------------------------------------


@pytest.fixture
def model() -> VisionTransformer:
    return reference_vit()


def closed_form(model: VisionTransformer, x: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """Both terms for every patch of one image, head by head, from the weights."""
    seen = {}
    block, heads = model.blocks[-1], model.blocks[-1].attn.num_heads
    handles = [
        block.norm1.register_forward_hook(lambda m, i, o: seen.update(T=o[0])),
        block.attn.proj.register_forward_pre_hook(lambda m, i: seen.update(z=i[0])),
    ]
    score = model(x[None])[0, target]
    for handle in handles:
        handle.remove()
    (g,) = torch.autograd.grad(score, seen["z"])
    T, g, z = seen["T"].detach(), g[0, 0], seen["z"][0, 0].detach()
    d = len(z) // heads
    W_q, W_k, W_v = block.attn.qkv.weight.detach().chunk(3)
    b_q, b_k, b_v = block.attn.qkv.bias.detach().chunk(3)
    by_value, by_key = torch.zeros(2, len(T), dtype=T.dtype)
    for h in range(heads):
        rows = slice(h * d, (h + 1) * d)
        q = W_q[rows] @ T[0] + b_q[rows]
        A = ((T @ W_k[rows].T + b_k[rows]) @ q / d**0.5).softmax(0)
        for i in range(len(T)):
            by_value[i] += A[i] * (g[rows] @ (W_v[rows] @ T[i]))
            V_i = W_v[rows] @ T[i] + b_v[rows]
            by_key[i] += A[i] * (q @ (W_k[rows] @ T[i])) / d**0.5 * (g[rows] @ (V_i - z[rows]))
    return by_value[1:], by_key[1:]


def test_both_terms_are_the_closed_form(model):
    images, target = reference_images(), [1, 4]
    found = cv.LayerCDAM(model).value_and_key_terms(images, target)
    wanted = [closed_form(model, x, c) for x, c in zip(images, target, strict=True)]
    for term, rows in zip(found, zip(*wanted, strict=True), strict=True):
        close(term.flatten(1), torch.stack(rows))
    twins = torch.stack([cdam.closed_form(model, x, c) for x, c in zip(images, target, strict=True)])
    close(sum(found).flatten(1), twins.detach())
    assert found[1].abs().sum() > 0.05 * found[0].abs().sum()  # the paper's appendix keeps the values alone


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("layer", [None, 1])
def test_both_terms_sum_to_cdam_on_every_model(name, layer):
    case = in_float64(name)
    method = cv.LayerCDAM(case.forward_func, layer, output="tokens")
    values, keys = method.value_and_key_terms(case.inputs, case.target, case.additional_forward_args)
    close(values + keys, explain(method, case))
    assert values.any() and keys.any()


def test_without_attention_to_choose_all_is_values(model):
    """Keys of zero draw attention nowhere, and queries of zero look nowhere."""
    for third in (0, 1):
        width = model.embed_dim
        rows = slice(third * width, (third + 1) * width)
        with torch.no_grad():
            model.blocks[-1].attn.qkv.weight[rows] = 0
            model.blocks[-1].attn.qkv.bias[rows] = 0
        values, keys = cv.LayerCDAM(model).value_and_key_terms(reference_images(), 1)
        assert values.any() and keys.abs().max() < 1e-12 * values.abs().max()


def test_only_blocks_have_values_and_keys(model):
    with pytest.raises(cv.LayerError, match="index of a block"):
        cv.LayerCDAM(model, "blocks.2.norm1").value_and_key_terms(reference_images(), 1)
