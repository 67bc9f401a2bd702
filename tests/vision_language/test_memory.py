"""What a pass holds for its backward pass."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import captum_vit as cv
from tests.contracts.test_memory import live, uncollected
from tests.vision_language.conftest import Question
from tests.vision_language.models import LLAMA

LENGTH = 64


def held(method: cv.TokenAttribution, ids: torch.Tensor) -> int:
    """Bytes that the graph of a map keeps, without the model's own."""
    own = {x.untyped_storage().data_ptr() for x in (*method.model.parameters(), *method.model.buffers())}
    found: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in own:
            found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        method.attribute(ids, target=0)
    return sum(found.values())


@pytest.fixture(scope="module")
def answer() -> cv.Answer:
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**{**LLAMA, "num_hidden_layers": 8})).eval()
    return cv.Answer(model, LENGTH - 1)


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(2, 190, (1, LENGTH), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", [cv.CAT, cv.GenAtt, lambda model: cv.LayerCDAM(model, 0)])
def test_nothing_is_held_for_gradients_of_weights(answer: cv.Answer, ids: torch.Tensor, make) -> None:
    trainable = held(make(answer), ids)
    answer.requires_grad_(False)
    try:
        frozen = held(make(answer), ids)
    finally:
        answer.requires_grad_(True)
    assert trainable == frozen
    assert all(p.requires_grad for p in answer.parameters())


@pytest.mark.parametrize("rule", ["frozen", "libra", "grad"])
def test_blocks_that_run_again_hold_a_seventh(answer: cv.Answer, ids: torch.Tensor, rule: str) -> None:
    plain, again = cv.DecompX(answer, rule=rule), cv.DecompX(answer, rule=rule, checkpoint=True)
    assert torch.equal(plain.attribute(ids, target=0), again.attribute(ids, target=0))
    assert 7 * held(again, ids) < held(plain, ids)


def test_blocks_run_twice(answer: cv.Answer, ids: torch.Tensor) -> None:
    class Counted(nn.Module):
        times = 0

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *args, **kwargs):
            Counted.times += 1
            return self.inner(*args, **kwargs)

    layers = answer.model.model.layers
    first = layers[0].mlp
    method = cv.DecompX(answer, checkpoint=True)
    layers[0].mlp = Counted(first).eval()
    try:
        method.attribute(ids, target=0)  # finds the blocks
        Counted.times = 0
        method.attribute(ids, target=0)
    finally:
        layers[0].mlp = first
    assert Counted.times == 2


@pytest.mark.slow
def test_no_tensor_outlives_a_call(llava: Question) -> None:
    """Not even in a cycle; a cache of keys in the arguments of a block that runs again would make one."""
    answer = cv.Scalar(Answered(llava), lambda output: output.logits[:, -2])
    methods = [cv.DecompX(answer), cv.DecompX(answer, checkpoint=True)]
    for method in methods:
        method.attribute(llava.inputs, target=5)
    with uncollected():
        for method in methods:
            method.attribute(llava.inputs, target=5)
            method.decompose(llava.inputs, target=5)
        assert live() == 0
    assert torch.equal(*(method.attribute(llava.inputs, target=5)[1] for method in methods))


class Answered(nn.Module):
    """The model as it is, which keeps keys."""

    def __init__(self, asked: Question) -> None:
        super().__init__()
        self.model = asked.model
        self.eval()

    def forward(self, ids: torch.Tensor, pixels: torch.Tensor) -> object:
        return self.model(input_ids=ids, pixel_values=pixels, use_cache=True)
