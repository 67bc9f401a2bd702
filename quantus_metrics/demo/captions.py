"""Digit scenes and captions: every method asked which patches match "an eight", and which words match a scene.

What is right is known here: in a scene of two digits the map for a text that names one of them should lie on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from captum_vit import METHODS, PLUS, DecompX, ImageSimilarity, TextSimilarity, viz
from captum_vit.demo import Scenes, demo_clip, demo_clip_tokenizer, digit_scenes
from captum_vit.demo.captions import PROMPTS, TEMPLATES, named
from captum_vit.viz.files import check_target, write_figure, write_page, write_whole
from quantus_metrics.demo.marks import FEW, SLOW, Asked, Mark, explained, table
from quantus_metrics.metrics.pointing import chance, pointing_accuracy
from quantus_metrics.metrics.segmentation import mean_iou

TOLERANCE = 4  # pixels beside a stroke that still count as pointing at it
COLUMNS = {"pointing": ".3f", "mIoU": ".3f", "time": ".2f"}
SHOWN = (  # one of each family
    "PLUS(DecompX)", "VTranM", "GenAtt", "LayerCDAM", "TokenGradCAM", "PredictionMap", "Saliency", "RawAttention",
)  # fmt: skip
DRAWN = 2  # scenes in the picture, a row for each of their digits


def run(out: Path, n: int = 16, seed: int = 0, overwrite: bool = False) -> list[Mark]:
    """Explain, mark, print the table, draw the picture and write the page; the marks, best pointing first.

    The picture shows patches that match texts; the page of the same name words that match scenes.
    """
    out = check_target(out, {".png", ".pdf", ".svg"}, overwrite)
    page = check_target(out.with_suffix(".html"), {".html"}, overwrite)
    torch.manual_seed(seed)  # RandomAttribution draws from the global generator
    scenes = digit_scenes(n, n_digits=2, split="test", seed=seed)
    model = TextSimilarity.from_texts(demo_clip(), demo_clip_tokenizer(), PROMPTS, templates=TEMPLATES)
    asked = Asked(scenes.images.repeat_interleave(2, 0), scenes.digits.flatten())
    masks = scenes.masks.flatten(0, 1)
    marks, drawn = [], {}
    with tqdm(total=len(METHODS) * len(asked), unit="map", desc="explaining") as progress:
        for name, make in METHODS.items():
            progress.set_description(name)
            maps, time = explained(make(model), model, asked, progress)
            some = masks[: len(maps)]
            values = pointing_accuracy(maps, some, TOLERANCE), mean_iou(maps, some), time
            marks.append(Mark(name, dict(zip(COLUMNS, values, strict=True))))
            if name in SHOWN:
                drawn[name] = maps[: 2 * DRAWN]
    marks.sort(key=lambda found: -found.values["pointing"])
    write_whole(out, partial(write_figure, patches(scenes, drawn), out.suffix[1:]))
    write_whole(page, partial(write_page, words(scenes).html))
    print(about(asked, masks), table(marks, COLUMNS), sep="\n\n")
    print(f"\nWhich patches match a text, by one method of each family: {out}\nWhich words match a scene: {page}")
    return marks


def about(asked: Asked, masks: Tensor) -> str:
    """What the columns mean."""
    return (
        f"{len(asked)} maps of two-digit scenes for texts that name one digit. Pointing: the maximum lies within "
        f"{TOLERANCE} pixels of that digit's strokes (a random point: {chance(masks, TOLERANCE):.2f}).\n"
        f"mIoU: with the strokes. Time: ratio to the plain forward pass; above {SLOW}, marks are of the first {FEW} "
        "maps alone."
    )


def patches(scenes: Scenes, maps: Mapping[str, Tensor]) -> Figure:
    """Input, mask and one column per method; one row per text."""
    rows = slice(len(next(iter(maps.values()))))
    return viz.panels(
        list(scenes.pixels.repeat_interleave(2, 0)[rows]),
        maps,
        rows=[PROMPTS[digit] for digit in scenes.digits.flatten()[rows].tolist()],
        masks=scenes.masks.flatten(0, 1)[rows],
    )


def words(scenes: Scenes) -> viz.TokenText:
    """One caption, read beside each of the first two scenes: it names a digit of either."""
    model, tokenizer = demo_clip(), demo_clip_tokenizer()
    images, digits = scenes.images[:2], scenes.digits[:2]
    said = TEMPLATES[0].format(named(dict.fromkeys(digits[:, 0].tolist())))
    ids = tokenizer([said], return_tensors="pt")["input_ids"]
    method = PLUS(DecompX(ImageSimilarity.from_images(model, images)))
    relevance = torch.cat([method.attribute(ids, target=scene) for scene in range(len(images))])
    rows = [f"beside a scene of {named(row)}" for row in digits.tolist()]
    return viz.text(tokenizer.convert_ids_to_tokens(ids[0].tolist()), relevance, rows=rows, special=False)
