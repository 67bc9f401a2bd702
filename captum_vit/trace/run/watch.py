"""One watched pass: hooks and modes go on, the model runs, everything comes off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.description.refusals import runs_again, several_sequences
from captum_vit.description.two_towers import is_words_and_pictures
from captum_vit.errors import MODEL_ERRORS, CaptumVitError, InputError, LayerError, TraceError, UnsupportedModelError
from captum_vit.models.modules import modules_of
from captum_vit.models.output import scores_of
from captum_vit.models.positions import refuse_too_long
from captum_vit.models.transformer import Transformer
from captum_vit.options import shown
from captum_vit.sites.arranged import Visit
from captum_vit.sites.calls import ValueSite, Visits
from captum_vit.sites.mode import Mode
from captum_vit.sites.nests import first_tensor, swap
from captum_vit.sites.site import Place, Site, ThisThreadOnly, hooked, within
from captum_vit.tokens import TokenLayout
from captum_vit.trace.layout.layout import Layout
from captum_vit.trace.layout.remembered import layout_for
from captum_vit.trace.run.passes import Pass

PICTURES = "all that the processor gave for this text, so that the ids have as many places as its pictures fill."
OTHER_KERNELS = 'other kernels or another device; model.set_attn_implementation("sdpa") for Hugging Face.'
UNHIDDEN = "a model whose forward does not detach, or run under no_grad or inference_mode by itself."


class Watch:
    """A pass under watch.

    Args:
        call: what runs; blocks are watched where its transformer is known.
        thinned: tokens are taken out of this pass on purpose. In another one a model whose blocks do not keep their
            tokens (merged, dropped, added) is refused.
        place: where tokens are read, in a network whose blocks have tokens of several kinds; None: the first block.
    """

    def __init__(self, call: Pass, *, thinned: bool = False, place: Place | None = None) -> None:
        self.call, self.transformer, self.thinned, self.place = call, call.found, thinned, place
        self.embedded: tuple[nn.Module, Tensor] | None = None  # the last convolution, and what it made of one sample
        self.visits: list[tuple[Place, Visit]] = []
        self.behind: list[Mode] = []  # over what the model does behind the last block
        self._tap: tuple[Mode, int] | None = None  # over attention, and from which block on
        self._values: Mode | None = None  # numbers all torch calls, and so must see them first
        self._left: tuple[int, Tensor] | None = None  # the last block that was left, and what left it
        self._returned: Any = None  # what a block returned, where that is more than its tokens
        self._keep: Tensor | None = None
        self._layout: Layout | None = None
        first = call.inputs[0]
        self._words = first.shape[1] if first.dim() == 2 and not first.is_floating_point() else None
        self._n_entered = 0
        self._reached_blocks = self._in_inference_mode = False

    def at(self, site: Place, visit: Visit) -> None:
        """Visit a site during the run."""
        self.visits.append((site, visit))

    def over_attention(self, tap: Mode, start: int) -> None:
        """Let a mode see the attention of each block from one on, and what the model does behind the last one.

        It is on where they attend, and else off, since a mode costs time in every torch call. Where that is not known,
        and where calls are numbered, it is on in the whole pass.
        """
        self._tap = tap, start

    def _attending(self, numbered: bool) -> AbstractContextManager[Any]:
        if self._tap is None or self.transformer is None:
            return nullcontext()
        tap, start = self._tap
        modules = [block.attends for block in self.transformer.blocks[start:] if block.attends is not None]
        if numbered or len(modules) < len(self.transformer.blocks) - start:
            return tap
        self.behind.insert(0, tap)
        return within(tap, modules)

    def run(self, *modes: AbstractContextManager[Any]) -> Tensor:
        """One forward pass; the scores (B, K)."""
        with model_errors_as_ours(self.call.model, *self.call.inputs, *self.call.args), ExitStack() as stack:
            if self.transformer is not None:
                self._look_at_embedding(self.transformer, stack)
            all_visits = [*self._own_visits(), *self.visits]
            stack.enter_context(hooked([(place, visit) for place, visit in all_visits if isinstance(place, Site)]))
            names = () if self.transformer is None else self.transformer.calls
            values = Visits([(place, visit) for place, visit in all_visits if isinstance(place, ValueSite)], names)
            for mode in (*modes, self._attending(bool(values.of))):
                stack.enter_context(mode)
            stack.callback(self._leave_behind)
            if values.of:
                self._values = stack.enter_context(values)
            try:
                output = self.call.run()
                if values.by_number:
                    values.refuse_other_code()
                return scores_of(output)
            except MODEL_ERRORS as error:
                if self._in_inference_mode:
                    got = f"one that runs in inference mode: {error}"
                    raise TraceError("A forward that can be followed backwards.", got, UNHIDDEN) from error
                raise

    def described(self) -> Pass:
        """The pass, with what its blocks were seen to return, where that is more than tokens and no spec says it."""
        returned, transformer = self._returned, self.transformer
        if transformer is None or returned is None or isinstance(returned, Tensor) or transformer.returns is not None:
            return self.call
        tokens = first_tensor(returned)
        if tokens is None:
            return self.call
        return replace(self.call, found=transformer.returning(lambda x: swap(returned, tokens, x)))

    def layout(self, n_tokens: int) -> TokenLayout:
        """Where the tokens of this pass lie."""
        self._forget_mask_of_samples(n_tokens)
        if self._keep is not None and self._keep.shape[1] < n_tokens and self._keep.shape[1] != self._words:
            wanted, got = f"An attention mask with one number for each of {n_tokens} tokens.", tuple(self._keep.shape)
            raise InputError(wanted, f"shape {got}", "the mask that the tokenizer gave with these ids.")
        if self._words is not None:
            self._refuse_prompts(n_tokens)
        if self._layout is None:
            assert self.transformer is not None
            staged = self.transformer.refusal is not None
            place = self.place if staged and self.place is not None else self.transformer.blocks[0].entrance
            self._layout = self._layout_of(self.transformer, place)
        return self._layout.of(n_tokens, self._keep)

    def _forget_mask_of_samples(self, n_tokens: int) -> None:
        """Of a sound, whose frames are fewer; one that hides some is refused."""
        of_sound = self._words is None and self.call.inputs[0].dim() == 2
        if self._keep is None or not of_sound or self._keep.shape[1] == n_tokens:
            return
        if not self._keep.all():
            got = f"a mask of {tuple(self._keep.shape)} for {n_tokens} frames"
            raise InputError("Sounds without a mask that hides samples.", got, "one sound at a time, as long as it is.")
        self._keep = None

    def time_axis(self) -> int | None:
        """The dimension of a sample that is time, where tokens are frames of a sound; None where that is not found."""
        try:
            along = self.layout(self._n_entered).along
        except UnsupportedModelError:
            return None
        return along[0] if along is not None and len(along) == 1 else None

    def layout_of_block(self, layer: int, n_tokens: int) -> TokenLayout:
        """Where the tokens that enter a block lie."""
        assert self.transformer is not None
        if self.transformer.refusal is None:
            return self.layout(n_tokens)
        blocks = self.transformer.blocks
        return self._layout_of(self.transformer, blocks[blocks[layer].tokens_of].entrance).of(n_tokens, self._keep)

    def _layout_of(self, transformer: Transformer, place: Place) -> Layout:
        real = None if self._keep is None else self._keep[0]
        staged = transformer.refusal is not None
        blocks = () if staged else transformer.modules()
        call = self.call
        return layout_for(call.model, place, blocks, call.inputs, call.args, real, transformer.additions)

    def layout_at(
        self,
        tokens: Tensor,  # shape: (B, N, D)
    ) -> TokenLayout:
        """Where the tokens of a layer lie; refused if its output is no sequence of tokens."""
        if tokens.dim() != 3:
            raise LayerError(
                "A layer whose output is a sequence of tokens (B, N, D).",
                f"shape {tuple(tokens.shape)}",
                'a block or a norm, or output="channels".',
            )
        return self.layout(tokens.shape[1])

    def under_grid(
        self,
        picture: Tensor,  # shape: (..., H, W)
    ) -> Tensor:
        """The part of a picture that the grid of patches covers, with zeros where the model pads it."""
        layout = self.layout(self._n_entered)
        if layout.covered is None or len(layout.covered) != 4 or picture.shape[-2:] != layout.image_size:
            return picture
        (top, left, bottom, right), (height, width) = layout.covered, picture.shape[-2:]
        return F.pad(picture, (-left, right - width, -top, bottom - height))

    def _own_visits(self) -> list[tuple[Place, Visit]]:
        """Whether the blocks run once, and keep their tokens."""
        if self.transformer is None:
            return []
        blocks = self.transformer.blocks
        visits: list[tuple[Place, Visit]] = [(blocks[0].entrance, self._see_blocks)]
        for layer, block in enumerate(blocks):
            if block.follows:
                visits.append((block.entrance, partial(self._see_entered, layer)))
            visits.append((block.out, partial(self._see_left, layer)))
        return visits

    def _look_at_embedding(self, transformer: Transformer, stack: ExitStack) -> None:
        blocks = transformer.modules()
        around = modules_of(self.call.model, without=blocks)
        inside = around if transformer.tower is self.call.model else modules_of(transformer.tower, without=blocks)
        for module in inside:
            if isinstance(module, nn.Conv2d):
                stack.callback(module.register_forward_hook(ThisThreadOnly(self._see_convolution)).remove)
        for module in around:
            if hasattr(type(module), "real_words"):  # a target module that knows where its texts end
                stack.callback(module.register_forward_pre_hook(ThisThreadOnly(self._see_words)).remove)
        hook = transformer.tower.register_forward_pre_hook(ThisThreadOnly(self._see_arguments), with_kwargs=True)
        stack.callback(hook.remove)
        for block in blocks[:1]:
            stack.callback(block.register_forward_hook(ThisThreadOnly(self._see_returned)).remove)

    def _refuse_prompts(self, n_tokens: int) -> None:
        """Learned tokens among the words, or learned keys beside them, belong to no word."""
        masked = n_tokens if self._keep is None else self._keep.shape[1]
        words = n_tokens if self._words is None else self._words
        if not n_tokens == masked == words:
            pooled = n_tokens < words
            raise TraceError(
                "One token for each word.",
                f"{n_tokens if pooled else max(n_tokens, masked)} tokens for {words} words",
                "an earlier layer, such as layer=0, in front of what pools the tokens."
                if pooled
                else "a model without learned prompts or prefixes; adapters such as LoRA add no tokens.",
            )

    def _see_convolution(self, module: nn.Conv2d, args: Any, output: Tensor) -> None:
        if not self._reached_blocks:
            self.embedded = module, output[:1].detach().clone()

    def _see_blocks(self, tokens: Tensor) -> None:
        if self._reached_blocks:
            raise runs_again(self.call.model)
        if len(tokens) != len(self.call):
            raise several_sequences(len(tokens), len(self.call))
        self._n_entered = 0 if tokens.dim() != 3 else tokens.shape[1]
        self._reached_blocks = True
        self._in_inference_mode = torch.is_inference_mode_enabled()

    def _see_returned(self, module: nn.Module, args: Any, output: Any) -> None:
        self._returned = output

    def _see_entered(self, layer: int, tokens: Tensor) -> None:
        before, left = self._left or (-1, None)
        same = left is tokens or (left is not None and left.data_ptr() == tokens.data_ptr())  # backward hooks wrap it
        if before != layer - 1 or not same:
            raise _other_blocks(self.call.model, f"something else in front of block {layer}")

    def _see_left(self, layer: int, tokens: Tensor) -> None:
        before, _ = self._left or (-1, None)
        if layer != before + 1:
            raise _other_blocks(self.call.model, f"block {layer} at another place")
        self._left = layer, tokens
        assert self.transformer is not None
        if layer == len(self.transformer.blocks) - 1:
            self._enter_behind()
        staged = self.transformer.refusal is not None
        if self.thinned or staged or tokens.dim() != 3 or self._n_entered in (0, tokens.shape[1]):
            return
        raise UnsupportedModelError(
            "Blocks that keep one token for each place from the first to the last.",
            f"{self._n_entered} tokens that enter the first block, and {tokens.shape[1]} further on",
            "the model without merging or dropping, or before queries join its tokens.",
        )

    def _enter_behind(self) -> None:
        """Below the mode that numbers the calls, if there is one; while it runs a visit, torch has taken it off."""
        numbering = self._values
        on_top = numbering is not None and torch.overrides._get_current_function_mode() is numbering
        if numbering is not None and on_top:
            numbering.__exit__()
        for mode in [*self.behind, *([numbering] if numbering is not None and on_top else [])]:
            enter: Callable[[], object] = mode.__enter__
            enter()

    def _leave_behind(self) -> None:
        for mode in reversed(self.behind):
            mode.__exit__()

    def _see_arguments(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """The mask that the tower is given, or else the model: some make masks of another kind of it in between."""
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        if any(x.dim() == 4 and x.is_floating_point() for x in tensors):  # pictures, which have no words
            return
        mask = _bound(module, args, kwargs).get("attention_mask")
        if mask is not None and not _of_words(mask):
            mask = _bound(self.call.model, (*self.call.inputs, *self.call.args), {}).get("attention_mask")
        if _of_words(mask):
            self._keep = mask.bool()

    def _see_words(self, module: Any, args: Any) -> None:
        self._keep = module.real_words(*args)


def _of_words(mask: Any) -> TypeGuard[Tensor]:
    """Whether a mask has one number for each word."""
    return isinstance(mask, Tensor) and mask.dim() == 2


def _other_blocks(model: nn.Module, got: str) -> TraceError:
    return TraceError(
        "A model that runs the same blocks for all inputs of one shape.",
        f"{type(model).__name__} with {got}, unlike in the pass that found its blocks",
        "copy.deepcopy(model), whose blocks are found anew, for inputs that take another path.",
    )


@contextmanager
def model_errors_as_ours(model: nn.Module, *inputs: Any) -> Iterator[None]:
    """A pass that fails, and fails by itself too when nobody watches, has inputs that the model refuses.

    Raises:
        InputError: in the place of the model's own error.
        UnsupportedModelError: it runs, but has no derivative on this device.
    """
    try:
        yield
    except (CaptumVitError, torch.OutOfMemoryError):
        raise
    except MODEL_ERRORS as first:
        try:
            with torch.no_grad():
                model(*inputs)
        except MODEL_ERRORS as error:
            refuse_too_long(getattr(model, "tower", model), inputs[0] if inputs else None)
            raise InputError(
                f"Inputs that {type(model).__name__} accepts.",
                f"{', '.join(map(_said, inputs))}, refused with: {error}",
                PICTURES
                if is_words_and_pictures(inputs[:2])
                else "the size, channels and argument order of the model's own forward.",
            ) from error
        if isinstance(first, NotImplementedError):  # it runs, but not with a graph
            got = f"{type(model).__name__}: {first}"
            raise UnsupportedModelError("Kernels that gradients can pass.", got, OTHER_KERNELS) from first
        refuse_no_way_back(first)
        raise


def refuse_no_way_back(error: Exception) -> None:
    """Of torch's errors those about a tensor that was written over though a gradient needs it, and about a kernel
    without a derivative; torch has no classes for them."""
    if not isinstance(error, RuntimeError):
        return
    if any(some in str(error) for some in ("autograd formula", "derivative for")):
        raise UnsupportedModelError("Kernels that gradients can pass.", str(error), OTHER_KERNELS) from error
    if any(some in str(error) for some in ("in-place operation", "inplace operation", "modified inplace")):
        raise UnsupportedModelError(
            "A model that does not change its tokens in place.",
            f"one that writes over tensors: {error}",
            "x = x + f(x) in the place of x += f(x), or a method without gradients, such as AttentionRollout.",
        ) from error


def _said(given: Any) -> str:
    return f"{tuple(given.shape)} of {given.dtype}" if isinstance(given, Tensor) else shown(given)


def _bound(module: nn.Module, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name."""
    return signature(module.forward).bind_partial(*args, **kwargs).arguments
