"""Which models are refused as they are: what depends on the mode, weights elsewhere, layers without a gradient."""

import copy

import accelerate
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm
from transformers import EsmConfig, EsmForSequenceClassification

import captum_vit as cv
import quantus_metrics as qm
from captum_vit.trace.run.state import refuse_training
from tests.models import CASES, redrawn

D = 6
IN_TORCH = {
    nn.Linear: (D, D), nn.LayerNorm: (D,), nn.RMSNorm: (D,), nn.GroupNorm: (2, D), nn.Conv1d: (D, D, 1),
    nn.BatchNorm1d: (D,), nn.InstanceNorm1d: (D,), nn.Dropout: (0.5,), nn.AlphaDropout: (0.5,), nn.Dropout1d: (0.5,),
    nn.RReLU: (), nn.GELU: (), nn.Softmax: (-1,), nn.Identity: (), nn.Hardswish: (), nn.PReLU: (), nn.Flatten: (),
    nn.AdaptiveAvgPool1d: (1,), nn.LocalResponseNorm: (2,), nn.Sequential: (), nn.FeatureAlphaDropout: (0.5,),
}  # fmt: skip


def in_training(module: nn.Module) -> bool:
    """Whether it is refused in training mode."""
    try:
        refuse_training(module.train(), [*module.modules()])
    except cv.ModelStateError:
        return True
    return False


@pytest.mark.parametrize("kind", IN_TORCH)
def test_training_mode_is_refused_where_it_matters(kind):
    module, x = kind(*IN_TORCH[kind]), torch.randn(4, D, D)
    if isinstance(module, nn.InstanceNorm1d):
        module = nn.InstanceNorm1d(D, track_running_stats=True)
    before = module.eval()(x)
    torch.manual_seed(1)
    assert in_training(module) == (not torch.equal(module.train()(x), before))


def test_what_nothing_is_known_of_is_refused_in_training_mode():
    """Classes of others, hooks, and forwards put into a module may ask for the mode."""

    class Head(nn.Linear):
        pass

    hooked, replaced = nn.Linear(D, D), nn.Linear(D, D)
    hooked.register_forward_hook(lambda module, args, output: output * module.training)
    replaced.forward = lambda x: x * replaced.training
    for module in (Head(D, D), spectral_norm(nn.Linear(D, D)), hooked, replaced, nn.MultiheadAttention(D, 2)):
        assert in_training(module)
    assert not in_training(nn.Dropout(0.0))
    assert not in_training(nn.Sequential(nn.LayerNorm(D), nn.Linear(D, D)))


@pytest.fixture
def vit():
    return copy.deepcopy(CASES["timm ViT"]().forward_func), CASES["timm ViT"]().inputs


@pytest.mark.parametrize("method", ["LayerCDAM", "GenAtt", "PredictionMap", "DecompX", "TokenAblation"])
def test_a_new_head_is_in_training_mode(vit, method):
    model, x = vit
    wanted = cv.METHODS[method](model).attribute(x, target=1)
    model.head.train()
    assert torch.equal(cv.METHODS[method](model).attribute(x, target=1), wanted)
    assert model.head.training and not model.blocks.training


def test_metrics_refuse_one_part_in_training_mode(vit):
    model, x = vit
    model.blocks[1].attn.train()
    with pytest.raises(cv.ModelStateError, match=r"blocks\.1\.attn"):
        qm.AOPC()(model=model, x_batch=x.numpy(), y_batch=np.zeros(3, int), a_batch=np.random.rand(3, 1, 4, 4))


@pytest.mark.slow
@pytest.mark.parametrize("method", cv.METHODS)
def test_offloaded_weights_are_named(vit, method):
    """They are loaded when their layer runs; read elsewhere, or replaced by a broken pass, they would be lost."""
    model, x = vit
    accelerate.cpu_offload(model)
    with pytest.raises(cv.ModelStateError, match="meta device") as refused:
        cv.METHODS[method](model).attribute(x, target=1)
    assert refused.value.hint.startswith("accelerate.hooks.remove_hook_from_submodules(model)")
    accelerate.hooks.remove_hook_from_submodules(model)
    assert not any(p.is_meta for p in model.parameters())
    assert torch.equal(model(x), CASES["timm ViT"]().forward_func(x))


@pytest.fixture(scope="module")
def esm():
    """It predicts contacts by a head with `in_features` that is no layer, and asks for attentions."""
    config = EsmConfig(
        vocab_size=33, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
        pad_token_id=1, mask_token_id=32, num_labels=5, position_embedding_type="rotary",
    )  # fmt: skip
    return redrawn(EsmForSequenceClassification(config))


@pytest.mark.parametrize("method", ["LayerCDAM", "GenAtt", "DecompX", "LayerSmoothCDAM", "TokenGradCAM"])
def test_a_module_named_like_a_layer_is_none(esm, method):
    ids = torch.tensor([[0, 5, 9, 7, 11, 2]])
    found = cv.METHODS[method](esm).attribute(ids, target=1, additional_forward_args=torch.ones_like(ids))
    assert found.shape == ids.shape and found.any()


class Named(nn.Module):
    """Has the names of a linear layer, and another forward."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features = self.out_features = 24

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return x * scale


def test_a_module_that_cannot_be_tried_is_no_layer(vit):
    model, x = vit
    wanted = cv.LayerCDAM(model).attribute(x, target=1)
    model.gate = Named().eval()
    assert torch.equal(cv.LayerCDAM(model).attribute(x, target=1), wanted)
