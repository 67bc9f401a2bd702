"""What every token attribution shares: ``attribute`` once; a method writes ``relevance``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

from captum._utils.common import _format_additional_forward_args
from captum._utils.typing import TargetType
from captum.attr import LayerAttribution
from captum.attr._utils.attribution import GradientAttribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_vit.description.two_towers import is_words_and_pictures
from captum_vit.errors import LayerError, MethodError, OptionError, ZeroMapWarning
from captum_vit.inputs.padding import warn_if_padded
from captum_vit.models.library import n_outputs
from captum_vit.models.modules import unwrapped_module_of
from captum_vit.models.transformer import Transformer
from captum_vit.options import boolean, shown
from captum_vit.tokens import TokenLayout, check_output
from captum_vit.trace.record.decomposition import Decomposition, SplitInputs, split_inputs
from captum_vit.trace.record.products import over_channels
from captum_vit.trace.record.record import Record, Want, record
from captum_vit.trace.record.rollout import gradient_x_input
from captum_vit.trace.replay.reading import Reading
from captum_vit.trace.run.describe import described
from captum_vit.trace.run.finite import refuse_not_finite, samples
from captum_vit.trace.run.layers import layer_index
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.score import checked_target, select
from captum_vit.trace.run.state import checked_args, checked_inputs, undisturbed, widened

MAPS = ("grid", "tokens", "pixels")
PRODUCTS = (*MAPS, "channels")


class TokenAttribution(LayerAttribution, GradientAttribution):
    r"""Relevance of every token of a transformer, as a Captum ``LayerAttribution``.

    An author of a method lists what must be recorded (``want``) and computes from that record a relevance
    for every token (``relevance``). Methods with one map for each layer also offer ``layer_maps``;
    ``PLUS`` and ``SkipPLUS`` then run over them. A method that reads ``self.layer`` sets ``reads_layer = True``.

    The map of a sample never depends on the others of its batch. A sample whose score has no gradient, or whose
    head reads no row (a dead ReLU, a head that is all zeros), has a map of zeros, and a :class:`ZeroMapWarning`
    names it; so it is in methods that follow the gradient at the sample, or the head's row. Those that ask the
    model at other points (ablation, prediction maps, integrals and means over noise) have the map that they find
    there.

    Args:
        forward_func: the model as it was loaded, or a target module around it.
        layer: a Module or dotted name (that module's output), an int (the default reading point of that
            block), or None (the last block); refused by a method that reads none.
        device_ids: accepted as in Captum.
        output: ``"grid"`` gives (B, 1, h, w) for images, so ``LayerAttribution.interpolate`` works, and
            (B, T) for text; ``"tokens"`` (B, N) with prefix tokens; ``"pixels"`` (B, 1, H, W), bilinear,
            zero where no patch reads; ``"channels"`` (B, N, D), unreduced, where the method is a product over channels.
    """

    outputs: tuple[str, ...] = MAPS
    reads_layer: bool = False

    def __init__(
        self,
        forward_func: nn.Module,
        layer: nn.Module | str | int | None = None,
        device_ids: list[int] | None = None,
        *,
        output: str = "grid",
    ) -> None:
        if layer is not None and not self.reads_layer:
            name = type(self).__name__
            hint = f"{name}(model); or `reads_layer = True` in the class, if it looks at `self.layer`."
            raise LayerError(f"No layer, since {name} reads none.", shown(layer), hint)
        LayerAttribution.__init__(self, forward_func, layer, device_ids)
        GradientAttribution.__init__(self, forward_func)
        self.output = check_output(output, self.outputs)

    # -- what a method supplies ------------------------------------------------------------------

    def want(self, transformer: Transformer) -> Want:
        """What the pass must be watched for."""
        raise unwritten(self, "want(self, transformer)", 'return captum_vit.Want(seen=["probs"], row="outputs")')

    def relevance(self, found: Record) -> Tensor:  # shape: (B, N), or (B, N, D) for products over channels
        """The map, from what was seen."""
        raise unwritten(self, "relevance(self, found)", "return found.attended(found.layers[-1]).mean(1)")

    def start(self, transformer: Transformer) -> int:
        """The first block that is watched."""
        return 0

    # -- the same for all ------------------------------------------------------------------------

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""Explain a batch.

        Args:
            inputs: images (B, 3, H, W) or token ids (B, T); a tuple in gives a tuple out.
            target: the output to explain: an int, a tuple for outputs of more than two dimensions, or a
                list or tensor with one target for each sample. Methods that know no target need none; one that is
                given must index the output all the same.
            additional_forward_args: further positional arguments of the model, such as an attention mask.

        Returns:
            Detached maps on the model's device, in the form that ``output`` names; float32, or float64
            for a float64 model.

        Raises:
            InputError: the batch is empty, not finite, refused by the model, or so large that the model overflows.
            TargetError: the target is missing, or does not pick one number of the output for each sample.
            ModelStateError: the model is in training mode.
            UnsupportedModelError: no transformer was found in the model.
        """
        with undisturbed(self.model):
            found = self._record(inputs, target, additional_forward_args)
            return self._finish(self.relevance(found), found.layout, inputs)

    def attribute_future(self) -> None:
        """Not offered: explanations are computed at once."""
        raise NotImplementedError(f"{type(self).__name__} has no futures; call attribute.")

    @classmethod
    def get_name(cls) -> str:
        """The class name with a space before each new word; abbreviations stay whole."""
        return re.sub(r"(?<=[a-z])(?=[A-Z]{2}|[A-Z][a-z])|(?<=[A-Z]{2})(?=[A-Z][a-z])", " ", cls.__name__)

    @property
    def model(self) -> nn.Module:
        """The module behind ``forward_func``."""
        return unwrapped_module_of(self.forward_func)

    def _record(
        self,
        inputs: Any,
        target: TargetType,
        args: Any,
        want: Callable[[Transformer], Want] | None = None,
        start: int | None = None,
    ) -> Record:
        call = described(self._call(inputs, target, args))
        transformer = call.transformer
        start = self.start(transformer) if start is None else start
        found = record(call, target, (want or self.want)(transformer), start)
        if target is not None:
            select(found.output, target)  # refuses a wrong one in methods that know no target too
        return found

    def _call(self, inputs: Any, target: Any, args: Any) -> Pass:
        """What the model is given, refused before it runs, as is a target that can index nothing."""
        model = self.model
        call = Pass(model, checked_inputs(inputs, model), forward_args(args))
        checked_target(target, len(call), n_outputs(model))
        return call

    def _reading(
        self,
        inputs: Any,
        target: Any,
        args: Any,
        at_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        rule: str = "grad",
        channels: bool | None = None,
    ) -> Reading:
        channels = self.output == "channels" if channels is None else channels
        boolean("attribute_to_layer_input", at_input)
        call = self._call(inputs, target, args)
        return Reading(call, self.layer, at_input, channels, grad_kwargs, rule)

    def _finish(self, relevance: Tensor, layout: TokenLayout | None, inputs: Any) -> Tensor | tuple[Tensor, ...]:
        """Lay tokens out, widen half precision, and mind Captum's tuples."""
        laid = self._laid_out(relevance, layout)
        patches = laid if layout is None or self.output in ("grid", "pixels") else layout.patches(laid)
        warn_if_zero(patches, type(self).__name__)
        if layout is not None and layout.keep is None:
            warn_if_padded(self.model, inputs, laid, stacklevel=4)
        return (laid,) if isinstance(inputs, tuple) else laid

    def _laid_out(
        self,
        relevance: Tensor,  # shape: (B, N) or (B, N, D)
        layout: TokenLayout | None,  # None: products of any layer, which stay as they are
    ) -> Tensor:
        if layout is not None:
            self._check_shape(relevance, layout.n_tokens)
        if layout is None:
            laid = relevance
        elif self.output != "channels":
            by_token = over_channels(relevance, layout.standing) if relevance.dim() == 3 else relevance
            laid = layout.lay_out(by_token, self.output)
        elif relevance.dim() == 3:
            laid = layout.silence_padding(relevance)
        else:
            raise OptionError("A method that is a product over channels.", type(self).__name__, 'output="tokens"')
        refuse_not_finite(laid, "map")
        return widened(laid.detach())

    def _check_shape(self, relevance: Tensor, n_tokens: int) -> None:
        """One relevance for each token, or its products over channels."""
        if relevance.dim() not in (2, 3) or relevance.shape[1] != n_tokens:
            wanted = f"`relevance` of shape (B, {n_tokens}), or (B, {n_tokens}, D) for products over channels."
            got = f"{type(self).__name__}, with shape {tuple(relevance.shape)}"
            raise MethodError(wanted, got, "found.attended(layer).mean(1), the mean over heads of the rows read.")

    def _finish_classes(
        self,
        scores: Tensor,  # shape: (B, N, C)
        layout: TokenLayout,
        inputs: Any,
    ) -> Tensor:  # shape: (B, C, h, w); (B, N, C) as tokens and for text
        """Lay out one map for each class."""
        scores = layout.silence_padding(scores)
        refuse_not_finite(scores, "maps")
        warn_if_zero(layout.patches(scores).any(1).all(1), type(self).__name__, "every relevance for some class")
        scores = widened(scores)
        if layout.keep is None:
            warn_if_padded(self.model, inputs, scores, stacklevel=3)
        if self.output == "tokens" or layout.grid is None:
            return scores
        return layout.to_grid(scores) if self.output == "grid" else layout.to_pixels(scores)


class InputProducts(TokenAttribution):
    """Tokens times the gradient under a rule, at the inputs of blocks; the first one's products are the map.

    PLUS sums those of all blocks. An author gives the rule.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: the block whose input tokens are explained; the first by default.
        checkpoint: blocks save nothing for the backward pass, and run once more in it: two forward passes, and the
            memory of one block. The map is the same.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.
    """

    outputs: tuple[str, ...] = PRODUCTS
    reads_layer = True
    rule: str

    def __init__(
        self, forward_func: nn.Module, start_layer: int = 0, *, checkpoint: bool = False, output: str = "grid"
    ) -> None:
        super().__init__(forward_func, start_layer, output=output)
        self.checkpoint = boolean("checkpoint", checkpoint)

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: the gradient is multiplied by the tokens."""
        return True

    def want(self, transformer: Transformer) -> Want:
        return Want(grads=["tokens"], rule=self.rule, recompute=self.checkpoint)

    def start(self, transformer: Transformer) -> int:
        return layer_index(transformer, self.layer)

    def relevance(self, found: Record) -> Tensor:
        return gradient_x_input(found)[0]

    def layer_maps(self, found: Record) -> list[Tensor]:
        return gradient_x_input(found)


class EntranceProducts(InputProducts):
    """Tokens times the gradient under a rule, where they enter: also the words and the patches of one model.

    A vision-language model is given ids and pixels, and has maps for both, by one backward pass: words at the vectors
    of the text, pictures at the patches that enter their tower.

    Args:
        forward_func: the model, or a target module around it.
        start_layer: the block whose input tokens are explained; the first by default, and of ids and pixels.
        checkpoint: blocks save nothing for the backward pass, and run once more in it: two forward passes, and the
            memory of one block. The map is the same.
        output: see :class:`TokenAttribution`; ``"channels"`` is offered.
    """

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""Explain a batch, as in :class:`TokenAttribution`; or ids and pixels, which a vision-language model reads.

        Of ``(ids, pixels)`` the maps are (words, patches). words are (B, N), zero where a picture stands. patches are
        in the shape of the pixels, with one channel: (n, 3, H, W) becomes (n, 1, h, w), or (n, 1, H, W) for
        ``output="pixels"``; flat patches (P, K) become (P, 1). ``output="tokens"`` gives all tokens that enter the
        tower's first block, CLS and registers included, and ``"channels"`` both unreduced.
        """
        with undisturbed(self.model):
            if not is_words_and_pictures(inputs):
                one = self._record(inputs, target, additional_forward_args)
                return self._finish(self.relevance(one), one.layout, inputs)
            found = self._split(inputs, target, additional_forward_args, laid=self.output in ("grid", "pixels"))
            words, tower = (found.split.products(leaf)[0] for leaf in (0, 1))
            if self.output != "channels":
                words, tower = words.sum(-1), tower.sum(-1)
            laid = tower if found.pictures is None else found.pictures.lay_out(tower.flatten(), self.output)
            for relevance in (words, laid):
                refuse_not_finite(relevance, "map")
            warn_if_zero(words, type(self).__name__)
            warn_if_padded(self.model, inputs, words, stacklevel=3)
            return widened(words), widened(laid)

    def decompose(
        self, inputs: Tensor | tuple[Tensor, ...], target: TargetType = None, additional_forward_args: Any = None
    ) -> Decomposition:
        r"""The score of a language model as a sum: words, patches of pictures, constants, and what is left.

        Costs the forward pass, and a backward pass for each sample.

        Args:
            inputs: token ids (B, N), or a tuple of ids and pixels.
            target: as in :meth:`attribute`.
            additional_forward_args: as in :meth:`attribute`.

        Raises:
            InputError: no ids, or the model refuses the inputs.
            UnsupportedModelError: the rule does not cover all that the model does, or its blocks were not found.
        """
        with undisturbed(self.model):
            return self._split(inputs, target, additional_forward_args, laid=True, each=True).decomposed()

    def _split(self, inputs: Any, target: TargetType, args: Any, laid: bool, each: bool = False) -> SplitInputs:
        if self.layer != 0:
            raise LayerError(
                "No layer, since words and pictures enter first blocks.", shown(self.layer), "start_layer=0."
            )
        call = self._call(inputs, target, args)
        return split_inputs(call, target, self.rule, laid=laid, each=each, checkpoint=self.checkpoint)


def forward_args(args: Any) -> tuple[Any, ...]:
    """Captum's ``additional_forward_args`` as a tuple."""
    return checked_args(_format_additional_forward_args(args) or ())


def unwritten(method: TokenAttribution, signature: str, example: str) -> MethodError:
    """The error of a method of one's own that lacks a part."""
    got = f"{type(method).__name__}, which has none"
    return MethodError(f"A method with `{signature}`.", got, f"def {signature}: {example}")


def warn_if_zero(
    relevance: Tensor,  # shape: (B, ...)
    name: str,
    what: str = "every relevance",
) -> None:
    """Warn if the map of a sample is all zeros."""
    zero = ~relevance.reshape(len(relevance), -1).any(1)
    if zero.any():
        warnings.warn(
            f"{name}: {what} of {samples(zero)} is exactly zero. A score without a gradient (a dead ReLU, a "
            "head that is all zeros) does that, a target that does not depend on these tokens, and a layer where "
            "gradient and tokens cancel, as before a norm that is all that patches pass.",
            ZeroMapWarning,
            stacklevel=5,
        )
