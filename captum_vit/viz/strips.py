"""A strip above a figure of words: a title, pictures, and bars of what each part adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from captum_vit.viz.colours import AGAINST, FOR
from captum_vit.viz.figures import draw
from captum_vit.viz.lines import INK, QUIET

_GAP = 0.08  # inches
_NAMES, _VALUES = 1.25, 0.45  # inches beside the bars


def raised(figure: Figure, height: float) -> Figure:
    """The figure with free space of some inches above; what is drawn in points from the bottom stays there."""
    width, before = figure.get_size_inches()
    figure.set_size_inches(width, before + height)
    return figure


def strip(
    figure: Figure,
    title: str,
    pictures: Sequence[Tensor],  # shape of each: (H, W, 3)
    shares: Mapping[str, float],
    height: float,  # inches, without the title
) -> None:
    """Fill the space above: pictures from the left, as many as fit, and bars beside them."""
    width, whole = figure.get_size_inches()
    top = whole - 0.3

    def axes(left: float, across: float, tall: float = height) -> tuple[float, float, float, float]:
        return left / width, (top - tall) / whole, across / width, tall / whole

    figure.text(_GAP / width, 1 - 0.15 / whole, title, va="center", fontsize=10, color=INK, parse_math=False)
    left = _GAP
    slot = max(width - 2.6, width / 3) / max(len(pictures), 1)
    gap = min(_GAP, slot / 4)
    side = min(height, slot - gap)
    for picture in pictures:
        tall = side * min(1.0, picture.shape[0] / picture.shape[1])
        across = tall * picture.shape[1] / picture.shape[0]
        draw(figure.add_axes(axes(left, across, tall)), picture.numpy())
        left += across + gap
    left += _NAMES
    across = max(width - left - _VALUES - _GAP, 0.6)
    bars = figure.add_axes(axes(left, across))
    values = list(shares.values())
    bars.barh(range(len(values)), values, color=[FOR if value > 0 else AGAINST for value in values], height=0.62)
    bars.set_yticks(range(len(values)), list(shares), fontsize=8, color=QUIET, parse_math=False)
    bars.invert_yaxis()
    bars.axvline(0, color=QUIET, linewidth=0.8)
    bars.set_xticks([])
    bars.tick_params(length=0)
    for edge in bars.spines.values():
        edge.set_visible(False)
    beside = bars.get_yaxis_transform()  # numbers stand in a column at the right
    for place, value in enumerate(values):
        number = f"{value:+.2f}".replace("-", "−")
        bars.text(
            1.0 + _VALUES / across, place, number, transform=beside, va="center", ha="right", fontsize=8, color=INK
        )
