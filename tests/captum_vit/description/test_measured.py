"""What a pass shows of the families that the exam runs on, and of others: places, and the model as it was before."""

import gc
import weakref
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.description import measured
from captum_vit.description.graph import recorded
from captum_vit.models import registry
from captum_vit.models.output import scores_of
from captum_vit.models.transformer import Block, Transformer
from captum_vit.sites.site import Place, Site
from captum_vit.trace.run.state import undisturbed
from tests.models import CASES, FURTHER, SIZES, TIMM, VOCABULARY, Case, padded, redrawn, slow_beyond_slice, timm_vit
from tests.models.specs import SPECS

PLACES = ("entrance", "attn_in", "mid", "out", "before_mid", "before_norm")
PARTS = ("module", "first_norm", "last_norm", "mid_norm", "out_proj")


def described(case: Case) -> Transformer:
    model, inputs, args, _ = case
    with undisturbed(model):
        return measured(model, (inputs,), args)


def tensor_at(case: Case, place: Place) -> Tensor:
    model, inputs, args, _ = case
    found: list[Tensor] = []
    with undisturbed(model):
        place.hook(lambda x: found.append(x.detach().clone()))
        model(inputs, *args)
    return found[0]


@pytest.mark.parametrize("name", slow_beyond_slice([*CASES, *FURTHER]))
def test_a_pass_shows_what_the_spec_says(name: str, monkeypatch: pytest.MonkeyPatch):
    case = (CASES | FURTHER)[name]()
    monkeypatch.setattr(registry, "_REGISTRY", SPECS)
    (spec,), found = registry.all_known(case.forward_func), described(case)
    assert found.tower is spec.tower and found.name == spec.name and found.family == spec.family
    assert len(found.blocks) == len(spec.blocks) and found.post_norm == spec.post_norm
    for ours, theirs in zip(found.blocks, spec.blocks, strict=True):
        _compare(case, ours, theirs)


def _compare(case: Case, ours: Block, theirs: Block) -> None:
    for name in PARTS:
        if not (name == "out_proj" and theirs.between):  # of no use then
            assert getattr(ours, name) is getattr(theirs, name), name
    assert bool(ours.between) == bool(theirs.between)
    for name in PLACES:
        x, y = getattr(ours, name), getattr(theirs, name)
        assert x == y or torch.equal(tensor_at(case, x), tensor_at(case, y)), name
    if not theirs.between and (ours.attn_scale or theirs.attn_scale):
        assert ours.attn_scale is not None and theirs.attn_scale is not None
        assert torch.equal(ours.attn_scale().flatten(), theirs.attn_scale().flatten())


Build = Callable[[], nn.Module]
GPT2 = {"n_embd": 24, "n_layer": 3, "n_head": 3, "n_positions": 24}
XLM = {"n_words": 50, "emb_dim": 24, "n_layers": 3, "n_heads": 3}


def text(family: str, **kwargs: Any) -> Build:
    def build() -> nn.Module:
        config = getattr(transformers, f"{family}Config")(
            **SIZES | VOCABULARY | {"pad_token_id": 0} | kwargs, num_labels=5
        )
        return getattr(transformers, f"{family}ForSequenceClassification")(config)

    return build


def xmod() -> nn.Module:
    model: Any = text("Xmod")()
    model.set_default_language("en_XX")
    return model


def layer(path: str) -> Callable[[nn.Module], nn.Module]:
    return lambda model: model.get_submodule(path)


# A model, the module whose second call or second copy takes what the second block reads, and how often it is called.
FAMILIES: dict[str, tuple[Build, Callable[[nn.Module], nn.Module], int]] = {
    "GPT-2": (text("GPT2", **GPT2), layer("transformer.h.1.attn"), 1),
    "GPT-NeoX": (text("GPTNeoX"), layer("gpt_neox.layers.1.attention"), 1),
    "OPT": (text("OPT", ffn_dim=48, word_embed_proj_dim=24), layer("model.decoder.layers.1.self_attn"), 1),
    "ALBERT": (text("Albert", embedding_size=16), layer("albert.encoder.albert_layer_groups.0.albert_layers.0"), 3),
    "ESM": (text("Esm"), layer("esm.encoder.layer.1.attention.self"), 1),
    "MPNet": (text("MPNet"), layer("mpnet.encoder.layer.1"), 1),
    "X-MOD": (xmod, layer("roberta.encoder.layer.1"), 1),
    "Flaubert": (text("Flaubert", **XLM), layer("transformer.attentions.1"), 1),
    "Llama": (text("Llama", num_key_value_heads=1), layer("model.layers.1.self_attn"), 1),
}


def family_case(name: str) -> tuple[Case, Site]:
    build, module, of = FAMILIES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = redrawn(build())
        ids, mask = padded()
    past = (None,) if name == "GPT-2" else ()
    return Case(model, ids, (*past, mask)), Site(module(model), "input", 1 if of > 1 else 0, of)


def gradient_x_token(case: Case, place: Place, leaf: bool) -> Tensor:  # shape: (B, N)
    """Of class 1 at a place: at the tensor that is there, or at a leaf in its place."""
    model, ids, args, _ = case
    found: list[Tensor] = []

    def visit(x: Tensor) -> Tensor | None:
        found.append(x.detach().requires_grad_() if leaf else x)
        return found[-1] if leaf else None

    handle = place.hook(visit)
    try:
        scores = scores_of(model(ids, *args))
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(scores[:, 1].sum(), found[0])
    return (gradient * found[0]).sum(-1).detach()


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_x_token_where_a_block_reads(name: str):
    """As by a hook on the module that a reader of the code names, padding and all."""
    case, named = family_case(name)
    block = described(case).blocks[1]
    assert block.attn_in is not None
    wanted, found = gradient_x_token(case, named, leaf=False), gradient_x_token(case, block.attn_in, leaf=True)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(("name", "attends"), [("timm ViT", "Attention"), ("HF BERT", "BertSelfAttention")])
def test_the_innermost_module_that_attends_is_found(name: str, attends: str):
    blocks = described(CASES[name]()).blocks
    assert len({block.attends for block in blocks}) == len(blocks)
    assert {type(block.attends).__name__ for block in blocks} == {attends}


def test_a_graph_lets_go_of_its_tensors_and_the_model_is_as_before():
    case = CASES["timm ViT"]()
    model, inputs, args, _ = case
    before = model(inputs, *args)
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in model.modules()]
    gc.collect()
    gc.disable()
    try:
        with undisturbed(model):
            graph = recorded(model, (inputs,), args)
            kept = [weakref.ref(v.tensor) for v in graph.values if v.op is not None]
            graph.release()
            assert not [ref for ref in kept if ref() is not None]
    finally:
        gc.enable()
    described(case)
    assert torch.equal(model(inputs, *args), before)
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in model.modules()]


class RoundedWeight(Tensor):
    """Weights in a few bits: what they meet may be rounded too, in code that no pass shows."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            y = func(*args, **(kwargs or {}))
            return y.round() if func is F.linear else y


@pytest.mark.parametrize(("rounded", "runs"), [(False, 1), (True, 5)])
def test_a_projection_that_the_pass_shows_to_be_linear_is_not_tried(rounded: bool, runs: int):
    """Once in the pass, and four times where only a trial tells."""
    model, inputs, *_ = deepcopy(CASES["timm ViT"]())
    ran: list[nn.Module] = []
    projection = model.blocks[0].attn.proj
    if rounded:
        weight = projection.weight.detach().as_subclass(RoundedWeight)
        del projection.weight
        projection.weight = weight
    projection.register_forward_pre_hook(lambda module, given: ran.append(module))
    first = described(Case(model, inputs)).blocks[0]
    assert len(ran) == runs
    assert (first.out_proj is None) == rounded


def test_a_pass_that_fails_leaves_nothing_behind():
    case = CASES["HF BERT"]()
    model, inputs, args, _ = case
    fast = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(IndexError), undisturbed(model):
        measured(model, (inputs + 10**6,), args)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fast and torch.overrides._len_torch_function_stack() == 0


def norms_of(model: nn.Module, ids: Tensor) -> list[Any]:
    return [(b.first_norm, b.last_norm, b.mid_norm, b.out_proj, b.mid is None) for b in cv.spec_of(model, ids).blocks]


@pytest.mark.parametrize("name", ["HF BERT", "HF ModernBERT", "ALBERT", "GPT-2"])
def test_few_words_or_one_again_and_again_show_the_norms_of_others(name: str):
    """A norm is known by three tokens, none like another."""
    model = CASES[name]().forward_func if name in CASES else family_case(name)[0].forward_func
    wanted = norms_of(model, torch.tensor([[5, 9, 7, 12, 6, 8]]))
    for ids in ([[5]], [[5, 7]], [[5, 7], [8, 6]], [[5, 5, 5, 5, 5]]):
        assert norms_of(model, torch.tensor(ids)) == wanted


LATER = {
    "LayerScale of one": lambda block: [block.ls1.gamma.data.fill_(1)],
    "projection of zero": lambda block: [p.data.zero_() for p in block.attn.proj.parameters()],
}


@pytest.mark.parametrize("start", LATER)
@pytest.mark.parametrize("method", ["VTranM", "GlobEnc"])
def test_weights_that_come_after_the_description_count(start: str, method: str):
    """A factor of one, or a branch of zeros, shows no scale, but the scale is there."""
    x, trained = torch.randn(1, 3, 32, 32), redrawn(timm_vit(**TIMM, init_values=0.1))
    model = deepcopy(trained)
    for block in model.blocks:
        LATER[start](block)
    cv.spec_of(model, x)
    for p, weight in zip(model.parameters(), trained.parameters(), strict=True):
        p.data.copy_(weight)
    found, wanted = (cv.METHODS[method](m).attribute(x, target=1) for m in (model, trained))
    assert torch.equal(found, wanted)
