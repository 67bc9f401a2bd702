"""One call for a person at a prompt: a model, a picture or a text, a class, a map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from os import PathLike
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_vit.attr.base import forward_args
from captum_vit.errors import InputError, OptionError, TargetError
from captum_vit.explain_answer import explain_answer
from captum_vit.inputs.class_names import class_names, target_index
from captum_vit.inputs.images import display_image, image_tensor
from captum_vit.inputs.prompts import generates
from captum_vit.inputs.rgb import open_picture
from captum_vit.inputs.signals import Signal, read_signal
from captum_vit.inputs.texts import read_text
from captum_vit.models.library import is_text_model
from captum_vit.models.modules import module_of
from captum_vit.models.towers import refuse_both
from captum_vit.named_method import method_named
from captum_vit.options import kind_of, known, shown
from captum_vit.trace.run.describe import described
from captum_vit.trace.run.passes import Pass
from captum_vit.trace.run.repeated import same_again
from captum_vit.trace.run.score import checked_target, select, transform
from captum_vit.trace.run.state import checked_inputs, undisturbed
from captum_vit.trace.run.watch import Watch
from captum_vit.viz import AnswerExplanation, Explanation, film, slices, spectrogram, wave
from captum_vit.viz.explanation import Drawing
from captum_vit.viz.marks import mark_of
from captum_vit.viz.pieces import pieces

Batch = TypeVar("Batch", Tensor, list[Any])
Make = Callable[[nn.Module], tuple[Attribution, str]]

__all__ = ["Explanation", "explain", "open_picture"]


def explain(
    model: nn.Module,
    image_or_text: Any,
    target: Any = None,
    method: str | Callable[[nn.Module], Attribution] | Attribution | None = None,
    *,
    answer: Any = None,
    foil: str | int | None = None,
    processor: Any = None,
    tokenizer: Any = None,
    tokens: Sequence[str] | None = None,
    special: bool = True,
    words: bool = False,
    **options: Any,
) -> Explanation | AnswerExplanation:
    """Explain one picture, one text or pair of texts, one video, sound or volume, or a word that a model generated.

    Args:
        model: as it was loaded, in eval mode; or a target module around it.
        image_or_text: a path, PIL image or uint8 array or tensor, which is preprocessed as the model's own
            configuration says (transparent pixels are composed on white, 16-bit grey is read by its upper byte, of
            an animation the first frame); a **float tensor, which is taken as already preprocessed**; for text
            models a string, a **tuple** of two strings (a pair), or token ids (T,) or (1, T). A list is a batch, of
            one. A video, a sound or a volume is a float tensor that is preprocessed, (1, T, C, H, W) or
            (1, C, D, H, W), (1, S) samples or (1, T, F) mel bands; with a ``processor``, a list of frames, uint8
            frames (T, H, W, 3), or the samples of a sound.
        target: the number or name of an output; a list of them gives a map for each; a tuple for outputs of
            more than two dimensions, as in Captum: ``(position, "PER")`` for a head that scores every token; None
            explains what the model predicts.
        method: a name in ``captum_vit.METHODS``, with options if need be: ``"SmoothGrad(stdevs=0.15)"``; a class or
            another function of the model; or an instance for this very model. None is LayerCDAM, and DecompX for what
            a language model generated.
        answer: of a language model, what it generated: a text, ids, or what ``generate`` returned; None lets it
            generate up to 20 tokens, each the likeliest one.
        foil: a word, or a token's id, that the target is compared with: "two" rather than "nine".
        processor: an image processor or transform, in place of the model's own; a video processor or a feature
            extractor for a video or a sound, which is called with the rate of samples that it has itself.
        tokenizer: in place of the one stored beside the model.
        tokens: the texts of token ids, where ids are given.
        special: show the tokens that frame a text ([CLS], [SEP], ...); ``.map`` holds them in any case.
        words: show whole words, with the sum of their pieces' relevance; ``.map`` holds the pieces in any case.
        options: of a method by name those of its constructor and of its ``attribute``, ``rule="libra"`` or
            ``n_samples=20`` for instance; of others those of ``attribute``.

    For a **language model** ``image_or_text`` is the prompt: a text, a chat as a list of messages, ids, what a
    processor gave, or ``(picture, "What is this?")`` with one picture or a list of them. ``target`` is then a word of
    the answer, its place in it, or a pair (start, stop); None is the first token. A target of several tokens is
    explained by the sum of their logits.

    Returns:
        an :class:`Explanation`, or for a language model an :class:`~captum_vit.viz.AnswerExplanation`; notebooks show
        it, ``.map`` is the tensor, ``.save(path)`` writes it.

    Raises:
        InputError: a picture or a text that cannot be read, or more than one; a text with more tokens than the
            model has positions.
        OptionError: an unknown method, an option that it does not take, or an instance for another model.
        TargetError: a class that the model does not have, or a word that was not generated.

    Warns:
        UnrepeatableWarning: the model gives other scores for the same input in the pass that is explained.

    Example:
        >>> explain(model, "cat.jpg", target=["tabby", "dog"]).save("cat.png")  # doctest: +SKIP
        >>> explain(bert, "a good film", "positive", words=True).save("film.html")  # doctest: +SKIP
        >>> explain(nli, ("It rains.", "It is wet."), "entailment", special=False)  # doctest: +SKIP
    """
    if generates(model):
        if tokens is not None:
            wanted = "A tokenizer, which names the tokens of a prompt and of its answer."
            raise OptionError(wanted, f"tokens={shown(tokens)}", "tokenizer=AutoTokenizer.from_pretrained(...).")
        make, options = _maker("DecompX" if method is None else method, options)
        return explain_answer(
            model,
            image_or_text,
            target,
            make,
            answer=answer,
            foil=foil,
            processor=processor,
            tokenizer=tokenizer,
            words=words,
            special=special,
            options=options,
        )
    for name, only in (("answer", answer), ("foil", foil)):
        if only is not None:
            hint = f"no {name}; target={only!r}, where the model has such a class."
            raise OptionError(f"`{name}` for a model that generates text.", type(model).__name__, hint)
    refuse_both(module_of(model))  # before anything is read
    args = forward_args(options.pop("additional_forward_args", None))
    make, options = _maker("LayerCDAM" if method is None else method, options)
    attribution, name = make(model)
    _refuse_unknown(attribution, options)
    given = _read(model, image_or_text, processor, tokenizer, tokens)
    args = args or given.args
    with undisturbed(model):
        inputs = checked_inputs(given.inputs, model)
        watch = Watch(described(Pass(model, inputs, args)))
        output = watch.run().detach()
        if given.signal is not None and given.signal.kind == "spectrogram" and watch.time_axis() == 1:
            given = given._replace(signal=given.signal.with_bands_first())
        image = None if given.image is None else watch.under_grid(given.image)
        mark = None if image is not given.image else mark_of(module_of(model), (*inputs, *args))
    targets = _targets(model, target, output)
    scores = transform(output, "auto", model)
    values = [select(scores, one).item() for one in targets]  # refuses what is out of range before the work
    if args:
        options["additional_forward_args"] = args
    with same_again(model, given.inputs, output):
        maps = [_plain(attribution.attribute(given.inputs, target=one, **options), given) for one in targets]
    return Explanation(
        maps=torch.stack(maps),
        targets=targets,
        labels=[_label(model, one, output, given.tokens) for one in targets],
        scores=values,
        method=name,
        image=image,
        signal=None if given.signal is None else given.signal.seen,
        drawing=None if given.signal is None else _drawing(given.signal),
        mark=mark,
        tokens=given.tokens,
        segments=given.segments,
        word_ids=given.word_ids,
        special=special,
        words=words,
        many=isinstance(target, list),
        probabilities=scores is not output,
    )


def _maker(method: Any, options: dict[str, Any]) -> tuple[Make, dict[str, Any]]:
    """What makes the method for a model, and its name; and those of the options that ``attribute`` is given."""
    if not isinstance(method, str):
        return partial(_attribution, method), options
    found = method_named(method, options)
    return lambda model: (found.make(model), method), found.options


def _attribution(method: Any, model: nn.Module) -> tuple[Attribution, str]:
    """The method for this model, and its name."""
    if isinstance(method, Attribution):
        if getattr(method, "forward_func", model) is not model:
            raise OptionError(
                "An instance for the model that is explained.",
                f"{type(method).__name__} for another one",
                f"method={type(method).__name__}, or that model.",
            )
        return method, type(method).__name__
    if callable(method) and not isinstance(method, nn.Module):
        attribution = method(model)
        if isinstance(attribution, Attribution):
            return attribution, method.__name__ if isinstance(method, type) else type(attribution).__name__
    raise OptionError("A name in captum_vit.METHODS, a class or an instance.", shown(method), 'method="LayerCDAM".')


def _refuse_unknown(attribution: Attribution, options: dict[str, Any]) -> None:
    """Options that the method's ``attribute`` does not take."""
    taken = [name for name in signature(attribution.attribute).parameters if name not in ("inputs", "target")]
    known(f"{type(attribution).__name__}.attribute", options, taken)


class _Given(NamedTuple):
    """Inputs and further arguments for the model, with the picture (3, H, W) or the tokens to show."""

    inputs: Tensor
    image: Tensor | None = None
    tokens: Sequence[str] | None = None
    segments: Sequence[int] | None = None
    word_ids: Sequence[int | None] | None = None
    args: tuple[Any, ...] = ()
    signal: Signal | None = None


def _read(model: nn.Module, given: Any, processor: Any, tokenizer: Any, tokens: Sequence[str] | None) -> _Given:
    reads_texts = tokenizer is not None or is_text_model(model)
    if isinstance(given, str | tuple | list) and reads_texts:
        words = read_text(model, given, tokenizer)
        return _Given(words.ids, None, words.tokens, words.segments, words.word_ids, words.args)
    if not reads_texts and (signal := read_signal(model, given, processor)) is not None:
        return _Given(signal.inputs, signal=signal)
    if isinstance(given, list):
        given = _one(given)[0]
    if isinstance(given, str | PathLike):
        given = open_picture(given)
    if isinstance(given, Tensor) and given.dtype in (torch.int32, torch.int64) and given.dim() <= 2:
        ids = _one(given if given.dim() == 2 else given[None]).to(next(model.parameters()).device)
        if tokens is not None and len(tokens) != ids.shape[1]:
            wanted = f"A token for each of {ids.shape[1]} ids."
            raise InputError(wanted, f"{len(tokens)} tokens", "tokenizer.convert_ids_to_tokens(ids).")
        return _Given(ids, None, tokens or [str(number) for number in ids[0].tolist()])
    if reads_texts:
        hint = 'tokenizer(text, return_tensors="pt")["input_ids"], the ids alone.'
        raise InputError("A string, a tuple of two, or token ids as a tensor (1, T).", kind_of(given), hint)
    inputs = _one(image_tensor(model, given, processor))
    return _Given(inputs, display_image(model, inputs, processor)[0])


def _one(inputs: Batch) -> Batch:
    if len(inputs) != 1:
        raise InputError(
            "One picture or one text.",
            f"a batch of {len(inputs)}",
            "one at a time, or captum_vit.LayerCDAM(model).attribute(batch, target) for a tensor.",
        )
    return inputs


def _targets(model: nn.Module, target: Any, output: Tensor) -> list[Any]:
    """Targets as Captum takes them; names become numbers."""
    if target is None:
        if output.dim() > 2:
            raise TargetError(
                "A tuple as target, since the model gives scores in more than one dimension.",
                f"None, for an output of shape {tuple(output.shape)}",
                "target=(position, class).",
            )
        return [int(output[0].argmax())] if output.dim() == 2 else [None]
    targets = target.tolist() if isinstance(target, Tensor | np.ndarray | np.generic) else target
    targets = targets if isinstance(targets, list) else [targets]
    if not targets:
        raise TargetError("At least one target.", "an empty list", "target=None for what the model predicts.")
    found = [_numbered(model, one, _width(output)) for one in targets]
    for one in found:
        checked_target(one, len(output), output.shape[1] if output.dim() == 2 else None)
    return found


def _width(output: Tensor) -> int:
    return output.shape[-1] if output.dim() > 1 else 1


def _numbered(model: nn.Module, target: Any, n: int) -> Any:
    """The target with numbers for names: "PER", (3, "PER")."""
    if isinstance(target, tuple) and target:
        return (*target[:-1], _numbered(model, target[-1], n))
    return target_index(model, target, n) if isinstance(target, str) else target


def _label(model: nn.Module, target: Any, output: Tensor, tokens: Sequence[str] | None) -> str:
    names = class_names(model, _width(output)) or {}
    if target is None or (output[0].numel() == 1 and not names):
        return "output"
    number = target[-1] if isinstance(target, tuple) else target
    name = names.get(number, f"class {number}")
    if not isinstance(target, tuple) or len(target) == 1:
        return name
    if not tokens or len(target) != 2:
        return f"{name} at {target[0] if len(target) == 2 else target[:-1]}"
    place = target[0] % len(tokens)
    return f"{name} at {target[0]}, {next(piece.text for piece in pieces(tokens) if place in piece.tokens)}"


def _drawing(signal: Signal) -> Drawing:
    """What draws maps over a video, a sound or a volume."""
    if signal.kind == "wave":
        return partial(wave, seconds=signal.seconds)
    drawings: dict[str, Drawing] = {"video": film, "volume": slices, "spectrogram": spectrogram}
    return drawings[signal.kind]


def _plain(found: Any, given: _Given) -> Tensor:  # shape: (h, w), (T,) for a text, or along the axes of a signal
    """One map without batch and channels; products over channels are summed."""
    relevance = found[0] if isinstance(found, tuple) else found
    if given.signal is not None:
        return given.signal.one_map(relevance.detach())
    text = given.image is None
    wanted = 2 if text else 4
    if relevance.dim() == 3 and text:
        relevance = relevance.sum(-1)
    if relevance.dim() != wanted:
        raise OptionError(
            "A method that gives one map: (1, h, w) or (1, T).",
            f"shape {tuple(relevance.shape)}",
            'output="grid"',
        )
    return relevance[0].detach() if text else relevance[0].detach().sum(0)
