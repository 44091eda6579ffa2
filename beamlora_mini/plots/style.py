"""One look for every picture of the series, and pictures that a screen reader can tell."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

# Safe for colour-blind readers (Okabe and Ito's palette), and told apart by line, mark or number too.
SOURCE, PRUNED, REST = "#0072B2", "#D55E00", "#8C8C8C"
COLORS = (SOURCE, PRUNED, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B5B5B", "#B8A800")
LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (8, 2)), (0, (1, 1)))
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
DPI = 200

STYLE: dict[Any, Any] = {
    "figure.figsize": (6, 3.5),
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "grid.color": "#E6E6E6",
    "axes.prop_cycle": plt.cycler(color=COLORS) + plt.cycler(linestyle=LINES),
    "font.size": 10,
}

_CARD = "background:#fff;border-radius:8px;max-width:100%;height:auto"


def figure(columns: int = 1, width: float = 6, height: float = 3.5) -> tuple[Figure, list[Axes]]:
    """A figure in the style of the series: `columns` axes side by side, sizes in inches."""
    with plt.rc_context(STYLE):
        drawn, axes = plt.subplots(1, columns, figsize=(width, height), squeeze=False)
    return drawn, list(axes[0])


def show(drawn: Figure, alt: str, caption: str = "", table: pd.DataFrame | None = None) -> None:
    """Display a figure, close it, and say the same in words: alt, read to who can't see it; a caption
    under the picture; table, unfolded on demand, the numbers that are drawn.

    What differs from machine to machine (all of it may) stands in one `<figure class="picture">`,
    which the notebook tests leave out of the comparison. ValueError without an alt text.
    """
    if not alt.strip():
        raise ValueError("alt='': say in words what the picture shows")
    if drawn.get_layout_engine() is None:
        drawn.tight_layout()
    width = round(drawn.get_figwidth() * 100)
    source = f"data:image/png;base64,{_png(drawn)}"
    parts = [f'<img alt="{html.escape(alt)}" width="{width}" style="{_CARD}" src="{source}">']
    if caption:
        parts.append(f"<figcaption><em>{html.escape(caption)}</em></figcaption>")
    if table is not None:
        parts.append(f"<details><summary>The numbers</summary>{in_html(table)}</details>")
    display(HTML(f'<figure class="picture" style="margin:0">{"".join(parts)}</figure>'))


def legend(drawn: Figure) -> None:
    """One legend for all panels, above them, and the figure as much taller: inside, its marks look like data."""
    entries = {
        label: k for axis in drawn.axes for k, label in zip(*axis.get_legend_handles_labels())
    }
    if not entries:
        return

    def fits(columns: int) -> bool:
        longest = (max(map(len, of)) for of in np.array_split(list(entries), columns))
        return sum(0.45 + 0.075 * letters for letters in longest) <= drawn.get_figwidth()

    def rows(columns: int) -> int:
        return math.ceil(len(entries) / columns)

    columns = min(filter(fits, range(1, len(entries) + 1)), key=rows, default=1)
    drawn.set_figheight(drawn.get_figheight() + 0.1 + 0.18 * rows(columns))
    drawn.set_layout_engine("constrained")
    look = {"ncols": columns, "frameon": False, "fontsize": 9}
    drawn.legend(entries.values(), entries, loc="outside upper center", **look)


def _png(drawn: Figure) -> str:
    """A figure as PNG in base64, in 256 colours that cover a heat map's rare ends too."""
    buffer, small = io.BytesIO(), io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=DPI)
    plt.close(drawn)
    few = Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    few.save(small, format="png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def in_html(table: pd.DataFrame, classes: str = "dataframe") -> str:
    """A table without its index: text to the left, and as many decimals in all numbers of a column."""

    def row(tag: str, cells: Iterable[str]) -> str:
        texts = (html.escape(cell, quote=False) for cell in cells)
        written = (f"<{tag}{look}>{text}</{tag}>" for look, text in zip(looks, texts))
        return f"<tr>{''.join(written)}</tr>"

    columns = [table.iloc[:, k].tolist() for k in range(table.shape[1])]
    looks = [
        ' style="text-align:left"' if any(isinstance(v, str) for v in of) else "" for of in columns
    ]
    body = "\n".join(row("td", cells) for cells in zip(*map(_cells, columns)))
    head = row("th", map(str, table.columns))
    return f'<table class="{classes}"><thead>{head}</thead>\n<tbody>{body}</tbody></table>'


def _cells(column: Sequence[object]) -> list[str]:
    """The cells of a column: its floats to three digits, with the decimals of the one that needs most."""
    floats = [_short(v) for v in column if isinstance(v, float) and math.isfinite(v)]
    decimals = max((len(written.partition(".")[2]) for written in floats), default=0)
    even = decimals <= 4 and "e" not in "".join(floats)

    def cell(value: object) -> str:
        if not isinstance(value, float):
            return "" if value is None else str(value)
        if math.isnan(value):
            return ""
        return f"{value:.{decimals}f}" if even else _short(value)

    return [cell(value) for value in column]


def _short(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def measured_table(rows: Sequence[Mapping[str, object]] | pd.DataFrame, caption: str = "") -> None:
    """Display measurements as a table: rows as dicts, or a DataFrame (its index is shown if it has a
    name or names). Its cells may differ from machine to machine: the class `measured` says that to
    the notebook tests."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index(names=None if any(frame.index.names) else "")
    below = f"<p><em>{html.escape(caption)}</em></p>" if caption else ""
    display(HTML(in_html(frame, "dataframe measured") + below))


def finding(sentence: str) -> None:
    """Display a sentence computed from measurements: what holds here, with these settings and on this
    machine. The notebook tests do not compare it."""
    look = f"border-left:4px solid {SOURCE};padding:.2em .8em;margin:.4em 0"
    display(HTML(f'<p class="finding" style="{look}"><b>Here:</b> {html.escape(sentence)}</p>'))


def ink_on(color: Any) -> str:
    """Black or white, whichever can be read on a colour."""
    red, green, blue = to_rgb(color)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


def spread(values: Tensor | Sequence[float], digits: int = 2) -> str:
    """Mean and extremes of some seeds' values, "0.65 (0.64 to 0.67)"; of one seed its value."""
    of = torch.as_tensor(values).double()
    mean, low, high = (round(v.item(), digits) + 0.0 for v in (of.mean(), of.min(), of.max()))
    if of.numel() == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
