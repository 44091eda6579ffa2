"""Heat maps that can be read: layers by name, grouped by block, numbers in their cells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, NullLocator

from .charts import _array
from .style import figure, ink_on, show

BLOCK = re.compile(r"^(?:.*?\.)?(\d+)\.(.+)$")


def short_name(module: str) -> str:
    """A layer's name as a picture shows it: "model.layers.3.self_attn.q_proj" is "3 q_proj"."""
    found = BLOCK.match(module)
    return f"{found[1]} {found[2].rsplit('.', 1)[-1]}" if found else module


def place_of(module: str) -> tuple[int | None, str]:
    """A layer's block, None where it is in no numbered one, and its kind: 3 and "q_proj"."""
    found = BLOCK.match(module)
    return (int(found[1]) if found else None), module.rsplit(".", 1)[-1]


def by_place(values: Mapping[str, Any]) -> pd.DataFrame:
    """{module: number} as a table with a row for each block and a column for each kind of layer."""
    places = {name: BLOCK.match(name) for name in values}
    for name in (name for name, found in places.items() if not found):
        raise ValueError(
            f"values: {name!r} is in no numbered block: allowed are names like layers.0.q_proj"
        )
    rows = [
        (int(found[1]), found[2].rsplit(".", 1)[-1], float(values[name]))
        for name, found in places.items()
        if found
    ]
    table = pd.DataFrame(rows, columns=["block", "kind", "value"])
    kinds = list(dict.fromkeys(table.kind))
    return table.pivot(index="block", columns="kind", values="value").reindex(columns=kinds)


def heatmap(
    values: Any,
    *,
    label: str,
    alt: str,
    caption: str = "",
    rows: Any = None,
    columns: Any = None,
    xlabel: str = "",
    ylabel: str = "",
    numbers: str | None = None,
    center: float | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
) -> None:
    """A matrix (rows, columns) as a map: a tensor, an array, a DataFrame (its index and columns are the
    names), {module: (r,)} with a row for each layer, {module: number} with a row for each block, or {title:
    any of these} for panels that share one scale.

    label: what the colour means; rows, columns: names, where `values` has none; numbers: how to write
    each value into its cell, as ".2f", written without being asked where there is room; center: the
    value of the middle of a two-coloured map, whose scale reaches as far below it as above, in multiples
    where it and all values are above zero. What is not a number is hatched.
    """
    panels = {t: _frame(v, rows, columns) for t, v in _split(values).items()}
    every = np.concatenate([frame.to_numpy(dtype=float).ravel() for frame in panels.values()])
    low = np.nanmin(every) if vmin is None else vmin
    high = np.nanmax(every) if vmax is None else vmax
    scale = {"vmin": low, "vmax": high, "cmap": "Blues"}
    if center is not None:
        reach = max(high - center, center - low)
        scale = {"vmin": center - reach, "vmax": center + reach, "cmap": "PuOr"}
    if center is not None and min(center, low) > 0:
        reach = max(high / center, center / low)
        scale = {"norm": LogNorm(center / reach, center * reach), "cmap": "PuOr"}
    tall, wide = max(map(len, panels.values())), max(f.shape[1] for f in panels.values())
    width = min(9.5, 2.2 + len(panels) * max(1.6, 0.42 * wide))
    drawn, axes = figure(len(panels), width=width, height=min(11, 1.3 + max(1.4, 0.2 * tall)))
    drawn.set_layout_engine("constrained")
    room = wide * len(panels) <= 28 and tall <= 40
    for k, (axis, (title, frame)) in enumerate(zip(axes, panels.items())):
        image = _map(
            axis, frame, scale, (numbers or "") if room or numbers else None, k == 0, len(panels)
        )
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel if k == 0 else "")
    bar = drawn.colorbar(
        image, ax=axes, shrink=1 if tall < 12 else 0.5, extend=_beyond(image, every)
    )
    bar.set_label(label, fontsize=9)
    if "norm" in scale:
        bar.ax.yaxis.set_major_locator(LogLocator(2, numticks=12))
        bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.ax.yaxis.set_minor_locator(NullLocator())
    tables = [
        f.reset_index(names="").assign(panel=t) if t else f.reset_index(names="")
        for t, f in panels.items()
    ]
    show(drawn, alt, caption, pd.concat(tables))


def _map(
    axis: Axes, frame: pd.DataFrame, scale: dict, numbers: str | None, named: bool, panels: int
):
    grid = frame.to_numpy(dtype=float)
    image = axis.imshow(grid, aspect="auto", interpolation="nearest", **scale)
    axis.grid(False)
    axis.patch.set(facecolor="#EEEEEE", edgecolor="#C8C8C8", hatch="////", lw=0)
    axis.spines[:].set_visible(False)
    names = [str(name) for name in frame.columns]
    inches = axis.get_figure(root=True).get_figwidth() * 0.72 / panels  # type: ignore[union-attr]
    crowded = sum(len(name) + 1 for name in names) * 0.085 > inches
    turn: dict[str, Any] = (
        {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    )
    if crowded and inches < 0.35 * len(names):
        turn = {"rotation": 90}
    axis.set_xticks(range(len(names)), names, fontsize=8, **turn)
    shown = [short_name(str(name)) for name in frame.index] if named else []
    axis.set_yticks(range(len(shown)), shown, fontsize=8)
    axis.tick_params(length=0)
    blocks = [BLOCK.match(str(name)) for name in frame.index]
    for row in range(1, len(blocks)):
        before, here = blocks[row - 1], blocks[row]
        if before and here and before[1] != here[1]:
            axis.axhline(row - 0.5, color="white", lw=2.5)
    if numbers is not None:
        style = numbers or (".0f" if np.allclose(grid, grid.round(), equal_nan=True) else ".2f")
        for (row, column), value in np.ndenumerate(grid):
            if np.isfinite(value):
                ink = ink_on(tuple(image.cmap(image.norm(value))))
                text = f"{value:{style}}"
                axis.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    return image


def _beyond(image: AxesImage, every: np.ndarray) -> str:
    """At which ends of the scale there are values outside it, as `colorbar` calls them."""
    low, high = (np.nanmin(every) < image.norm.vmin, np.nanmax(every) > image.norm.vmax)
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get(
        (low, high), "neither"
    )


def _split(values: Any) -> Mapping[str, Any]:
    """Panels by title: one without a title, unless each value is a matrix of its own."""
    if not isinstance(values, Mapping):
        return {"": values}
    first = next(iter(values.values()))
    several = isinstance(first, Mapping | pd.DataFrame) or np.ndim(_array(first)) == 2
    return values if several else {"": values}


def _frame(values: Any, rows: Any, columns: Any) -> pd.DataFrame:
    if isinstance(values, pd.DataFrame):
        return values
    if isinstance(values, Mapping):
        if np.ndim(_array(next(iter(values.values())))) == 0:
            return by_place(values)
        grid = pd.DataFrame([_array(v) for v in values.values()], index=list(values))
        return grid if columns is None else grid.set_axis(list(columns), axis=1)
    grid = _array(values)
    down, across = (None if given is None else list(given) for given in (rows, columns))
    return pd.DataFrame(grid, index=down, columns=across)
