"""Finding the transformer inside a model, through wrappers, by a user's description; and refusing what has none."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
import transformers
from timm.models import vision_transformer
from torch import nn

import captum_vit as cv
from captum_vit.models import registry
from tests.captum_vit.models.families import UNSUPPORTED
from tests.models import CLASSES, PICTURE, SIZES, TIMM, image, redrawn, timm_vit


class Lightning(nn.Module):
    """As training code wraps models: the tower deep inside, with a second name, and a head of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.trunk = model
        self.alias = model.blocks[0].attn
        self.backbone = model
        self.head = nn.Linear(CLASSES, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.visual.trunk(x))


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "Lightning": Lightning,
    "DataParallel": nn.DataParallel,
    "compiled": partial(torch.compile, backend="aot_eager"),
    "DataParallel in a target": lambda model: cv.Margin(nn.DataParallel(model), 0, 1),
    "target in a target": lambda model: cv.Direction(cv.logits_of(model), torch.ones(CLASSES)),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "compiled" else n for n in WRAPPERS])
@pytest.mark.parametrize("method", ["LayerCDAM", "PredictionMap", "GenAtt", "SkipPLUS(DecompX)"])
def test_wrappers_are_looked_through(name: str, method: str):
    model = redrawn(timm_vit(**TIMM))
    wrapped = WRAPPERS[name](model).eval()
    found = cv.spec_of(wrapped)
    assert found.tower is model
    assert wrapped.get_submodule(found.name) is model
    assert cv.METHODS[method](wrapped).attribute(image(), target=0).any()


@pytest.mark.slow
def test_a_compiled_model_gives_the_maps_of_the_model():
    model, x = redrawn(timm_vit(**TIMM)), image()
    expected = cv.GenAtt(model).attribute(x, target=2)
    compiled = torch.compile(model, backend="aot_eager")
    compiled(x)
    assert torch.allclose(cv.GenAtt(compiled).attribute(x, target=2), expected)
    assert torch.allclose(compiled(x), model(x), atol=1e-5)


class Two(nn.Module):
    """Two towers on one image."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = redrawn(timm_vit(**TIMM)), redrawn(timm_vit(**TIMM))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) + self.right(x)


def test_of_two_transformers_a_module_names_one():
    two = Two()
    with pytest.raises(cv.UnsupportedModelError, match=r"Two with 2 transformers: 3 blocks .*, 3 blocks") as caught:
        cv.spec_of(two)
    assert "`tower`" in str(caught.value)
    two.tower = two.right
    assert cv.spec_of(two).tower is two.right


def test_clip_needs_a_target():
    text = {"vocab_size": 30, "hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1}
    config = transformers.CLIPConfig(text_config=text, vision_config=SIZES | PICTURE, projection_dim=16)
    model = transformers.CLIPModel(config).eval()
    with pytest.raises(cv.UnsupportedModelError, match="TextSimilarity"):
        cv.spec_of(model)
    similarity = cv.TextSimilarity(model, torch.randn(2, 16))
    assert cv.spec_of(cv.Margin(similarity, 0, 1)).tower is model.vision_model


@pytest.mark.parametrize(("name", "build"), UNSUPPORTED.items(), ids=UNSUPPORTED)
def test_what_is_not_supported_says_why(name: str, build: Callable[[], nn.Module]):
    model = build().eval()
    with pytest.raises(cv.UnsupportedModelError) as caught:
        cv.GenAtt(model).attribute(image(), target=0)
    error = caught.value
    assert error.wanted and error.hint
    assert type(model).__name__ in error.got


def test_a_function_is_no_model():
    with pytest.raises(cv.UnsupportedModelError, match=r"nn\.Module"):
        cv.spec_of(lambda x: x)


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    yield


@pytest.mark.usefixtures("own_registry")
def test_a_description_by_class_by_name_or_by_function():
    class Mine(vision_transformer.VisionTransformer):
        pass

    model = Mine(**TIMM).eval()
    assert cv.spec_of(model).family == "tests Mine"
    cv.register_spec("Mine", spec=cv.Spec(family="by name"))
    assert cv.spec_of(model).family == "by name"
    cv.register_spec(Mine, spec=cv.Spec(family="by class"))
    assert cv.spec_of(model).family == "by class"

    @cv.register_spec(Mine)
    def describe(model: nn.Module) -> cv.Spec:
        return cv.Spec(family=f"{len(model.blocks)} blocks")

    assert cv.spec_of(nn.Sequential(model)).family == "3 blocks"


@pytest.mark.usefixtures("own_registry")
def test_a_wrong_path_is_named():
    class Mine(vision_transformer.VisionTransformer):
        pass

    cv.register_spec(Mine, spec=cv.Spec(mid="ln_2", family="mine"))
    with pytest.raises(cv.UnsupportedModelError, match="of mine: no 'ln_2', which its spec names"):
        cv.VTranM(redrawn(Mine(**TIMM))).attribute(image(), target=0)
