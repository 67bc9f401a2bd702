"""Layouts of inputs and models that hide what tokens read: saturated pictures, masks, changed models, dropped rows."""

from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import captum_vit as cv
from captum_vit.tokens import TokenLayout
from captum_vit.trace.run.layouts import layout_of
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.state import undisturbed
from tests.models import TIMM, redrawn, timm_vit
from tests.models.arranged import GRID, PATCHES, WIDTH, Vek

SHAPE = (2, 3, 24, 32)
BACKWARDS = list(range(PATCHES))[::-1]


def found(model: nn.Module, x: Tensor, *args: Any) -> TokenLayout:
    with undisturbed(model):
        return layout_of(Pass(model, (x,), args, cv.spec_of(model, x, args)))


class Embedded(nn.Module):
    """Something before a convolution, and something behind it."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        behind: Callable[[Tensor], Tensor] = lambda t: t,
        patch: tuple[int, int] = (8, 8),
    ) -> None:
        super().__init__()
        self.co, self.before, self.behind = nn.Conv2d(3, WIDTH, patch, patch), before, behind

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.co(self.before(x)).flatten(2)).unsqueeze(2)


def vek(embedding: nn.Module, tokens: int = PATCHES) -> Vek:
    return redrawn(Vek(None, 1, (1, tokens), embedding))


def half(numbers: float) -> Tensor:
    """Pictures of which the upper half is the same everywhere."""
    x = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
    x[..., :16, :] = numbers
    return x


# -- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [0.0, 1.0, 3.0, -3.0])
@pytest.mark.parametrize("squash", [lambda x: x.clamp(0, 1), lambda x: torch.sigmoid(10 * (x - 0.5))])
def test_a_region_without_a_derivative_has_its_tokens(numbers: float, squash: Callable[[Tensor], Tensor]):
    model = vek(Embedded(squash))
    layout = found(model, half(numbers))
    assert (layout.grid, layout.box, layout.special) == (GRID, (0, 0, 24, 32), [0])
    assert found(model, half(0.5)) == layout


def test_a_saturated_frame_is_covered():
    x = torch.rand(SHAPE)
    x[..., :4, :] = x[..., -4:, :] = x[..., :4] = x[..., -4:] = 1.5
    assert found(vek(Embedded(lambda x: x.clamp(0, 1))), x).box == (0, 0, 24, 32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_special_tokens_hide_no_patch(dtype: torch.dtype):
    model = vek(Embedded())
    with torch.no_grad():
        model.tas.mul_(0).add_(100)
    layout = found(model.to(dtype), torch.randn(SHAPE).to(dtype))
    assert (layout.grid, layout.special) == (GRID, [0])


def test_tokens_with_and_without_a_gradient():
    model = vek(Embedded(behind=lambda t: torch.cat([t[..., :4], t[..., 4:].detach()], -1)))
    layout = found(model, torch.randn(SHAPE))
    assert (layout.grid, layout.box, layout.places) == (GRID, (0, 0, 24, 32), None)


def test_an_order_that_depends_on_the_picture_is_refused():
    def by_norm(t: Tensor) -> Tensor:
        order = t.norm(dim=1, keepdim=True).argsort(-1)
        return t.gather(2, order.expand_as(t))

    with pytest.raises(cv.UnsupportedModelError, match="does not depend on the picture"):
        found(vek(Embedded(behind=by_norm)), torch.randn(SHAPE))


def test_rows_far_apart_are_not_taken_for_neighbours():
    """Tokens of two rows side by side and of a far one, none below another: no grid of two rows."""
    kept = [0, 9, 58, 59]
    model = vek(Embedded(behind=lambda t: t[..., kept]), len(kept))
    with pytest.raises(cv.UnsupportedModelError, match="4 tokens that read 4 places"):
        found(model, torch.randn(2, 3, 64, 64))
    rows = [0, 1, 5]
    model = vek(Embedded(behind=lambda t: t.unflatten(-1, (8, 8))[..., rows, :].flatten(-2)), 24)
    with pytest.raises(cv.UnsupportedModelError, match="24 tokens that read 16 places"):
        found(model, torch.randn(2, 3, 64, 64))


class Counted(nn.Module):
    """Words with positions that count no padding, which is id 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(50, WIDTH), nn.Embedding(50, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        real = (ids != 1).long()
        return (self.words(ids) + self.positions(real.cumsum(1) * real + 1)).mT.unsqueeze(2)


@pytest.mark.parametrize("word", [0, 2, 3, 4, 9])
def test_a_text_of_one_word_again_and_again(word: int):
    model = vek(Counted())
    model.tas, model.order = nn.Parameter(torch.zeros(1, 0, WIDTH)), list(range(PATCHES + 1))
    assert found(model, torch.full((2, PATCHES + 1), word)).grid is None


# -- remembered -------------------------------------------------------------------------------------------------


class Ordered(Embedded):
    def __init__(self, order: Any, read: Callable[[Any], Any]) -> None:
        super().__init__()
        self.order, self.read = order, read

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., self.read(self.order)]


class Settings:
    def __init__(self, order: list[int]) -> None:
        self.order = order


HELD: dict[str, tuple[Callable[[list[int]], Any], Callable[[Any], Any]]] = {
    "tensor": (torch.tensor, lambda order: order),
    "array": (np.array, lambda order: order),
    "nested lists": (lambda order: [order[:6], order[6:]], lambda order: [*order[0], *order[1]]),
    "dictionary": (lambda order: {"order": order}, lambda order: order["order"]),
    "settings": (Settings, lambda order: order.order),
}


@pytest.mark.parametrize("kind", HELD)
def test_what_a_module_holds_is_compared(kind: str):
    made, read = HELD[kind]
    model, x = vek(Ordered(made(list(range(PATCHES))), read)), torch.randn(SHAPE)
    assert found(model, x).places is None
    model.um.order = made(BACKWARDS)
    assert found(model, x).places == tuple(i + 1 for i in BACKWARDS)


def test_a_changed_tensor_or_setting_is_another_one():
    x = torch.randn(SHAPE)
    model = vek(Ordered(torch.arange(PATCHES), lambda order: order))
    assert found(model, x).places is None
    model.um.order.copy_(torch.tensor(BACKWARDS))
    assert found(model, x).places == tuple(i + 1 for i in BACKWARDS)
    model = vek(Ordered(Settings(list(range(PATCHES))), lambda order: order.order))
    assert found(model, x).places is None
    model.um.order.order = BACKWARDS
    assert found(model, x).places == tuple(i + 1 for i in BACKWARDS)


def test_loaded_weights_are_measured_again():
    class Sorted(Embedded):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.eye(PATCHES))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) @ self.by

    model, x = vek(Sorted()), torch.randn(SHAPE)
    model.load_state_dict({**model.state_dict(), "um.by": torch.eye(PATCHES)})
    assert found(model, x).places is None
    model.load_state_dict({**model.state_dict(), "um.by": torch.eye(PATCHES)[BACKWARDS]})
    assert found(model, x).places == tuple(i + 1 for i in BACKWARDS)


class WithArgument(Vek):
    def forward(self, x: Tensor, argument: Any) -> Tensor:
        return super().forward(self.read(x, argument))


cv.register_spec(WithArgument, spec=cv.Spec(blocks="zums", attn="lo", out_proj="lo.pu", mid="ne", family="Vek"))


def with_argument(read: Callable[[Tensor, Any], Tensor]) -> WithArgument:
    model = redrawn(WithArgument(None, 1, GRID, nn.Conv2d(3, WIDTH, 8, 8)))
    model.read = read
    return model


@pytest.mark.parametrize("made", [list, torch.tensor, lambda order: {"order": order}])
def test_arguments_of_the_whole_batch_are_compared(made: Callable[[list[int]], Any]):
    def turned(x: Tensor, argument: Any) -> Tensor:
        return x[..., argument["order"] if isinstance(argument, dict) else argument]

    model, x = with_argument(turned), torch.randn(SHAPE)
    columns = list(range(32))
    assert found(model, x, made(columns)).places is None
    assert found(model, x, made(columns[::-1])).to_grid(torch.arange(13.0)[None])[0, 0, 0].tolist() == [4, 3, 2, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_what_a_mask_hides_in_one_call_is_there_in_the_next(dtype: torch.dtype):
    model, x = with_argument(lambda x, mask: x * mask), torch.randn(SHAPE)
    hiding = torch.ones(2, 1, 24, 32)
    hiding[..., :8, :] = 0
    assert found(model, x, hiding.to(dtype)).grid == (2, 4)
    assert found(model, x, torch.ones_like(hiding).to(dtype)).grid == GRID


def test_masks_that_hide_other_patches_in_one_batch_are_refused():
    model, x = with_argument(lambda x, mask: x * mask), torch.randn(SHAPE)
    masks = torch.ones(2, 1, 24, 32)
    masks[1, :, :8] = 0
    with pytest.raises(cv.InputError, match="hide the same patches"):
        found(model, x, masks)
    masks[0, :, :8] = 0
    assert found(model, x, masks).grid == (2, 4)


# -- refused by name --------------------------------------------------------------------------------------------


def test_a_model_of_one_batch_size_is_refused_by_name():
    def four(x: Tensor) -> Tensor:
        assert len(x) == 4, "four, please"
        return x

    with pytest.raises(cv.UnsupportedModelError, match="refuses 1 of 4: four, please"):
        cv.LayerCDAM(vek(Embedded(four))).attribute(torch.randn(4, *SHAPE[1:]), target=1)


def test_the_gradient_of_pixels_that_a_model_detaches_is_refused_by_name():
    model = vek(Embedded(torch.Tensor.detach))
    assert cv.LayerCDAM(model).attribute(torch.randn(SHAPE), target=1).any()
    with pytest.raises(cv.errors.TraceError, match="a method that reads tokens, such as LayerCDAM"):
        cv.InputGradient(model, captum.attr.InputXGradient).attribute(torch.randn(SHAPE), target=1)


def test_pixels_of_frames_that_are_averaged_are_summed():
    model, frames = vek(Embedded(lambda x: x.mean(1))), torch.randn(2, 2, 3, 24, 32)
    found = cv.InputGradient(model, captum.attr.InputXGradient).attribute(frames, target=1)
    pixels = captum.attr.InputXGradient(model).attribute(frames.requires_grad_(), target=1).sum((1, 2))
    wanted = pixels.view(2, 3, 8, 4, 8).sum((2, 4)).unsqueeze(1).detach()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_picture_of_whole_numbers_is_refused_by_name():
    model = vek(Embedded(lambda x: x / 255))
    with pytest.raises(cv.UnsupportedModelError, match="floating point numbers"):
        cv.LayerCDAM(model).attribute(torch.randint(255, SHAPE), target=1)


class Overlapping(nn.Module):
    """Patches that overlap, in their order or sorted by what is in them."""

    def __init__(self, by_content: bool) -> None:
        super().__init__()
        self.convolution, self.by_content = nn.Conv2d(3, 24, 16, 8, padding=4), by_content

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.convolution(x).flatten(2).mT
        order = tokens[..., :1].argsort(1) if self.by_content else torch.arange(tokens.shape[1]).view(1, -1, 1)
        return tokens.gather(1, order.expand_as(tokens))


def overlapping(by_content: bool) -> nn.Module:
    model = timm_vit(**TIMM | {"depth": 1, "class_token": False, "global_pool": "avg"})
    model.pos_embed, model.patch_embed = None, Overlapping(by_content)
    return redrawn(model)


def test_of_overlapping_patches_an_order_that_depends_on_the_picture_is_refused():
    x = torch.randn(2, 3, 32, 32)
    assert found(overlapping(False), x).grid == (4, 4)
    with pytest.raises(cv.UnsupportedModelError, match="order that does not depend on the picture"):
        found(overlapping(True), x)


class TwoPictures(nn.Module):
    """Their tokens one behind the other; or the second one counts by its mean alone."""

    def __init__(self, joined: bool) -> None:
        super().__init__()
        self.joined = joined
        self.vit = redrawn(timm_vit(**TIMM | {"class_token": False, "global_pool": "avg"}))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        first, second = self.vit.patch_embed(x), self.vit.patch_embed(y)
        tokens = torch.cat([first, second], 1) if self.joined else first + second.mean(1, keepdim=True)
        for block in self.vit.blocks:
            tokens = block(tokens)
        return self.vit.head(self.vit.norm(tokens).mean(1))


def test_tokens_of_two_pictures_are_refused():
    x, y = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    assert found(TwoPictures(False).eval(), x, y).grid == (4, 4)
    with pytest.raises(cv.UnsupportedModelError, match=r"16 of one of shape .*, and 16 of another"):
        found(TwoPictures(True).eval(), x, y)


def test_a_layout_that_was_refused_is_refused_again_without_another_run():
    model, x = overlapping(True), torch.randn(2, 3, 32, 32)
    runs: list[int] = []
    model.patch_embed.register_forward_hook(lambda *_: runs.append(1))
    for _ in range(2):
        with pytest.raises(cv.UnsupportedModelError):
            found(model, x)
        runs.append(0)
    first, second = "".join(map(str, runs)).split("0")[:2]
    assert len(second) <= 1 < len(first)
