"""Tokens that a language model generated: the score of each, of several together, and of the likeliest next ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_vit.errors import InputError, OptionError, TargetError, UnsupportedModelError
from captum_vit.models.library import continues_texts, placeholders_of, text_config
from captum_vit.models.output import scores_of
from captum_vit.options import integer, integer_or_none, kind_of, one_of, shown
from captum_vit.targets.scores import TargetModule
from captum_vit.trace.run.state import undisturbed, without_inference_mode
from captum_vit.trace.run.watch import model_errors_as_ours

SCORES = ("logit", "log_prob")
IDS, MASK = "input_ids", "attention_mask"


class Answer(TargetModule):
    r"""The tokens that a language model generated: (B, T), one score for each token of the answer.

    .. math:: f_t(w) = z_{n+t-1}[w_{n+t}]

    n is the length of the prompt and z are the logits: a decoder reads at position n + t - 1 what it writes at
    n + t. The ids (B, N) are the prompt followed by the answer, as ``generate`` returns them, and T = N - n. So
    ``target=0`` is the first generated token. Further arguments of the forward are an attention mask (B, N), or (B, n)
    of the prompt, which may be given as ``additional_forward_args``, and pixels, in the place of those in ``inputs``.
    The logits of other rows are not computed where the model can leave them out (``logits_to_keep``). Costs the model's
    forward.

    The answer is read from the ids, so that a method which replaces ids, such as Captum's FeatureAblation, must leave
    those of the answer as they are.

    With ``score="log_prob"`` a score is :math:`\log p = z_t - \log\sum_v e^{z_v}`. It is no sum over tokens: gradient
    x input of it sums to :math:`z_t - \sum_v p_v z_v`, by the softmax's own derivative, and not to log p. So rules
    that are complete refuse it, as they refuse any softmax at the end. A difference of two log-probabilities at one
    place is that of the logits, so with a foil both scores are the same.

    Args:
        model: a causal language model, or a vision-language model; it gives logits (B, N, V).
        prompt_length: n, the columns of the ids in front of the answer, left padding and image tokens included.
        foil: a token whose score is subtracted, by its id: "nine" rather than "two". One for all tokens of the answer,
            or a list with one for each.
        score: ``"logit"``, or ``"log_prob"``.
        inputs: whatever else a processor gave with the prompt, by name; it is handed on to the model. What is as long
            as the prompt is continued over the answer as the model's ``generate`` does it; without such a mask with
            ones, and all else with zeros. What belongs to one sample is repeated where a method runs several copies of
            it.

    Raises:
        OptionError: a prompt without tokens, or a foil that is no id.
        UnsupportedModelError: a model of Hugging Face that continues no texts, such as one for masked words.
        InputError: in the forward, ids without an answer, or a mask of another shape.
        TargetError: in the forward, a foil that is no token of the model's.
        UnsupportedModelError: in the forward, a model that gives no logits for each token.

    Example:
        >>> ids = lm.generate(prompt_ids, max_new_tokens=8)  # doctest: +SKIP
        >>> answer = Answer(lm, prompt_ids.shape[1])  # doctest: +SKIP
        >>> DecompX(answer).attribute(ids, target=2)  # which words made the third generated token?  # doctest: +SKIP
        >>> DecompX(answer.span()).attribute(ids)  # and which the whole answer?  # doctest: +SKIP
    """

    one_head = True

    def __init__(
        self,
        model: nn.Module,
        prompt_length: int,
        *,
        foil: int | Sequence[int] | Tensor | None = None,
        score: str = "logit",
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model, getattr(model, "tower", None))
        if continues_texts(model) is False:
            wanted = "A causal language model, which writes each token from those in front of it."
            raise UnsupportedModelError(wanted, type(model).__name__, "AutoModelForCausalLM; or the model itself.")
        hint = "prompt_length=prompt_ids.shape[1], so that the answer is what follows."
        self.prompt_length = integer("prompt_length", prompt_length, hint=hint)
        self.foil = None if foil is None else _ids(foil)
        self.score = one_of("score", score, SCORES)
        self.inputs, self.samples = _named(inputs)

    def forward(self, input_ids: Tensor, *further: Any) -> Tensor:  # shape: (B, T)
        n = self.prompt_length
        if input_ids.dim() == 2 and input_ids.shape[1] <= n:
            wanted = f"Ids of the prompt and its answer, longer than prompt_length={n}."
            hint = "the ids that generate returned, and the length of the prompt's own."
            raise InputError(wanted, f"shape {tuple(input_ids.shape)}", hint)
        logits = self.logits(input_ids, *further)[:, :-1]
        return self.scored(logits, input_ids[:, n:].unsqueeze(-1)).squeeze(-1)

    def span(self, start: int = 0, stop: int | None = None) -> Span:
        """The sum of several tokens' scores: (B, 1), for the whole answer or ``answer[start:stop]``.

        Its map is the sum of theirs, at the cost of one. Of log-probabilities the sum is that of the whole text.

        Raises:
            OptionError: no token, or one in front of the answer.
        """
        return Span(self, start, stop)

    def likeliest(self, input_ids: Tensor, *further: Any, k: int = 5, after: int = 0) -> Next:
        """The k likeliest tokens at a place of the answer: (B, k) scores of which the first is the likeliest token's.

        They are looked up once, in a forward pass without a graph, and stay the same whatever a method does to the
        input. Their ids are in ``tokens``.

        Args:
            input_ids: (1, N), the prompt, followed by nothing or an answer.
            further: as in the forward.
            k: how many.
            after: how many tokens of the answer stand in front of the place; 0 for the first.

        Raises:
            InputError: several prompts, whose likeliest tokens differ, or ids that end in front of the place.
            OptionError: a k that is no number of tokens of the model's.
        """
        integer("k", k, hint="k=5.")
        integer("after", after, least=0, hint="after=0, for the first token of the answer.")
        with undisturbed(self.model), torch.no_grad(), model_errors_as_ours(self, input_ids, *further):
            logits = self.logits(input_ids, *further)
        if len(logits) != 1 or after >= logits.shape[1]:
            wanted = f"One prompt, followed by at least {after} tokens of its answer."
            raise InputError(wanted, f"ids of shape {tuple(input_ids.shape)}", "input_ids[:1], or a smaller `after`.")
        if k > logits.shape[-1]:
            raise OptionError(f"`k` of at most {logits.shape[-1]}, the number of tokens.", shown(k), "k=5.")
        return Next(self, logits[0, after].topk(k).indices.tolist(), after)

    def real_words(self, input_ids: Tensor, *further: Any) -> Tensor | None:  # shape: (B, N)
        """Which tokens are no padding, by the attention mask; None without one."""
        mask = self._given(input_ids, further).get(MASK)
        return None if mask is None else mask.bool()

    def logits(self, input_ids: Tensor, *further: Any) -> Tensor:  # shape: (B, T + 1, V)
        """The logits at the prompt's last place, which gives the first token, and at each place of the answer."""
        if input_ids.dim() != 2 or input_ids.is_floating_point():
            raise InputError("Token ids (B, N).", kind_of(input_ids), "the ids of the prompt and its answer.")
        rows = input_ids.shape[1] - self.prompt_length + 1
        if rows < 1:
            got = f"ids of shape {tuple(input_ids.shape)}"
            raise InputError(f"At least prompt_length={self.prompt_length} ids.", got, "the prompt's own length.")
        given = self._given(input_ids, further)
        takes = signature(self.model.forward).parameters
        if "use_cache" in takes or getattr(text_config(self.model), "use_cache", False):
            given.setdefault("use_cache", False)
        if "logits_to_keep" in takes:
            given.setdefault("logits_to_keep", rows)
        logits = scores_of(self.model(input_ids, **given))
        if logits.dim() != 3 or logits.shape[1] < rows:
            raise UnsupportedModelError(
                "A language model that gives logits (B, N, V), one row for each token.",
                f"{type(self.model).__name__}, with an output of shape {tuple(logits.shape)}",
                "AutoModelForCausalLM; of a classifier the model itself, with target=k.",
            )
        return logits[:, -rows:]

    def scored(
        self,
        logits: Tensor,  # shape: (B, T, V)
        tokens: Tensor,  # shape: (B, T, k)
        first: int = 0,  # the place in the answer of the first row
    ) -> Tensor:  # shape: (B, T, k)
        """The scores of tokens, less that of the foil."""
        if self.foil is None:
            z = logits if self.score == "logit" else logits.log_softmax(-1)
            return z.gather(-1, tokens)
        several = len(self.foil) > 1
        foil = self.foil[first : first + logits.shape[1]] if several else self.foil * logits.shape[1]
        if len(foil) != logits.shape[1] or max(foil) >= logits.shape[-1]:
            wanted = f"A foil, or one for each token of the answer, below {logits.shape[-1]}."
            raise TargetError(wanted, shown(self.foil), "foil=tokenizer.convert_tokens_to_ids(...), one id.")
        others = torch.tensor(foil, device=tokens.device).view(1, -1, 1).expand(len(tokens), -1, -1)
        return logits.gather(-1, tokens) - logits.gather(-1, others)

    def _given(self, ids: Tensor, further: tuple[Any, ...]) -> dict[str, Any]:
        """Arguments of the model by name: what the processor gave, with what is given now in its place."""
        given = {self._name_of(x): x for x in further if x is not None}
        now = {name: _for_ids(name, x, None, self.prompt_length, ids) for name, x in given.items()}
        before = {name: x for name, x in self.inputs.items() if name not in now}
        whole = _continued(self.model, before, ids.shape[1] - self.prompt_length)
        named = {name: _for_ids(name, x, self.samples, self.prompt_length, ids) for name, x in whole.items()} | now
        self._refuse_without_pictures(ids, named)
        mask = named.get(MASK)
        if mask is None:
            return named
        if mask.shape != ids.shape:
            wanted = f"An attention mask with one number for each of the ids {tuple(ids.shape)}."
            raise InputError(wanted, f"shape {tuple(mask.shape)}", "the mask that the tokenizer gave with these ids.")
        takes = signature(self.model.forward).parameters
        if named.keys() == {MASK} and "position_ids" in takes and not mask[:, 0].all():
            named["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)  # left padding: as `generate` counts
        return named

    def _refuse_without_pictures(self, ids: Tensor, named: dict[str, Any]) -> None:
        """Without pixels a placeholder would be read as a word."""
        if any(isinstance(x, Tensor) and x.is_floating_point() for x in named.values()):
            return
        places = sum(int((ids == one).sum()) for one in placeholders_of(self.model))
        if places:
            hint = "inputs=processor(...), all that it gave, or (input_ids, pixel_values) as the inputs of a method."
            raise InputError("The pictures that ids have places for.", f"{places} places, and no pixels", hint)

    def _name_of(self, x: Any) -> str:
        """Which argument of the model a further argument is: integers are the mask, other numbers the pixels."""
        if isinstance(x, Tensor) and not x.is_floating_point():
            return MASK
        names = [name for name, value in self.inputs.items() if isinstance(value, Tensor) and value.is_floating_point()]
        if isinstance(x, Tensor) and (names or "pixel_values" in signature(self.model.forward).parameters):
            return names[0] if names else "pixel_values"
        raise InputError(
            "Further arguments that are an attention mask, or pixels.", kind_of(x), "all others by name, in `inputs`."
        )


class Span(TargetModule):
    """The sum of the scores of several tokens of an answer, see :meth:`Answer.span`: (B, 1)."""

    def __init__(self, answer: Answer, start: int = 0, stop: int | None = None) -> None:
        super().__init__(answer, answer.tower)
        self.start = integer("start", start, least=0, hint="start=0, the first token of the answer.")
        hint = "stop=None, for the whole answer from its start, or one above `start`."
        self.stop = integer_or_none("stop", stop, least=self.start + 1, hint=hint)

    def forward(self, input_ids: Tensor, *further: Any) -> Tensor:  # shape: (B, 1)
        scores = self.model(input_ids, *further)
        stop = scores.shape[1] if self.stop is None else self.stop
        if not self.start < stop <= scores.shape[1]:
            wanted = f"A span of an answer of {scores.shape[1]} tokens."
            raise TargetError(wanted, f"{self.start}:{stop}", "answer.span(), for all of them.")
        return scores[:, self.start : stop].sum(-1, keepdim=True)


class Next(TargetModule):
    """The scores of some tokens at one place of an answer, see :meth:`Answer.likeliest`: (B, k).

    Attributes:
        tokens: their ids.
    """

    model: Answer

    def __init__(self, answer: Answer, tokens: Sequence[int], after: int = 0) -> None:
        super().__init__(answer, answer.tower)
        self.tokens, self.after = tuple(tokens), after

    def forward(self, input_ids: Tensor, *further: Any) -> Tensor:  # shape: (B, k)
        logits = self.model.logits(input_ids, *further)[:, self.after : self.after + 1]
        each = torch.tensor(self.tokens, device=logits.device).expand(len(logits), 1, -1)
        return self.model.scored(logits, each, self.after).squeeze(1)


def _ids(foil: Any) -> list[int]:
    """Ids of tokens, of one or of several."""
    given = foil.tolist() if isinstance(foil, Tensor) else foil
    several = isinstance(given, Sequence) and not isinstance(given, str)
    hint = "foil=7, the id of a token, or a list of ids."
    if several and not given:
        raise OptionError("`foil` must be a token's id, or several.", shown(foil), hint)
    return [integer("foil", one, least=0, hint=hint) for one in (given if several else [given])]


def _named(inputs: Any) -> tuple[dict[str, Any], int | None]:
    """What a processor gave, without the ids, which the forward takes; and for how many samples, if that is known."""
    if inputs is None:
        return {}, None
    if not isinstance(inputs, Mapping) or not all(isinstance(name, str) for name in inputs):
        raise OptionError("`inputs` must be what a processor gave, by name.", shown(inputs), "inputs=processor(...).")
    words = next((inputs[name] for name in (IDS, MASK) if isinstance(inputs.get(name), Tensor)), None)
    named = {name: without_inference_mode(x) for name, x in inputs.items() if name != IDS}
    return named, None if words is None else len(words)


class _NoOutput(dict[str, Any]):
    """The output of a step of which nothing is carried on."""

    def __getattr__(self, name: str) -> None:
        return None


def _continued(model: nn.Module, named: dict[str, Any], more: int) -> dict[str, Any]:
    """What a prompt came with, as the model's own `generate` has it after so many tokens; as it is without such."""
    update = getattr(model, "_update_model_kwargs_for_generation", None)
    if update is None:
        return named
    found = dict(named)
    for _ in range(more):
        found = update(_NoOutput(), found)
    return {name: found[name] for name in named}


def _for_ids(name: str, x: Any, samples: int | None, n: int, ids: Tensor) -> Any:
    """What belongs to prompts of n tokens, for these ids: continued over the answer, and repeated with the sample."""
    if not isinstance(x, Tensor):
        return x
    x = x.to(ids.device)
    if x.dim() == 2 and x.shape[1] == n and not x.is_floating_point():
        x = F.pad(x, (0, ids.shape[1] - n), value=int(name == MASK))
    if samples in (None, len(ids)) or x.dim() == 0:
        return x
    if samples != 1:
        wanted, got = f"{samples} samples at once, as many as `inputs` belongs to.", f"{len(ids)}"
        raise InputError(wanted, got, "one sample at a time; or the mask as `additional_forward_args`.")
    return x.repeat(len(ids), *[1] * (x.dim() - 1))
