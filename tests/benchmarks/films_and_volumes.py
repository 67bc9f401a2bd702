"""Train a video and a volume transformer on inputs with known answers, point with methods, and draw one input of each.

    python -m tests.benchmarks.films_and_volumes [films|volumes] --weights FOLDER [--steps 1000] [--draw docs/images]

The first run trains and keeps the weights in the folder; another one only points and draws, or with `--again` trains on
from them. Held out: of films the digits' scans, of volumes the solids' sizes. *pointing*: the cell of the largest
relevance holds some of the thing that is asked for, in space and time; chance is the share of such cells. Before the
methods it prints what is true of the model itself: its accuracy, and what a logit loses when what it names, or the
other thing, is left out. The inputs drawn are held out too, and were picked to be legible.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import trange

import captum_vit as cv
from captum_vit.demo.evaluation import TEST_SEED, all_named, effect_of, share
from captum_vit.demo.training import blend, optimizers_of, schedule, take_step
from captum_vit.demo.weights import load_weights, save_weights
from captum_vit.errors import CaptumVitError
from tests.benchmarks import moving_digits, solids
from tests.benchmarks.moving_digits import Known

BATCH, RATE, DECAY = 32, 2e-3, 0.05
AGAIN = 10**6  # seed of the first inputs of a second training
METHODS = (
    "DecompX", "PLUS(DecompX)", "LayerCDAM", "GenAtt", "VTranM", "CAT", "TransAttr", "AttentionRollout",
    "RandomAttribution",
)  # fmt: skip


class Subject(NamedTuple):
    """What is trained, on what, and what its blocks' parameters are called."""

    draw: Callable[..., Known]
    model: Callable[[], nn.Module]
    blocks: str
    names: tuple[str, ...]
    seed: int  # of the input that is drawn


SUBJECTS = {
    "films": Subject(moving_digits.films, moving_digits.video_vit, "layer", moving_digits.NAMES, 6),
    "volumes": Subject(solids.volumes, solids.VolumeViT, "blocks", solids.NAMES, 3),
}


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    found: Any = model(x)
    return found if isinstance(found, Tensor) else found.logits


def train(subject: Subject, steps: int, start: Path) -> nn.Module:
    """Of each class, whether it is there, by binary cross-entropy; the running average of the weights."""
    torch.manual_seed(0)
    model, average, first = subject.model().train(), subject.model().eval(), 0
    if start.exists():
        load_weights(model, start)
        first = AGAIN
    average.load_state_dict(model.state_dict())
    optimizers = optimizers_of(model, subject.blocks, RATE, RATE, DECAY, muon=False)
    for step in (bar := trange(steps, mininterval=10)):
        known = subject.draw(BATCH, "train", first + step)
        present = F.one_hot(known.classes, len(subject.names)).sum(1).float()
        loss = F.binary_cross_entropy_with_logits(logits_of(model, known.inputs), present)
        model.zero_grad()
        loss.backward()
        take_step(optimizers, schedule(step, steps, 100))
        blend(average, model, max(0.01, 1 / (step + 1)))
        if step % 100 == 99:
            bar.write(f"step {step + 1}: loss {loss.item():.3f}")
    return average


@torch.no_grad()
def true_of(model: nn.Module, subject: Subject, n: int) -> Iterator[str]:
    """Held-out accuracy, and whose absence moves a logit."""

    def logits(without: int | None) -> Tensor:
        return torch.cat([logits_of(model, x) for x in subject.draw(n, "test", TEST_SEED, without).inputs.split(100)])

    classes = subject.draw(n, "test", TEST_SEED).classes
    found = [logits(without) for without in (None, 0, 1)]
    yield f"the two largest logits name both: {share(all_named(found[0], classes)):.3f} of {n}"
    whole, own, other = (each.gather(1, classes[:, :1]).squeeze(1) for each in found)
    effect = effect_of(whole, own, other)
    yield f"a logit loses {effect.own:+.2f} without what it names, {effect.other:+.2f} without the other one"


def cells(masks: Tensor, shape: torch.Size) -> Tensor:
    """Cells of maps that hold some of the masks (B, T, H, W): (B, t h w)."""
    return F.adaptive_max_pool3d(masks[:, None].float(), shape)[:, 0].flatten(1) > 0


def pointing(method: cv.TokenAttribution, known: Known) -> str:
    """A row of the table: on it, on the other one, and the chance."""
    x, target = known.inputs.repeat_interleave(2, 0), known.classes.flatten()
    maps = torch.cat([method.attribute(x[i], target=target[i])[:, 0] for i in torch.arange(len(x)).split(50)])
    own, other = (cells(masks.flatten(0, 1), maps.shape[1:]) for masks in (known.masks, known.masks.flip(1)))
    at = maps.flatten(1).argmax(1, keepdim=True)
    right, wrong = own.gather(1, at), other.gather(1, at)
    return f"{share(right):.3f} | {share(wrong & ~right):.3f} | {share(own):.3f}"


def draw(name: str, model: nn.Module, subject: Subject, path: Path) -> None:
    """One held-out input, and the map of each thing in it."""
    known = subject.draw(1, "test", subject.seed)
    pictures = []
    for target in known.classes[0].tolist():
        relevance = cv.DecompX(model).attribute(known.inputs, target=target)[0, 0]
        title = f"evidence for {subject.names[target]!r}: DecompX"
        if name == "films":
            figure = cv.viz.film(known.inputs[0] / 2 + 0.5, relevance, title=title)
        else:
            figure = cv.viz.slices(known.inputs[0, 0], relevance, title=title)
        buffer = BytesIO()
        figure.savefig(buffer, dpi=100)
        pictures.append(Image.open(buffer).convert("RGB"))
    both = Image.new("RGB", (pictures[0].width, sum(each.height for each in pictures)))
    for i, each in enumerate(pictures):
        both.paste(each, (0, i * pictures[0].height))
    both.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--weights", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--again", action="store_true", help="train on from the weights in the folder")
    parser.add_argument("--n", type=int, default=200, help="inputs to point in")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="write the pictures there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.subjects:
        subject, path = SUBJECTS[name], options.weights / f"{name}.safetensors"
        if options.again or not path.exists():
            save_weights(train(subject, options.steps, path), path)
        model = subject.model().eval()
        load_weights(model, path)
        print(
            f"\n{name}, {sum(p.numel() for p in model.parameters()):,} parameters",
            *true_of(model, subject, 500),
            sep="\n",
        )
        known = subject.draw(options.n, "test", 1)
        print("\n| method | on it | on the other one | chance |\n|---|--:|--:|--:|")
        for method in METHODS:
            try:
                print(f"| {method} | {pointing(cv.METHODS[method](model.eval()), known)} |", flush=True)
            except CaptumVitError as error:
                print(f"| {method} | refused: {str(error).splitlines()[0]} | | |", flush=True)
        if options.draw:
            draw(name, model, subject, options.draw / f"{name[:-1]}.png")


if __name__ == "__main__":
    main()
