"""The picture at the top of the README: photographs and a sentence, each each explained for two targets.

    python -m tests.real.hero DINOV2 MINILM [--out docs/images/hero.png]

DINOV2 and MINILM are the folders of ``tests.real.boxes`` and ``tests.real.sentences``; docs/real-models.md says how to
get them; the question is answered by the demo model. It is drawn at twice the size at which the README shows it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextPath
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

import captum_vit as cv
from captum_vit import viz
from captum_vit.demo import demo_vlm, demo_vlm_processor, digit_questions
from captum_vit.demo.scene_questions import SIDES
from captum_vit.viz.blending import blend
from captum_vit.viz.colours import SIGNED, Scale
from tests.real import boxes, sentences
from tests.real.dinov2 import MEAN, STD, BoxSaliency, load

WIDTH, HEIGHT, MARGIN, GAP = 1800, 800, 16, 52  # pixels
INK, QUIET = "#1c1c1c", "#5a5a5a"
TITLE, CAPTION, WORDS, QUESTION = 38, 30, 42, 29  # pixels of a letter
DEEP = 0.6  # the darkest ground of a word, as a place in the colours
SIDE = 224  # pixels that the model sees of a photograph
SCENE = sentences.Scene(12, 15)
SEED = 8  # of scenes, of which the third has a two and a six

Drawn = Callable[[Axes, float, float, float], float]
"""Draws at a place (left, top) in a width; where it ends below."""


def photographs(folder: str, method: str = "GenAtt") -> list[tuple[str, Drawn]]:
    """A cat beside a cup of coffee, for the saliency of each."""
    boxes.SIDE = SIDE
    model = BoxSaliency(*load(folder), boxes.halves()).eval()
    pixels = torch.cat([boxes.photograph(name) for name in boxes.DRAWN], -1)
    images = ((pixels - MEAN) / STD)[None]
    maps = [cv.METHODS[method](model).attribute(images, target=k).detach()[0, 0] for k in (0, 1)]
    return [(f"target: the {name}", picture(pixels, found)) for name, found in zip(boxes.DRAWN, maps, strict=True)]


def clauses(folder: str, method: str = "PLUS(DecompX)") -> list[tuple[str, Drawn]]:
    """A sentence of two clauses, for its similarity with a paraphrase of each."""
    encoder = AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    paraphrases = [sentences.CLAUSES[clause] for clause in SCENE.clauses]
    near = cv.SentenceSimilarity.from_texts(encoder, tokenizer, paraphrases)
    found = cv.explain(near, SCENE.text, [0, 1], method, tokenizer=tokenizer, words=True, special=False).text()
    return [(f"target: “{text}”", words(found, row)) for row, text in enumerate(paraphrases)]


def question() -> list[tuple[str, Drawn]]:
    """A scene of two digits, for the answers to two questions."""
    model, processor = demo_vlm(), demo_vlm_processor()
    pixels = digit_questions(3, seed=SEED).pixels[2]
    scene = Image.fromarray((255 * pixels).byte().permute(1, 2, 0).numpy())
    rows: list[tuple[str, Drawn]] = []
    for side in SIDES:
        found = cv.explain(model, (scene, f"What digit is {side}?"), processor=processor)
        assert isinstance(found, cv.viz.AnswerExplanation)
        rows.append((f"answer: “{found.label}”", both(found, pixels)))
    return rows


def both(found: viz.AnswerExplanation, pixels: Tensor) -> Drawn:
    """The words of a question above its picture, whose map is drawn on it."""
    names, values = zip(*found.words, strict=True)
    chips = viz.text(names, torch.tensor(values), signed=True)
    below = picture(pixels, found.images[0])

    def draw(axes: Axes, left: float, top: float, width: float) -> float:
        return below(axes, left, words(chips, 0, QUESTION)(axes, left, top, width) + 10, 0.74 * width)

    return draw


def picture(pixels: Tensor, relevance: Tensor) -> Drawn:
    """A map over photographs, signed whatever the method gives, so that all panels have one palette."""
    end = relevance.abs().quantile(0.995).item()
    large = F.interpolate(pixels[None], scale_factor=4, mode="bicubic").clamp(0, 1)[0]
    shown = blend(large, relevance, scale=Scale(-end, end, True))

    def draw(axes: Axes, left: float, top: float, width: float) -> float:
        bottom = top + width * shown.shape[0] / shown.shape[1]
        axes.imshow(shown, extent=(left, left + width, bottom, top), interpolation="antialiased")
        return bottom

    return draw


def words(text: viz.TokenText, row: int, size: float = WORDS) -> Drawn:
    """Words on coloured ground."""

    def draw(axes: Axes, left: float, top: float, width: float) -> float:
        across, line, high, space, air = left, top, 1.45 * size, 7, 7
        for piece, strength in zip(text.pieces, text.strength[row].tolist(), strict=True):
            span = wide(piece.text, size) + 2 * air
            if across + span > left + width:
                across, line = left, line + high + 12
            chip = FancyBboxPatch(
                (across, line), span, high, boxstyle="round,pad=0,rounding_size=8", linewidth=0,
                facecolor=SIGNED((1 + DEEP * strength) / 2),
            )  # fmt: skip
            axes.add_patch(chip)
            write(axes, across + air, line + high / 2, piece.text, size)
            across += span + space
        return line + high

    return draw


def wide(text: str, size: float) -> float:
    """Pixels that a text takes."""
    return float(TextPath((0, 0), text, size=size).get_extents().x1) if text.strip() else 0.3 * size


def write(axes: Axes, x: float, y: float, text: str, size: float, colour: str = INK, **style: str) -> None:
    points = 72 / axes.figure.dpi
    axes.text(x, y, text, fontsize=size * points, color=colour, va="center_baseline", parse_math=False, **style)


def legend(axes: Axes, right: float) -> None:
    """What the colours mean, as far as words have them."""
    strengths = torch.linspace(-1, 1, 64)[None]
    write(axes, right - 40, 32, "for", CAPTION, QUIET)
    axes.imshow(SIGNED((1 + DEEP * strengths.numpy()) / 2), extent=(right - 250, right - 54, 46, 18), aspect="auto")
    write(axes, right - 264, 32, "against", CAPTION, QUIET, ha="right")


def compose(panels: list[tuple[str, float, list[tuple[str, Drawn]]]]) -> Figure:
    """Panels side by side, each with a title and a width, and in it a row for each target."""
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    left = float(MARGIN)
    for title, width, rows in panels:
        write(axes, left, 32, title, TITLE, weight="bold")
        part = (HEIGHT - 70) / len(rows)
        for number, (caption, draw) in enumerate(rows):
            top = 70 + number * part
            write(axes, left, top + 22, caption, CAPTION, QUIET)
            draw(axes, left, top + 50, width)
        left += width + GAP
    legend(axes, WIDTH - MARGIN - panels[-1][1] - GAP)
    axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), aspect="auto")
    axes.set_axis_off()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dinov2", help="a folder, as for tests.real.boxes")
    parser.add_argument("minilm", help="a folder, as for tests.real.sentences")
    parser.add_argument("--out", type=Path, default=Path("docs/images/hero.png"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    panels = [
        ("Which patches?", 600.0, photographs(given.dinov2)),
        ("Which words?", 724.0, clauses(given.minilm)),
        ("Both at once?", 340.0, question()),
    ]
    compose(panels).savefig(given.out)


if __name__ == "__main__":
    main()
