"""The training itself: stopped at any moment and started again, it goes on as if it had not been stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from captum_vit.demo.training import resume_run, save_run, schedule, take_step
from captum_vit.errors import InputError, UnsupportedModelError
from captum_vit.inputs.loading import load_model
from captum_vit.inputs.preprocessing import reader_of
from captum_vit.viz.files import write_whole
from quantus_metrics.training.head_spec import HeadSpec
from quantus_metrics.training.pictures import Pictures, Views, lots, transform_of

SHARD = 4096  # pictures whose features are written at once
SAVE_EVERY = 200  # steps
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


def model_of(spec: HeadSpec) -> Any:
    """The model with a head of two classes for now; what is random in it is drawn from the seed.

    Raises:
        UnsupportedModelError: its classifier is no linear layer.
    """
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        model: Any = load_model(spec.load, pretrained=spec.pretrained, checkpoint=spec.checkpoint)
    give_head(model, 2, spec.seed)
    if not isinstance(model.get_classifier(), nn.Linear):
        got = f"{spec.load}, whose classifier is a {type(model.get_classifier()).__name__}"
        raise UnsupportedModelError("A model of timm whose classifier is one linear layer.", got, "another model.")
    return model


def give_head(model: Any, classes: int, seed: int) -> None:
    """A new head, drawn from the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.reset_classifier(classes)


@dataclass(frozen=True)
class Training:
    """What a run is made of.

    Args:
        spec: the recipe.
        model: from :func:`model_of`, on its device.
        pictures: to train on.
        folder: where the state of the run is kept.
        workers: processes that read pictures; the result does not depend on it.
    """

    spec: HeadSpec
    model: Any
    pictures: Pictures
    folder: Path
    workers: int

    def run(self) -> None:
        """Train the model, or go on where an earlier run stopped.

        Raises:
            InputError: the loss is no longer finite.
        """
        spec, whole = self.spec, self.spec.trained == "all"
        part: nn.Module = self.model if whole else self.model.get_classifier()
        part.train()
        optimizer = OPTIMIZERS[spec.optimizer](part.parameters(), lr=spec.rate, weight_decay=spec.weight_decay)
        optimizer.param_groups[0]["peak"] = spec.rate
        state = self.folder / "state.safetensors"
        start = resume_run(state, {"part": part}, [optimizer])
        inputs, labels = self._pictures(start) if whole else self._features(start), self.pictures.labels
        each, device = self._steps_of_an_epoch(), next(part.parameters()).device
        steps, warmup = spec.epochs * each, max(round(spec.warmup * each), 1)
        for step in (bar := tqdm(range(start, steps), initial=start, total=steps, desc="steps", mininterval=1)):
            x, y = next(inputs).to(device), labels[self._rows(step)].to(device)
            with torch.random.fork_rng():  # dropout depends on seed and step only
                torch.manual_seed(spec.seed * 10**9 + step)
                loss = F.cross_entropy(part(x), y, label_smoothing=spec.label_smoothing)
            if not loss.isfinite():
                raise InputError("A finite loss.", f"{loss.item()} at step {step + 1}", "a smaller rate, or a warmup.")
            part.zero_grad()
            loss.backward()
            rising = min((step + 1) / warmup, 1.0)
            take_step([optimizer], rising if spec.schedule == "constant" else schedule(step, steps, warmup))
            if (step + 1) % SAVE_EVERY == 0 or (step + 1) % each == 0:
                save_run(state, step + 1, {"part": part}, [optimizer])
                bar.set_postfix(loss=f"{loss.item():.4f}")
        part.eval()

    def _steps_of_an_epoch(self) -> int:
        return -(-len(self.pictures.places) // self.spec.batch_size)

    def _rows(self, step: int) -> Tensor:
        """Which of the pictures a step sees; each epoch has an order of its own."""
        epoch, at = divmod(step, self._steps_of_an_epoch())
        order = shuffled(len(self.pictures.places), self.spec.seed * 10**6 + epoch)
        return order[at * self.spec.batch_size : (at + 1) * self.spec.batch_size]

    def _views(self) -> Views:
        reader = reader_of(self.model)
        size = reader.prepare(Image.new("RGB", (64, 64))).shape[-2:]
        return Views(self.pictures.data, transform_of(self.spec, reader, size), self.spec.seed)

    def _pictures(self, start: int) -> Iterator[Tensor]:
        """The batches from a step on, each epoch another view."""
        each, places = self._steps_of_an_epoch(), self.pictures.places
        steps = range(start, self.spec.epochs * each)
        keys = ([(step // each, places[row]) for row in self._rows(step).tolist()] for step in steps)
        return self._views().batches(keys, self.workers)

    def _features(self, start: int) -> Iterator[Tensor]:
        """The same of features (B, D): a view passes through the backbone once; without augmentation there is one."""
        view, each, found = -1, self._steps_of_an_epoch(), torch.empty(0)
        for step in range(start, self.spec.epochs * each):
            now = 0 if self.spec.augment == "none" else step // each
            if now != view:
                view, found = now, self._view(now)
            yield found[self._rows(step)]

    def _view(self, view: int) -> Tensor:
        """The features of all pictures in one view, in shards that are computed where they are not there yet."""
        for other in set(self.folder.glob("features-*")) - set(self.folder.glob(f"features-{view}-*")):
            other.unlink()
        places, size, device = self.pictures.places, self.spec.batch_size, next(self.model.parameters()).device
        found, views = [], self._views()
        for start in tqdm(range(0, len(places), SHARD), desc=f"features, view {view + 1}", unit="shard"):
            path = self.folder / f"features-{view}-{start}.safetensors"
            if not path.exists():
                keys = lots([(view, place) for place in places[start : start + SHARD]], size)
                batches = views.batches(keys, self.workers)
                rows = torch.cat([pooled(self.model, x.to(device)).cpu() for x in batches])
                write_whole(path, partial(save_file, {"features": rows}))
            found.append(load_file(path)["features"])
        return torch.cat(found)


@lru_cache(maxsize=2)
def shuffled(n: int, seed: int) -> Tensor:
    """The numbers below n in an order of the seed's."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def pooled(model: Any, x: Tensor) -> Tensor:
    """What the classifier reads, (B, D).

    Raises:
        UnsupportedModelError: the classifier of this is not the model.
    """
    found: Tensor = model.forward_head(model.forward_features(x), pre_logits=True)
    head = model.get_classifier()
    if found.dim() != 2 or not torch.allclose(head(found[:1]), model(x[:1]), rtol=1e-3, atol=1e-4):
        got = f"{type(model).__name__}, where something else follows its features"
        raise UnsupportedModelError("A model of timm that ends in its classifier.", got, 'trained = "all"')
    return found


@torch.no_grad()
def accuracy(model: nn.Module, pictures: Pictures, batch_size: int, workers: int) -> float:
    """The share of pictures whose class has the largest output."""
    views, device = Views(pictures.data, reader_of(model).prepare), next(model.parameters()).device
    batches = views.batches(lots([(0, place) for place in pictures.places], batch_size), workers)
    named = torch.cat([model(x.to(device)).argmax(1).cpu() for x in tqdm(batches, desc="held out")])
    return (named == pictures.labels).double().mean().item()
