"""The card of trained weights: what was trained, on what, how, and how well it does."""

from __future__ import annotations

from dataclasses import fields

from captum_vit.demo.weights import versions
from quantus_metrics.training.head_spec import HeadSpec
from quantus_metrics.training.pictures import Pictures

CARD = """\
# {title}

`{load}` with a head of {classes} classes; {trained}. In a benchmark's spec:

    model = [{{ name = "{title}", load = "{load}", checkpoint = "{file}" }}]

| | pictures | accuracy |
|---|--:|--:|
| training | {n} | |
| held out | {n_held} | {accuracy:.2%} |

Measured on the stored weights with the model's own preprocessing; nothing was chosen by this accuracy. Files that
cannot be read, and were left out: {unread}.

| recipe | |
|---|---|
{recipe}

Digest of the training data: {digest}. Versions: {versions}.

{source}
"""


def card(
    spec: HeadSpec, file: str, classes: int, pictures: tuple[Pictures, Pictures], accuracy: float, digest: str
) -> str:
    """The text of the card of the weights in ``file``."""
    training, held_out = pictures
    words = ("title", "source", "note", "load")
    shown = {each.name: getattr(spec, each.name) for each in fields(spec) if each.name not in words}
    return CARD.format(
        title=spec.title,
        load=spec.load,
        classes=classes,
        trained="the backbone is frozen" if spec.trained == "head" else "all of it was trained",
        file=file,
        n=len(training.places),
        n_held=len(held_out.places),
        accuracy=accuracy,
        unread=", ".join(dict.fromkeys([*training.unread, *held_out.unread])) or "none",
        recipe="\n".join(f"| {name} | {value} |" for name, value in shown.items()),
        digest=digest,
        versions=versions("torch", "torchvision", "timm"),
        source=" ".join([spec.source, *spec.note.split()]).strip(),
    )
