"""Models as one meets them: inside other modules, adapted, wrapped, with outputs of every form.

``SAME`` holds ways to arrange a model that leave the function it computes as it is, so its maps are those of the
bare model. What arrives in ``arranged`` is a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import ImageClassifierOutput

import captum_vit as cv

Arrange = Callable[[nn.Module], nn.Module]
SAME: dict[str, Arrange] = {}


def same(name: str) -> Callable[[Arrange], Arrange]:
    def enter(arrange: Arrange) -> Arrange:
        SAME[name] = arrange
        return arrange

    return enter


def arranged(arrange: Arrange, model: nn.Module) -> nn.Module:
    return arrange(copy.deepcopy(model)).eval()


# -- inside other modules ----------------------------------------------------------------------------------------


class At(nn.Module):
    """A model at a dotted place."""

    def __init__(self, path: str, model: nn.Module) -> None:
        super().__init__()
        self.path = path
        *outer, last = path.split(".")
        here: nn.Module = self
        for name in outer:
            here.add_module(name, nn.Module())
            here = here.get_submodule(name)
        here.add_module(last, model)

    def forward(self, *args: Any) -> Any:
        return self.get_submodule(self.path)(*args)


for path in ("visual.trunk", "trunk", "backbone", "net.0.quite_another_name"):
    SAME[path] = lambda model, path=path: At(path, model)


@same("a second name for a part")
def with_alias(model: nn.Module) -> nn.Module:
    holder = At("backbone", model)
    holder.last = cv.spec_of(model).modules()[-1]
    return holder


class OwnHead(nn.Module):
    """Somebody else's head on the features of a model without one."""

    def __init__(self, model: Any, features: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.features = model.get_classifier(), features
        model.reset_classifier(0)
        self.backbone = model

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.backbone, x))


SAME["a head of its own"] = lambda model: OwnHead(model, lambda backbone, x: backbone(x))
SAME["a head on all tokens"] = lambda model: OwnHead(model, lambda backbone, x: backbone.forward_features(x)[:, 0])


@same("Lightning")
def lightning_module(model: nn.Module) -> nn.Module:
    """With a loss beside the model, which is a module too."""
    lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss = model, nn.CrossEntropyLoss()

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            return self.loss(self(batch[0]), batch[1])

    return Classifier()


SAME["DataParallel"] = nn.DataParallel
SAME["DataParallel inside"] = lambda model: At("model", nn.DataParallel(model))
SAME["compiled"] = lambda model: torch.compile(model, backend="eager")
SAME["frozen"] = lambda model: model.requires_grad_(False)


@same("kernels that are not fused")
def written_out(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return model


# -- adapted -----------------------------------------------------------------------------------------------------


def lora(model: nn.Module, **options: Any) -> nn.Module:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["qkv", "proj", "fc1"], **options))


SAME["LoRA, not yet trained"] = lora


# -- outputs of every form ---------------------------------------------------------------------------------------


class Returns(nn.Module):
    """A model whose output is put into something."""

    def __init__(self, model: nn.Module, put: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.model, self.put = model, put

    def forward(self, x: Tensor) -> Any:
        return self.put(self.model(x))


@dataclass
class Prediction:
    logits: Tensor
    note: str = ""


@dataclass
class Unnamed:
    """Nothing here says what the scores are."""

    first: Tensor
    second: Tensor


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "a tuple": lambda y: (y, None),
    "a list": lambda y: [y],
    "a dict": lambda y: {"features": y.mean(), "logits": y},
    "a ModelOutput": lambda y: ImageClassifierOutput(loss=y.mean(), logits=y),
    "a dataclass": Prediction,
}
for form, put in OUTPUTS.items():
    SAME[form] = lambda model, put=put: Returns(model, put)


# -- with a mode of its own --------------------------------------------------------------------------------------


class NoGrad(At):
    @torch.no_grad()
    def forward(self, *args: Any) -> Any:
        return super().forward(*args)


class Autocast(At):
    def forward(self, *args: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(*args).float()


# -- what cannot be followed backwards, or only in part ----------------------------------------------------------


class Inference(At):
    """As many predictors are written."""

    @torch.inference_mode()
    def forward(self, *args: Any) -> Any:
        return super().forward(*args)


class Checkpointed(nn.Module):
    """Recomputes its blocks in the backward pass, by code of its own that no switch turns off."""

    def __init__(self, model: Any, reentrant: bool) -> None:
        super().__init__()
        self.model = model
        for block in model.blocks:
            block.forward = _recomputed(block.forward, reentrant)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _recomputed(forward: Callable[..., Any], reentrant: bool) -> Callable[..., Any]:
    return lambda x: checkpoint(forward, x, use_reentrant=reentrant)


def quantised(model: nn.Module) -> nn.Module:
    """Linear layers in 8 bits, which carry no gradient."""
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)


REFUSED_OR_SAME: dict[str, Arrange] = {
    "no_grad of its own": lambda model: NoGrad("model", model),
    "inference_mode of its own": lambda model: Inference("model", model),
    "checkpointed by itself": lambda model: Checkpointed(model, reentrant=False),
    "checkpointed by itself, reentrant": lambda model: Checkpointed(model, reentrant=True),
}
