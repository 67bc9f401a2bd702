"""Every family of models, held by identities: what is read inside it is what it computes."""

import copy
from functools import cache

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.models.output import scores_of
from captum_vit.models.transformer import Block
from captum_vit.trace.record.record import Record, Want, record
from captum_vit.trace.record.written_by_heads import output_map
from captum_vit.trace.replay.subnetwork import SubNetwork, readout
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.captum_vit.models.families import GRIDS, KNOWN, MORE, NO_HEAD_VECTORS
from tests.models import CASES, READ_HEADS, Case, slow_beyond_slice

FAMILIES = slow_beyond_slice([*CASES, *MORE])
EXACT = 1e-10
TWO_HEADS = {
    "timm ViT distilled": ("head", "head_dist"),
    "HF DeiT teacher": ("cls_classifier", "distillation_classifier"),
}


@cache
def precise(name: str) -> Case:
    """Two samples (the padded one among them) in float64."""
    torch.manual_seed(0)
    made = (CASES | MORE)[name]()
    inputs = made.inputs[1:]
    return Case(
        copy.deepcopy(made.forward_func).double(),
        inputs.double() if inputs.is_floating_point() else inputs,
        tuple(arg[1:] for arg in made.additional_forward_args),
        list(made.target[1:]),
    )


@cache
def without_biases(name: str) -> Case:
    case = precise(name)
    model = copy.deepcopy(case.forward_func)
    with torch.no_grad():
        for parameter, values in model.named_parameters():
            leaf = parameter.rpartition(".")[2]
            if "bias" in leaf and "relative" not in leaf and "table" not in leaf:
                values.zero_()
    return case._replace(forward_func=model)


@cache
def seen(name: str) -> Record:
    return recorded(precise(name), Want(seen=["tokens", "probs", "values", "mid", "out"], row="outputs"))


def recorded(case: Case, want: Want) -> Record:
    model, inputs, args, target = case
    with undisturbed(model):
        return record(Pass(model, (inputs,), args, cv.spec_of(model, inputs, args)), target, want)


def output(case: Case) -> Tensor:
    with torch.no_grad():
        return scores_of(case.forward_func(case.inputs, *case.additional_forward_args))


@pytest.mark.parametrize("name", FAMILIES)
def test_prefix_grid_and_pooling_are_found(name: str):
    found, (prefix, read) = seen(name), KNOWN.get(name, (1, "CLS"))
    grid = None if not found.inputs[0].is_floating_point() else GRIDS.get(name, (4, 4))
    assert (found.layout.prefix, found.layout.grid) == (prefix, grid)

    n_patches = found.layout.n_tokens - prefix
    weights = {
        "CLS": [1.0] + [0.0] * (found.layout.n_tokens - 1),
        "patches": [0.0] * prefix + [1 / n_patches] * n_patches,
        "last": [0.0] * (found.layout.n_tokens - 1) + [1.0],
    }
    if read == "some patches":  # each channel's largest one has more
        assert not found.row[..., :prefix].any() and (found.row[..., prefix:] > 0).all()
        return
    if read == "end":
        wanted = F.one_hot(found.layout.keep.sum(1) - 1, found.layout.n_tokens)
    elif read == "words":
        wanted = found.layout.keep / found.layout.keep.sum(1, keepdim=True)
    elif read in ("pair", "CLS and mean"):
        wanted = by_the_heads_weights(name, prefix, n_patches)
    else:
        wanted = attended(name) if read == "attention" else torch.tensor([weights[read]] * 2)
    assert torch.allclose(found.row.squeeze(1), wanted.double(), atol=EXACT)


def by_the_heads_weights(name: str, prefix: int, n_patches: int) -> Tensor:
    """Of heads that read two vectors, each row's by hand: how long the mixed weights of its part are."""
    model = precise(name).forward_func
    pair = TWO_HEADS.get(name)
    weights = [getattr(model, head).weight for head in pair] if pair else model.classifier.weight.chunk(2, 1)
    mixture = torch.cos(torch.arange(1, len(weights[0]) + 1, dtype=torch.float64))
    first, second = (float((mixture @ weight.detach()).norm()) for weight in weights)
    found = [first, second] + [0.0] * n_patches
    if not pair:
        found = [first] + [0.0] * (prefix - 1) + [second / n_patches] * n_patches
    return torch.tensor(found, dtype=torch.float64).expand(2, -1) / sum(found)


def attended(name: str) -> Tensor:
    """The weights of an attention pooling, computed by hand from what leaves the last block."""
    model, rows = precise(name).forward_func, seen(name).seen["out"][2]
    if isinstance(model, cv.TextSimilarity):
        tower = model.model.vision_model
        rows, head = tower.post_layernorm(rows), tower.head
        return head.attention(head.probe.expand(len(rows), -1, -1), rows, rows)[1][:, 0]
    pool = model.attn_pool
    rows = model.norm(rows)
    start = seen(name).layout.prefix if isinstance(model, VisionTransformer) else 0  # EVA pools its prefix too
    q = pool.q(pool.latent)[0].unflatten(-1, (pool.num_heads, -1))  # shape: (1, H, d)
    k = pool.kv(rows[:, start:]).chunk(2, -1)[0].unflatten(-1, (pool.num_heads, -1))  # shape: (B, n, H, d)
    probs = (torch.einsum("lhd,bnhd->bhn", q, k) * pool.scale).softmax(-1).mean(1)
    return F.pad(probs, (start, 0))


@pytest.mark.parametrize("name", FAMILIES)
def test_values_and_probabilities_make_the_attention_branch(name: str):
    found = seen(name)
    for layer, block in enumerate(found.transformer.blocks):
        probs, values = found.seen["probs"][layer], found.seen["values"][layer]
        if name in NO_HEAD_VECTORS:
            with pytest.raises(cv.UnsupportedModelError, match="in between"):
                output_map(found.transformer, layer, values)
            continue
        W, _ = output_map(found.transformer, layer, values)
        branch = torch.einsum("bhij,bhjd,hdD->biD", probs, values, W) + output_bias(block)
        after = found.seen["tokens"][layer] + branch
        if found.transformer.post_norm:
            after = block.first_norm(after)
        assert (after - found.seen["mid"][layer]).abs().max() < EXACT


def output_bias(block: Block) -> Tensor | int:
    bias, scale = block.out_proj.bias, block.attn_scale and block.attn_scale()
    return 0 if bias is None else bias if scale is None else bias * scale


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_sub_network_is_the_rest_of_the_model(name: str):
    case, found = precise(name), seen(name)
    streams = [*found.seen["tokens"].values(), found.seen["out"][2]]
    for layer, tokens in enumerate(streams):
        part = SubNetwork(case.forward_func, found.transformer, layer)
        with torch.no_grad():
            said = part(tokens, case.inputs, *case.additional_forward_args)
        assert (said - output(case)).abs().max() < EXACT


@pytest.mark.parametrize("name", FAMILIES)
def test_the_readout_of_a_token_is_the_head_on_copies_of_it(name: str):
    case, found = precise(name), seen(name)
    model, rows = case.forward_func, found.seen["out"][2]
    said = readout(found.call, rows, found.layout)
    whole = SubNetwork(model, found.transformer, len(found.transformer.blocks))
    for i in (0, rows.shape[1] - 1):
        copies = rows[:, i : i + 1].expand_as(rows).contiguous()
        with torch.no_grad():
            assert (whole(copies, *found.inputs, *found.args) - said[:, i]).abs().max() < EXACT
    if KNOWN.get(name, (1, "CLS"))[1] == "CLS":
        method = cv.PredictionMap(model, -1, score="logit", output="tokens")
        cls = method.attribute(found.inputs[0], case.target, found.args or None)[:, 0]
        assert (cls - output(case)[[0, 1], case.target]).abs().max() < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["frozen", "libra"])
@pytest.mark.parametrize("name", FAMILIES)
def test_without_biases_the_decomposition_is_complete(name: str, rule: str):
    """DecompX over all tokens, prefix included, sums to the logit, from every start layer."""
    case = without_biases(name)
    found = recorded(case, Want(grads=["tokens"], rule=rule))
    logit = found.output[[0, 1], case.target]
    for layer in found.layers:
        parts = (found.seen["tokens"][layer] * found.grads["tokens"][layer]).sum((1, 2))
        assert ((parts - logit) / logit).abs().max() < 1e-6


@pytest.mark.parametrize("rule", ["frozen", "libra"])
@pytest.mark.parametrize("name", FAMILIES)
def test_with_biases_the_decomposition_is_complete_too(name: str, rule: str):
    """From every start layer gradient x input and all biases from there on sum to the logit; none is missed."""
    case = precise(name)
    found = recorded(case, Want(grads=["tokens"], rule=rule, row="outputs", biases=True))
    assert torch.equal(found.read, seen(name).read), "the rows that the head reads, under any rule"
    logit = found.output[[0, 1], case.target]
    for layer in found.layers:
        parts = (found.seen["tokens"][layer] * found.grads["tokens"][layer]).sum((1, 2))
        parts = parts + sum(found.biases_of(later).sum(1) for later in found.layers[layer:])
        assert ((parts - logit) / logit).abs().max() < 1e-9


@pytest.mark.full  # tests/test_compatibility.py asks the same of one sample in each run of CI
@pytest.mark.parametrize("name", FAMILIES)
def test_every_method_explains_every_family(name: str):
    case = precise(name)
    model, inputs, args, target = case
    maps = {}
    for method, make in cv.METHODS.items():
        if method in READ_HEADS and name in NO_HEAD_VECTORS:
            with pytest.raises(cv.UnsupportedModelError, match="in between"):
                make(model).attribute(inputs, target, args or None)
            continue
        maps[method] = make(model).attribute(inputs, target=target, additional_forward_args=args or None)
    grid = seen(name).layout.grid
    for found in maps.values():
        assert found.shape == (tuple(inputs.shape) if grid is None else (2, 1, *grid))
        assert found.isfinite().all() and found.any()
