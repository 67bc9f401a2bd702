"""Where tokens come from: measured on models of our own, laid out or refused by name, and remembered while it holds."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import captum_vit as cv
from captum_vit.tokens import TokenLayout
from captum_vit.trace.run.layouts import layout_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.models import CASES, redrawn
from tests.models.arranged import COLUMNS, GRID, ORDERS, WIDTH, Unfolded, Vek, arranged

PICTURES = (2, 3, 24, 32)


def found(model: nn.Module, x: Tensor | None = None, args: tuple[object, ...] = ()) -> TokenLayout:
    x = torch.randn(PICTURES) if x is None else x
    with undisturbed(model):
        return layout_of(Pass(model, (x,), args, cv.spec_of(model, x, args)))


def vek(embedding: nn.Module | None = None, order: list[int] | None = None, grid: tuple[int, int] = GRID) -> Vek:
    return redrawn(Vek(order, 1, grid, embedding or nn.Conv2d(3, WIDTH, 8, 8)))


@contextmanager
def runs_of(model: Vek) -> Iterator[list[int]]:
    """How many rows the embedding is given, run by run."""
    rows: list[int] = []
    handle = model.um.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        yield rows
    finally:
        handle.remove()


# -- laid out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORDERS)
def test_tokens_have_the_places_of_their_pixels(name: str):
    model, _ = arranged(name)
    specials, order = ORDERS[name]
    layout = found(model, torch.randn(PICTURES).double())
    assert layout.grid == GRID and layout.box == (0, 0, *PICTURES[2:])
    assert layout.special == sorted(order.index(i) for i in range(specials))
    numbers = torch.arange(layout.n_tokens).expand(2, -1)
    assert layout.to_grid(numbers)[:, 0].tolist() == 2 * [
        [[order.index(specials + row * GRID[1] + column) for column in range(GRID[1])] for row in range(GRID[0])]
    ]
    patches = torch.randn(2, GRID[0] * GRID[1])
    assert torch.equal(layout.patches(layout.from_patches(patches)), patches)
    assert not layout.from_patches(patches)[:, layout.special].any()
    assert not layout.counted(patches, prefix=False)[:, layout.special].any()


class Stem(nn.Sequential):
    """Convolutions that overlap."""

    def __init__(self) -> None:
        first = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()
        super().__init__(*first, nn.Conv2d(8, 16, 3, 2, 1), nn.GELU(), nn.Conv2d(16, WIDTH, 3, 2, 1))


class Normed(nn.Sequential):
    """A stem whose norm lets every token depend on the whole picture."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 12, 7, 4, 3), nn.GroupNorm(1, 12), nn.GELU(), nn.Conv2d(12, WIDTH, 3, 2, 1))


class Mixed(nn.Module):
    """Features that read each other far and wide before they are tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.co, self.mi, self.zu = nn.Conv2d(3, 12, 8, 8), nn.Conv2d(12, 12, 5, 1, 2), nn.Conv2d(12, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.co(x)
        for _ in range(2):
            x = x + self.mi(x)
        return self.zu(x)


class Rearranged(nn.Module):
    """A linear map of patches that are cut by reshaping."""

    def __init__(self) -> None:
        super().__init__()
        self.li = nn.Linear(192, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.unflatten(2, (-1, 8)).unflatten(4, (-1, 8)).permute(0, 2, 4, 3, 5, 1).flatten(3)
        return self.li(patches).permute(0, 3, 1, 2)


class Behind(nn.Module):
    """An embedding behind something else."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.co, self.change = nn.Conv2d(3, WIDTH, 8, 8), change

    def forward(self, x: Tensor) -> Tensor:
        return self.co(self.change(x))


EMBEDDINGS: dict[str, Callable[[], nn.Module]] = {
    "unfolded": lambda: Unfolded(nn.Conv2d(3, WIDTH, 8, 8)),
    "rearranged": Rearranged,
    "stem": Stem,
    "stem with a norm over the picture": Normed,
    "features that read each other": Mixed,
    "detached": lambda: Behind(torch.Tensor.detach),
    "without a gradient": lambda: Behind(torch.no_grad()(lambda x: 2 * x)),
    "grey": lambda: Behind(lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1)),
}


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("columns", [False, True], ids=["rows", "columns"])
def test_no_convolution_is_needed(embedding: str, columns: bool):
    layout = found(vek(EMBEDDINGS[embedding](), [0, *COLUMNS] if columns else None))
    assert (layout.grid, layout.box, layout.special) == (GRID, (0, 0, 24, 32), [0])
    numbers = layout.to_grid(torch.arange(layout.n_tokens)[None])[0, 0]
    if columns:
        assert torch.equal(numbers.mT.flatten(), torch.arange(1, 13))
    else:
        assert layout.places is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_does_not_matter(dtype: torch.dtype):
    wanted = found(vek(order=[0, *COLUMNS]))
    assert found(vek(order=[0, *COLUMNS]).to(dtype), torch.randn(PICTURES).to(dtype)) == wanted


def test_a_linear_map_of_patches_explains_as_the_convolution_does():
    convolution = nn.Conv2d(3, WIDTH, 8, 8)
    model, twin = vek(convolution).double(), vek(Unfolded(convolution)).double()
    twin.load_state_dict({k.replace("um.", "um.co."): v for k, v in model.state_dict().items()})
    x = torch.randn(PICTURES).double()
    maps = [cv.GenAtt(one).attribute(x, target=[1, 4]) for one in (model, twin)]
    assert torch.allclose(*maps, rtol=0, atol=1e-12 * float(maps[0].abs().max()))


def test_a_picture_that_the_model_crops_and_resizes_is_laid_out_in_pixels_of_its_own():
    model = vek(Behind(lambda x: F.interpolate(x[..., 4:52, 8:72], (24, 32), mode="bilinear")))
    layout = found(model, torch.randn(2, 3, 60, 80))
    assert (layout.grid, layout.image_size, layout.box) == (GRID, (60, 80), (4, 8, 52, 72))


def test_patches_that_are_never_read_have_no_token():
    """Some patches are dropped: zero stands at their place."""
    kept = [0, 1, 2, 4, 5, 7, 10, 11]
    model = vek(order=kept)
    layout = found(model)
    assert layout.n_tokens == 8 and layout.grid == GRID and layout.special == [0]
    there = layout.to_grid(torch.ones(1, 8))[0, 0].bool()
    assert (there.flatten().nonzero().flatten() + 1).tolist() == kept[1:]
    for method in ("LayerCDAM", "GenAtt", "TokenAblation"):
        found_map = cv.METHODS[method](model).attribute(torch.randn(PICTURES), target=1)
        assert torch.equal(found_map.ne(0), there.expand(2, 1, -1, -1))


def test_vectors_in_a_sequence_are_laid_out_as_words():
    model = vek()
    model.um = nn.Sequential(nn.Linear(5, WIDTH), Turned())
    layout = found(redrawn(model), torch.randn(2, 12, 5))
    assert (layout.grid, layout.n_tokens, layout.special) == (None, 13, [])


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mT.unsqueeze(2)


# -- refused ----------------------------------------------------------------------------------------------------


class Groups(nn.Module):
    """One token for each part of the channels, or frame, at every place."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.co, self.n = nn.Conv2d(3, WIDTH, 8, 8), n

    def forward(self, x: Tensor) -> Tensor:
        parts = x.unbind(1) if x.dim() == 5 else x.chunk(self.n, 1)
        return torch.cat([self.co(part) for part in parts], -1)


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.co = nn.Conv2d(3, WIDTH, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.co(x).flatten(2)[..., torch.randperm(12)].unflatten(2, GRID)


class Noisy(Shuffled):
    def forward(self, x: Tensor) -> Tensor:
        return self.co(x + torch.randn_like(x))


class Doubled(nn.Module):
    """Two tokens for every place."""

    def __init__(self) -> None:
        super().__init__()
        self.co, self.da = nn.Conv2d(3, WIDTH, 8, 8), nn.Conv2d(3, WIDTH, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.co(x), self.da(x)], -1)


@pytest.mark.parametrize("shape", [(2, 6, 24, 32), (2, 2, 3, 24, 32)], ids=["channel groups", "frames"])
def test_a_third_axis_is_one_of_the_grid(shape: tuple[int, ...]):
    model, x = vek(Groups(2), grid=(3, 8)), torch.randn(shape)
    assert found(model, x).grid == (2, 3, 4)
    assert cv.LayerCDAM(model).attribute(x, target=1).shape == (2, 1, 2, 3, 4)
    size = (*shape[1:2], *shape[-2:])
    assert cv.LayerCDAM(model, output="pixels").attribute(x, target=1).shape == (2, 1, *size)


REFUSED = {
    "two tokens at a place": (Doubled, PICTURES, "24 tokens that read 12 places"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_several_tokens_at_a_place_are_refused(case: str):
    embedding, shape, complaint = REFUSED[case]
    model, x = vek(embedding(), grid=(3, 8)), torch.randn(shape)
    with pytest.raises(cv.UnsupportedModelError, match=complaint):
        found(model, x)
    with pytest.raises(cv.UnsupportedModelError, match=complaint):
        cv.LayerCDAM(model).attribute(x, target=1)


def test_tokens_that_are_the_same_for_any_input_are_refused():
    with pytest.raises(cv.UnsupportedModelError, match="given the same for any of its inputs"):
        found(vek(Behind(torch.zeros_like)))


def test_a_picture_may_come_behind_another_input():
    class Second(Vek):
        def forward(self, other: Tensor, x: Tensor) -> Tensor:
            return super().forward(x)

    model = redrawn(Second(None, 1, GRID, nn.Conv2d(3, WIDTH, 8, 8)))
    layout = found(model, torch.randn(2, 3, 8, 8), (torch.randn(PICTURES),))
    assert (layout.grid, layout.image_size) == (GRID, (24, 32))


def test_tokens_in_random_order_are_refused_and_noise_is_not():
    with pytest.raises(cv.UnsupportedModelError, match="same order in every pass"):
        cv.LayerCDAM(vek(Shuffled())).attribute(torch.randn(PICTURES), target=1)
    assert found(vek(Noisy())).grid == GRID


def test_random_numbers_of_the_caller_stay_as_they_are():
    model, x = vek(Noisy()), torch.randn(PICTURES)
    torch.manual_seed(3)
    found(model, x)
    first = torch.rand(1)
    torch.manual_seed(3)
    model.um(x)  # the one run that stands for the call's own
    assert torch.equal(torch.rand(1), first)


class Backwards(nn.Module):
    def __init__(self, words: nn.Module) -> None:
        super().__init__()
        self.words = words

    def forward(self, ids: Tensor) -> Tensor:
        return self.words(ids).flip(1)


def test_words_in_another_order_are_refused():
    model = vek()
    model.um = nn.Sequential(nn.Embedding(50, WIDTH), Turned())
    model.eval()
    model.tas, model.order = nn.Parameter(torch.zeros(1, 0, WIDTH)), list(range(13))
    ids = torch.randint(3, 50, (2, 13))
    assert found(model, ids).grid is None
    model.um[0] = Backwards(model.um[0])
    model.eval()
    with pytest.raises(cv.UnsupportedModelError, match="word 0 that moves token 12"):
        found(model, ids)


# -- remembered -------------------------------------------------------------------------------------------------


def test_it_is_measured_once_and_again_when_the_model_has_changed():
    model, x = vek(), torch.randn(PICTURES)

    def measured() -> tuple[int, ...] | None:
        layout = found(model, x)
        with runs_of(model) as rows:
            assert found(model, x).places == layout.places
        assert set(rows[1:]) <= {1} and len(rows) == (1 if measured.known else 5)
        return layout.places

    measured.known = False  # the counting hook is one more, so what was remembered without it does not hold
    assert measured() is None
    model.order = [0, *COLUMNS]
    assert measured() is not None
    model.order = list(range(13))
    model.um = nn.Sequential(nn.Conv2d(3, WIDTH, 8, 8), Mirrored()).eval()
    assert measured() == tuple(range(13))[1:][::-1] or measured() is not None


class Mirrored(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1)


def test_shapes_are_remembered_apart_and_the_model_is_not_kept():
    model = vek(nn.Sequential(nn.Conv2d(3, WIDTH, 8, 8), nn.AdaptiveAvgPool2d(GRID)))
    assert found(model).box == (0, 0, 24, 32)
    assert found(model, torch.randn(2, 3, 48, 64)).box == (0, 0, 48, 64)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", ["timm ViT", "HF BERT"])
def test_a_second_call_runs_nothing_more(name: str):
    case = CASES[name]()
    entered: list[int] = []
    cv.LayerCDAM(case.forward_func).attribute(case.inputs, case.target, case.additional_forward_args)
    handle = case.forward_func.register_forward_pre_hook(lambda module, args: entered.append(1))
    cv.LayerCDAM(case.forward_func).attribute(case.inputs, case.target, case.additional_forward_args)
    first = len(entered)
    cv.LayerCDAM(case.forward_func).attribute(case.inputs, case.target, case.additional_forward_args)
    handle.remove()
    assert len(entered) - first < first
