"""Two pictures side by side, and linear classifiers on a DINOv2: does the map for the class of one lie on it?

    python -m tests.real.linear FOLDER PICTURES [--only GenAtt DecompX] [--heads cls mean both] [--singles 60]
        [--keep maps.pt]

FOLDER is what ``python -m tests.real.dinov2`` writes. PICTURES holds CIFAR-10 as files, ``train/cat/0000.jpg`` and
``test/cat/0000.jpg``. On the frozen backbone three classifiers are fitted, which read the CLS token, the mean of the
patches, and both beside each other. Each is a logistic regression on the first 300 training pictures of a class, with
a fixed weight decay, and is held to the first 100 test pictures of a class; pictures have 112 pixels a side.

Twenty pairs of test pictures of different classes, drawn with a seed among those that all three classify right, are put
side by side. A target is the logit of the class of one of them: 40 maps. All patches count.

pointing     the share of maps whose largest relevance is in the right half
AUC          how often a patch of the right half has more relevance than one of the other half
LIF - MIF    area between the curves when least and most important patches take the mean colour first (8 pairs)
correlation  between the maps of a pair's two targets

``--singles 60`` measures LIF - MIF of so many held-out pictures by themselves instead, each explained for its class,
with a 95 % bootstrap interval over pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

import captum_vit as cv
from quantus_metrics.perturb import Mean, curves
from quantus_metrics.statistics import summarise
from tests.real.boxes import SIDE, halves
from tests.real.dinov2 import MEAN, STD, load
from tests.real.marks import Pairs, arguments, origin, parser

SEED, TRAINED, HELD_OUT, PAIRS, MEASURED = 0, 300, 100, 20, 8
BATCH = 10
DECAY = 0.01  # half of it times the squared weights, of features with unit variance, added to the mean loss
POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda x: x[:, 0],
    "mean": lambda x: x[:, 1:].mean(1),
    "both": lambda x: torch.cat([x[:, 0], x[:, 1:].mean(1)], -1),
}
NAMES = {"cls": "the CLS token", "mean": "the mean of the patches", "both": "CLS beside the mean"}


class Classifier(nn.Module):
    """Logits (B, K) of images (B, 3, h, w): a linear map of the pooled tokens."""

    def __init__(self, backbone: nn.Module, pooling: str, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.pooling, self.head = backbone, pooling, head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(POOLINGS[self.pooling](self.backbone(images).last_hidden_state))
        return logits


def pictures(folder: Path, split: str, n: int) -> tuple[Tensor, Tensor]:  # shapes: (n K, 3, SIDE, SIDE), (n K,)
    """The first n of each class by name, in [0, 1], and their classes."""
    classes = sorted(path for path in (folder / split).iterdir() if path.is_dir())
    paths = [(path, k) for k, of in enumerate(classes) for path in sorted(of.glob("*.jpg"))[:n]]
    small = torch.stack([pil_to_tensor(Image.open(path)) for path, _ in paths]) / 255
    large = F.interpolate(small, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return large, torch.tensor([k for _, k in paths])


@torch.no_grad()
def features(backbone: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """Of each pooling, (n, D) or (n, 2 D)."""
    tokens = [backbone((x - MEAN) / STD).last_hidden_state for x in pixels.split(50)]
    return {name: torch.cat([pool(x) for x in tokens]) for name, pool in POOLINGS.items()}


def fitted(x: Tensor, classes: Tensor) -> nn.Linear:
    """A logistic regression with weight decay on standardised features, which has one optimum; for plain ones."""
    mean, std = x.mean(0), x.std(0)
    head = nn.Linear(x.shape[1], int(classes.max()) + 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(head((x - mean) / std), classes) + DECAY / 2 * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        head.weight /= std
        head.bias -= head.weight @ mean
    return head.requires_grad_(False)


def pairs(classes: Tensor, right: Tensor, generator: torch.Generator) -> Tensor:  # shapes: (n,), (n,) to (PAIRS, 2)
    """Numbers of two pictures of different classes, each picture used once."""
    left = right.nonzero().squeeze(1)
    left = left[torch.randperm(len(left), generator=generator)].tolist()
    found = []
    while len(found) < PAIRS:
        first = left.pop()
        second = next(i for i in reversed(left) if classes[i] != classes[first])
        left.remove(second)
        found.append((first, second))
    return torch.tensor(found)


def single_pictures(model: nn.Module, images: Tensor, classes: Tensor, names: Sequence[str]) -> None:
    """Print LIF - MIF of the logit of each picture's class, method by method on the same pictures."""
    print("| method | LIF - MIF |\n|---|--:|")
    for name in names:
        torch.manual_seed(0)  # some methods draw
        method = cv.METHODS[name](model)
        parts = zip(images.split(BATCH), classes.split(BATCH), strict=True)
        maps = torch.cat([method.attribute(x, target=c) for x, c in parts])
        fractions = [k / 10 for k in range(11)]
        by = curves(model, images, classes, maps, remover=Mean(), fractions=fractions, internal_batch_size=BATCH)
        found = summarise((by["lif"].area() - by["mif"].area()).tolist())
        print(f"| {name} | {found.mean:.2f} [{found.low:.2f}, {found.high:.2f}] |", flush=True)


def main() -> None:
    accepted = parser(__doc__, "dinov2")
    accepted.add_argument("pictures", nargs="?", type=Path, help="CIFAR-10 as files, one folder for each class")
    accepted.add_argument("--heads", nargs="*", default=POOLINGS, choices=POOLINGS, help="which classifiers")
    accepted.add_argument("--singles", type=int, help="measure so many pictures by themselves")
    accepted.add_argument("--keep", type=Path, help="where the maps go, for torch.load")
    given = arguments(accepted, "dinov2", "pictures")
    backbone, saliency = load(given.model)
    print(origin(nn.ModuleList([backbone, saliency]), "dinov2"), "\n")
    train, held_out = (pictures(given.pictures, *which) for which in (("train", TRAINED), ("test", HELD_OUT)))
    seen, tested = features(backbone, train[0]), features(backbone, held_out[0])
    heads = {name: fitted(seen[name], train[1]) for name in POOLINGS}
    correct = {name: head(tested[name]).argmax(1) == held_out[1] for name, head in heads.items()}
    for name, found in correct.items():
        print(f"{NAMES[name]}: {found.float().mean():.3f} of {len(found)} held-out pictures are right", flush=True)
    drawn = pairs(held_out[1], torch.stack(list(correct.values())).all(0), torch.Generator().manual_seed(SEED))
    images = torch.cat([*((held_out[0][drawn] - MEAN) / STD).unbind(1)], -1)
    kept = {}
    for name in given.heads:
        print(f"\nA head on {NAMES[name]}\n")
        model = Classifier(backbone, name, heads[name]).eval()
        if given.singles:
            right = correct[name].nonzero().squeeze(1)
            some = right[torch.randperm(len(right), generator=torch.Generator().manual_seed(SEED))[: given.singles]]
            single_pictures(model, (held_out[0][some] - MEAN) / STD, held_out[1][some], given.only)
            continue
        own = halves().expand(PAIRS, -1, -1, -1)
        asked = Pairs(model, images, (), held_out[1][drawn], own, Mean(), MEASURED, [k / 5 for k in range(6)])
        kept[name] = asked.table(given.only)
    if given.keep:
        torch.save(kept, given.keep)


if __name__ == "__main__":
    main()
