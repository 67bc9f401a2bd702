"""Class discrimination: does the right class's map explain it better than a wrong class's map does?"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from quantus.helpers.enums import EvaluationCategory
from torch import Tensor

from captum_vit.errors import InputError, OptionError
from captum_vit.options import integer, shown
from captum_vit.tokens import Box
from quantus_metrics.bridge import check_explains, to_tensor
from quantus_metrics.cells import Size
from quantus_metrics.perturb.ranks import at_size, check_sizes
from quantus_metrics.statistics import summarise

from .base import TokenMetric
from .batch import Answers, Batch, Explainer, Samples, check_classes, whole_images
from .fidelity import Fidelity
from .panels import Panel, less, side

_OF_MAPS = {"abs", "normalise", "normalise_func", "normalise_func_kwargs"}


def runner_up(
    outputs: Tensor,  # shape: (B, n_classes)
    target: Tensor,  # shape: (B,)
) -> Tensor:  # shape: (B,)
    """The class that the model prefers among all but the target."""
    if outputs.dim() != 2 or outputs.shape[1] < 2:
        hint = "captum_vit.TwoClasses(model) for the one logit of a classifier; an array of classes in custom_batch."
        raise InputError("At least two classes.", f"outputs of shape {tuple(outputs.shape)}", hint)
    return outputs.scatter(1, target.unsqueeze(1), -torch.inf).argmax(1)


def _box_of_the_smaller(answer: Answers, inputs: Tensor, one: Size, other: Size) -> Box | None:
    """The pixels under the smaller of two maps, where the other one is of pixels."""
    pixels = max(one, other) == tuple(inputs.shape[-2:])
    return answer.box_under(min(one, other), inputs) if pixels else None


class ClassDiscrimination(TokenMetric):
    r"""How much better the right class's map does than a wrong class's, both judged by the right class's logit.

    .. math:: \Delta A = A(S_\mathrm{right}) - A(S_\mathrm{wrong})

    where A is another metric, such as `Fidelity` or `BoxSensitivity`, and always watches the class in ``y_batch``. A
    method that gives the same map for all classes has exactly 0. Quantus lists it beside its own `RandomLogit`.

    The wrong class is the call's ``custom_batch``: an array (N,) of one class per sample, as where images
    show two objects; or maps of that class, (N, 1, h, w) or (N, h, w), made before. Without one `wrong`
    selects it. Use `wrong` in ``quantus.evaluate``: its ``call_kwargs`` go to every metric, and Quantus's own take no
    ``custom_batch``. Where no maps of the wrong class are given, ``explain_func`` makes them; ``evaluate`` hands it
    on, but another one for methods that are given to it as arrays: there this metric would mix two methods. Maps of
    pixels and maps of patches are compared at the size of the right class's: pixels are averaged over each patch, or
    patches repeated.

    Costs twice the other metric's passes for `Fidelity`, once for `BoxSensitivity`, whose passes serve both maps;
    one more for "runner_up"; and the explanations.

    Args:
        metric: A; `Fidelity()` by default. Its direction is ours, and `abs` and `normalise` are its own.
        wrong: "runner_up", the class that the model prefers among all others; or one class for all samples.
        **kwargs: Quantus's own; see `TokenMetric`.

    Raises:
        OptionError: another metric that explains the predicted class: right and wrong classes are given here.
        InputError: in a call, before the model runs, a wrong class that is the right one, or maps that do not fit.
        TargetError: a wrong class that the model does not have.

    Example:
        >>> metric = ClassDiscrimination(Fidelity(patch_size=16))
        >>> metric(model, x_batch, y_batch, explain_func=explain_func(LayerCDAM), custom_batch=second_classes)

    Reference: Brocki et al., Class-Discriminative Attention Maps, section 3.4, eqs. 7 and 8.
    """

    name = "Class Discrimination"
    evaluation_category = EvaluationCategory.RANDOMISATION

    def __init__(
        self,
        metric: TokenMetric | None = None,
        *,
        wrong: Literal["runner_up"] | int = "runner_up",
        **kwargs: Any,
    ) -> None:
        if own := sorted(kwargs.keys() & _OF_MAPS):
            hint = "ClassDiscrimination(Fidelity(abs=True))."
            raise OptionError("Maps prepared by the other metric.", f"{', '.join(own)} here", hint)
        if wrong != "runner_up":
            integer("wrong", wrong, least=0, hint='wrong="runner_up", or custom_batch for one class per sample.')
        if metric is not None and not isinstance(metric, TokenMetric):
            raise OptionError("Another metric of this package, an instance.", shown(metric), "metric=Fidelity().")
        if getattr(metric, "explained", "target") != "target":
            hint = f'{type(metric).__name__}() with explained="target".'
            raise OptionError("A metric whose maps explain the given classes.", 'explained="predicted"', hint)
        self.metric = Fidelity() if metric is None else metric
        kwargs.setdefault("aggregate_func", self.metric.aggregate_func)
        super().__init__(**kwargs)
        self.wrong = wrong
        self.score_direction, self.level = self.metric.score_direction, self.metric.level
        self.softmax, self.answers = self.metric.softmax, self.metric.answers
        self.score_range = tuple(np.subtract(self.metric.score_range, self.metric.score_range[::-1]).tolist())

    def _check(self, samples: Samples, model: Answers, explain_func: Callable[..., np.ndarray] | None) -> None:
        self.metric._check(samples, model, explain_func)
        custom = self._custom(samples)
        if custom is None:
            return check_explains(explain_func)
        if custom.ndim != 1:
            wrong = replace(samples, a_batch=custom)
            self.metric._check(wrong, model, explain_func)
            if samples.a_batch is not None and not samples.texts:
                sizes = wrong.maps().shape[-2:], samples.maps().shape[-2:]
                check_sizes(*sizes, _box_of_the_smaller(model, samples[:1].inputs(model), *sizes))
            return None
        check_explains(explain_func)
        check_classes(custom, model.known, "custom_batch, or `wrong`")
        same = custom == np.asarray(samples.y_batch)
        if same.any():
            raise InputError(
                "A wrong class that is not the right one.",
                f"the same in sample(s) {np.flatnonzero(same)[:10].tolist()}",
                'wrong="runner_up", or leave these samples out.',
            )

    def _custom(self, samples: Samples) -> np.ndarray | None:  # shape: (N,) classes, or (N, 1, h, w) maps
        """The wrong classes or their maps, unless the model is to choose."""
        if samples.custom_batch is not None:
            return np.asarray(samples.custom_batch)
        return None if isinstance(self.wrong, str) else np.full(len(samples), self.wrong)

    def _maps(self, samples: Samples) -> np.ndarray:
        return self.metric._maps(samples)

    def _batch(self, samples: Samples, answer: Answers, explain: Explainer) -> Batch:
        """With the maps of the wrong classes as `custom`."""
        batch, custom = super()._batch(samples, answer, explain), self._custom(samples)
        if custom is None:
            outputs = whole_images(answer, batch.inputs, getattr(self.metric, "internal_batch_size", None))
            wrong = batch.explain(runner_up(outputs, batch.target))
        elif custom.ndim == 1:
            wrong = batch.explain(torch.from_numpy(custom))
        else:
            wrong = to_tensor(self._maps(replace(samples, a_batch=custom)), batch.inputs.device)
        if batch.relevance.dim() == 4:  # parts leave as the map of the right class has them
            size, own = ((maps.shape[-2], maps.shape[-1]) for maps in (batch.relevance, wrong))
            wrong = at_size(wrong, size, _box_of_the_smaller(answer, batch.inputs, own, size))
        return replace(batch, custom=wrong)

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        right, wrong = self.metric._measure_each(batch, [batch.relevance, batch.custom])
        sides = {"right": right, "wrong": wrong}
        kept = {f"{side} {name}": found for side, all_found in sides.items() for name, found in all_found.items()}
        return {"score": right["score"] - wrong["score"], **kept}

    def panels(self, kept: Collection[str]) -> list[Panel]:
        """Of the other metric's last: the wrong class's maps, and right less wrong."""
        own = self.metric.panels([name.removeprefix("right ") for name in kept if name.startswith("right ")])
        if not own:
            return []
        right, wrong = (side(own[-1], name) for name in ("right", "wrong"))
        return [wrong, less(right, wrong, f"{own[-1].title}, right less wrong")]

    def _draw(self, ax: Axes | None = None) -> Axes:
        """Each sample as a line from its score under the wrong map to that under the right one; the means in black."""
        summary, ax = self.summary(), ax or plt.subplots()[1]
        sides = [self.kept[f"{side} score"].numpy() for side in ("wrong", "right")]
        ax.plot([0, 1], sides, color="tab:blue", alpha=0.2, linewidth=0.8)
        means = [summarise(scores, n_resamples=999) for scores in sides]
        ax.errorbar([0, 1], [one.mean for one in means], [[one.mean - one.low for one in means],
                    [one.high - one.mean for one in means]], color="black", capsize=4)  # fmt: skip
        ax.set_xticks([0, 1], ["map of the wrong class", "map of the right class"])
        ax.set(ylabel=self.metric.name, title=f"difference {summary}", xlim=(-0.3, 1.3))
        return ax
