"""The charts of the series: each one call, one picture, with its numbers one click away.

Values may be tensors, arrays, lists or Series; what is measured on several seeds is (seeds, ...). Where a
function takes {label: values}, it takes {title: {label: values}} as well, for panels side by side.
Each wants `alt`, what the picture shows in words, and raises ValueError where it is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ..checks import require
from ..history import running_mean
from ..paired import compare
from .style import COLORS, LINES, MARKS, PRUNED, REST, SOURCE, figure, legend, show

LEVELS = ((0, (2, 2)), (0, (1, 4)), (0, (7, 4)))  # dashes of level lines, none of them a series'
HATCHES = ("", "//", "..", "\\\\", "xx", "--")
WIDTH = {1: 6.0, 2: 8.5}  # inches for so many panels; 9.5 for more


def curves(
    series: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str | Sequence[str],
    alt: str,
    caption: str = "",
    x: Sequence[float] | None = None,
    events: Sequence[float] = (),
    band: str = "range",
    smooth: int = 1,
    ylim: tuple[float | None, float | None] | None = None,
    logx: bool = False,
    logy: bool = False,
    lines: Mapping[str, float] | None = None,
) -> None:
    """Lines over x: values (n,), or (seeds, n), of which the mean is drawn and, with band="range", all
    from the lowest to the highest seed shaded. x: positions, 1, 2, ... if none are given; events:
    where dotted upright lines stand; smooth: width of a running mean, of the band's edges too;
    lines: {label: height}. ylabel: one for all panels, which then share a scale, or one for each.
    Series that lie on each other are named below the picture."""
    panels = _panels(series)
    drawn, axes = _figure(len(panels))
    ylabels = [ylabel] * len(axes) if isinstance(ylabel, str) else list(ylabel)
    require(len(ylabels) == len(axes), "ylabel", ylabel, "one text, or one for each panel")
    labels = list(dict.fromkeys(label for of in panels.values() for label in of))
    for axis in axes[1:] if isinstance(ylabel, str) else ():
        axis.sharey(axes[0])
    rows, covered = [], []
    for axis, (title, of), beside in zip(axes, panels.items(), ylabels):
        means = {}
        for label, values in of.items():
            k, seeds = labels.index(label), np.atleast_2d(_array(values))
            places = np.arange(1, seeds.shape[1] + 1) if x is None else _array(x)
            mean, low, high = (
                np.array(running_mean(of_seeds.tolist(), smooth))
                for of_seeds in (seeds.mean(0), seeds.min(0), seeds.max(0))
            )
            means[label] = mean
            look = {"color": COLORS[k % len(COLORS)], "ls": LINES[k % len(LINES)]}
            marker = MARKS[k % len(MARKS)] if len(places) <= 20 else None
            axis.plot(places, mean, label=label, marker=marker, ms=4, **look)
            if len(seeds) > 1 and band == "range":
                shade = {"color": look["color"], "alpha": 0.13, "lw": 0}
                axis.fill_between(places, low, high, **shade)
            extremes = zip(places, mean, low, high)
            rows += [_row(title, label) | _spread(xlabel, len(seeds), *of) for of in extremes]
        for event in events:
            axis.axvline(event, color=PRUNED, ls=":", lw=0.8)
        _finish(axis, title, xlabel, beside, lines, ylim)
        covered += _on_each_other(means)
        if logx:
            axis.set_xscale("log")
            axis.set_xticks(places, [f"{place:g}" for place in places])
            axis.minorticks_off()
        if logy:
            axis.set_yscale("log")
    if len(labels) > 1 or lines:
        legend(drawn)
    show(drawn, alt, " ".join([caption, *covered]).strip(), _thinned(pd.DataFrame(rows)))


def dots(
    groups: Mapping[str, Any],
    *,
    ylabel: str,
    alt: str,
    caption: str = "",
    xlabel: str = "",
    lines: Mapping[str, float] | None = None,
    ylim: tuple[float | None, float | None] | None = None,
) -> None:
    """A mark for each seed and a bar at their mean, for {label: (seeds,)}; for {group: {label:
    (seeds,)}} the labels of a group side by side, in one colour and mark throughout."""
    grouped = isinstance(next(iter(groups.values())), Mapping)
    within = groups if grouped else {name: {"": values} for name, values in groups.items()}
    labels = list(dict.fromkeys(label for of in within.values() for label in of))
    drawn, (axis,) = figure(width=min(9.5, max(5, 1.5 + 0.55 * sum(map(len, within.values())))))
    rows = []
    for place, (group, of) in enumerate(within.items()):
        own = [label for label in labels if label in of]
        for label, values in of.items():
            k, seeds = labels.index(label), _array(values).reshape(-1)
            at = place + (own.index(label) - (len(own) - 1) / 2) * min(0.25, 0.8 / len(labels))
            jitter = np.linspace(-0.03, 0.03, len(seeds)) if len(seeds) > 1 else np.zeros(1)
            look: dict[str, Any] = {"color": COLORS[k % len(COLORS)]}
            name = label if grouped and not _has(axis, label) else None
            mark = {"ms": 4, "alpha": 0.65, "clip_on": False, "label": name}
            axis.plot(at + jitter, seeds, MARKS[k % len(MARKS)], **mark, **look)
            axis.plot([at - 0.08, at + 0.08], [seeds.mean()] * 2, lw=2.2, ls="-", **look)
            rows.append(_row(group, label) | _spread("", len(seeds), "", *_extremes(seeds)))
    turned = sum(map(len, within)) > 11 * drawn.get_figwidth()
    turn = {"rotation": 25, "ha": "right"} if turned else {}
    axis.set_xticks(range(len(within)), list(within), **turn)
    axis.set_xlim(-0.6, len(within) - 0.4)
    axis.grid(axis="x", visible=False)
    _finish(axis, "", xlabel, ylabel, lines, ylim)
    if grouped or lines:
        legend(drawn)
    show(drawn, alt, caption, pd.DataFrame(rows).drop(columns="", errors="ignore"))


def scatter(
    points: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    alt: str,
    caption: str = "",
    lines: Mapping[str, float] | None = None,
    diagonal: bool = False,
) -> None:
    """Points {label: (x, y)}. diagonal: a line where both are equal."""
    panels = _panels(points)
    drawn, axes = _figure(len(panels))
    rows = []
    for axis, (title, of) in zip(axes, panels.items()):
        for k, (label, (x, y)) in enumerate(of.items()):
            x, y = _array(x).reshape(-1), _array(y).reshape(-1)
            look: dict[str, Any] = {
                "color": COLORS[k % len(COLORS)],
                "marker": MARKS[k % len(MARKS)],
            }
            axis.scatter(x, y, s=36, alpha=0.6, lw=0, label=label, **look)
            rows += [_row(title, label) | {xlabel: a, ylabel: b} for a, b in zip(x, y)]
        if diagonal:
            low = max(axis.get_xlim()[0], axis.get_ylim()[0])
            high = min(axis.get_xlim()[1], axis.get_ylim()[1])
            axis.plot([low, high], [low, high], color=REST, ls="--", lw=1)
        _finish(axis, title, xlabel, ylabel, lines, None)
    if lines or any(len(of) > 1 for of in panels.values()):
        legend(drawn)
    show(drawn, alt, caption, _thinned(pd.DataFrame(rows)))


def paired(
    differences: Mapping[str, Any], *, xlabel: str, alt: str, caption: str = ""
) -> pd.DataFrame:
    """Paired differences {label: (seeds,)}: a dot for each seed, a bar at the mean, and p after Holm
    over all that are shown. Returns `paired.compare` of them."""
    arrays = {label: _array(values).reshape(-1) for label, values in differences.items()}
    table = compare({label: of.tolist() for label, of in arrays.items()})
    drawn, (axis,) = figure(width=7, height=1.1 + 0.34 * len(arrays))
    for place, (label, of) in enumerate(arrays.items()):
        sure = table.holm[label] < 0.05
        axis.plot(of, [-place] * len(of), "o", ms=4, alpha=0.55, color=SOURCE if sure else REST)
        axis.plot([of.mean()] * 2, [-place - 0.28, -place + 0.28], "-", lw=2.5, color="black")
        star = " *" if sure else ""
        axis.text(1.01, -place, f"p {table.holm[label]:.2g}{star}", va="center", fontsize=9,
                  transform=axis.get_yaxis_transform())  # fmt: skip
    axis.axvline(0, color="black", lw=0.8)
    axis.set_yticks(range(0, -len(arrays), -1), list(arrays))
    axis.set_ylim(-len(arrays) + 0.4, 0.6)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(xlabel)
    below = "A dot a seed, a bar the mean; p by sign flips, after Holm over the rows, * below .05."
    show(drawn, alt, f"{caption} {below}".strip(), table.rename_axis("").reset_index())
    return table


def stacked(
    bars: Mapping[str, Mapping[str, float]], *, xlabel: str, alt: str, caption: str = ""
) -> None:
    """A bar for each label of {label: {part: amount}}, its parts end to end, and the sum beside it
    unless all sums are alike."""
    table = pd.DataFrame({label: pd.Series(parts) for label, parts in bars.items()}).T.fillna(0.0)
    drawn, (axis,) = figure(width=8, height=1.4 + 0.42 * len(table))
    left = np.zeros(len(table))
    for k, part in enumerate(table.columns):
        look: dict[str, Any] = {
            "color": COLORS[k % len(COLORS)],
            "hatch": HATCHES[k % len(HATCHES)],
        }
        axis.barh(range(len(table)), table[part], left=left, label=part, ec="white", lw=0.8, **look)
        left = left + table[part].to_numpy()
    alike = len(left) > 1 and np.allclose(left, left[0])
    for place, total in enumerate(() if alike else left):
        axis.text(total, place, f" {total:.3g}", va="center", fontsize=9)
    axis.set_yticks(range(len(table)), [str(label) for label in table.index])
    axis.invert_yaxis()
    axis.set_xlim(0, (1.0 if alike else 1.12) * left.max())
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(xlabel)
    legend(drawn)
    show(drawn, alt, caption, table.rename_axis("").reset_index())


# --- what they share ---


def _array(values: Any) -> np.ndarray:
    """Values of any kind as a float array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double()
    elif isinstance(values, list | tuple) and any(hasattr(v, "detach") for v in values):
        values = [v.detach().cpu().double().numpy() for v in values]
    return np.asarray(values, dtype=float)


def _panels(series: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    nested = isinstance(next(iter(series.values())), Mapping)
    return series if nested else {"": series}


def _figure(panels: int):
    return figure(panels, width=WIDTH.get(panels, 9.5), height=3.5 if panels < 3 else 3.0)


def _finish(
    axis: Axes,
    title: str,
    xlabel: str,
    ylabel: str,
    lines: Mapping[str, float] | None,
    ylim: tuple[float | None, float | None] | None,
) -> None:
    for k, (label, height) in enumerate((lines or {}).items()):
        axis.axhline(height, color="#333333", lw=1, ls=LEVELS[k % len(LEVELS)], label=label)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if ylim:
        axis.set_ylim(*ylim)


def _on_each_other(means: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence for each two lines that can't be told apart: on average within 1 % of what is drawn."""
    reach = max(np.ptp(np.concatenate(list(means.values()))), 1e-12)
    return [
        f"\u201c{a}\u201d and \u201c{b}\u201d lie on each other."
        for a, b in combinations(means, 2)
        if means[a].shape == means[b].shape and abs(means[a] - means[b]).mean() < 0.01 * reach
    ]


def _has(axis: Axes, label: str) -> bool:
    return label in axis.get_legend_handles_labels()[1]


def _row(title: str, label: str) -> dict:
    return {key: value for key, value in (("panel", title), ("series", label)) if value}


def _extremes(seeds: np.ndarray) -> tuple[float, float, float]:
    return seeds.mean(), seeds.min(), seeds.max()


def _spread(xlabel: str, seeds: int, x: Any, mean: float, low: float, high: float) -> dict:
    middle = {xlabel: x, "mean" if seeds > 1 else "value": mean}
    return middle | ({"lowest": low, "highest": high} if seeds > 1 else {})


def _thinned(table: pd.DataFrame, most: int = 60) -> pd.DataFrame:
    """Every k-th row of each series of a long table, its first and last row among them."""
    names = [name for name in ("panel", "series") if name in table]
    series = [of for _, of in table.groupby(names, sort=False)] if names else [table]
    each = max(2, most // len(series))
    kept = [
        of.iloc[np.unique(np.linspace(0, len(of) - 1, each).round().astype(int))] for of in series
    ]
    return pd.concat(kept) if len(table) > most else table


__all__ = ["curves", "dots", "paired", "scatter", "stacked"]
