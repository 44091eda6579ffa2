"""What one measure costs in another: paths through the plane of the two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .charts import _array, _row
from .style import COLORS, LINES, MARKS, REST, figure, show


def paths(
    series: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    alt: str,
    caption: str = "",
    logy: bool = False,
    upright: Mapping[str, float] | None = None,
) -> None:
    """{label: (x, y)}, each (n,) or (seeds, n), such as what was learned and what was lost at n settings in
    their order: a faint mark for each run, and a line through the means that ends in a large mark at the
    last setting. One setting draws marks alone. upright: {label: x} of lines that cross the paths.

    ValueError where x and y of a label differ in shape.
    """
    drawn, (axis,) = figure(width=7.5, height=4)
    rows = []
    for k, (label, pair) in enumerate(series.items()):
        x, y = (np.atleast_2d(_array(values)) for values in pair)
        if x.shape != y.shape:
            raise ValueError(f"{label!r}: x is {x.shape} and y {y.shape}: allowed is one shape")
        mark, color = MARKS[k % len(MARKS)], COLORS[k] if k < len(COLORS) else "black"
        axis.plot(x.ravel(), y.ravel(), mark, color=color, ms=3.5, alpha=0.35, mew=0)
        look: dict[str, Any] = {"color": color, "ls": LINES[k % len(LINES)], "lw": 1.6}
        axis.plot(x.mean(0), y.mean(0), label=label, marker=mark, ms=3, **look)
        axis.plot(x.mean(0)[-1:], y.mean(0)[-1:], mark, color=color, ms=8)
        ends = zip(x.mean(0), y.mean(0), y.min(0), y.max(0))
        rows += [_row("", label) | _place(xlabel, ylabel, len(y), *of) for of in ends]
    for label, place in (upright or {}).items():
        axis.axvline(place, color=REST, lw=1, ls=":", label=label)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if logy:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
    if len(series) > 1 or upright:
        axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    show(drawn, alt, caption, pd.DataFrame(rows))


def _place(xlabel: str, ylabel: str, seeds: int, x: float, y: float, low: float, high: float):
    middle = {xlabel: x, ylabel: y}
    return middle | ({"lowest": low, "highest": high} if seeds > 1 else {})


__all__ = ["paths"]
