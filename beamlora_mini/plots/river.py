"""The rank river, the picture of this project: what became of every rank of a layer.

Time runs to the right. A band is a rank, as wide as its importance; its colour and number are the
first rank that it descends from. A fork is a copy, the pale band that ends there was pruned for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ..checks import require
from ..history import RankHistory
from .maps import BLOCK, short_name
from .style import STYLE, ink_on, show

# Paul Tol's bright scheme and an indigo: safe for colour-blind readers, and each band has its number too.
FOUNDERS = ("#4477AA", "#EE6677", "#CCBB44", "#228833", "#66CCEE", "#AA3377", "#BBBBBB", "#6B5FB5")

HOW = "Width: importance; {}: the first rank it descends from; a fork: a copy; pale: pruned in the end."


@dataclass
class Life:
    """A rank from its start or a copy to its end or the next copy into its slot."""

    slot: int
    founder: int
    born: int = 0  # the event's place among the module's events, 0 for the start
    died: int | None = None


def rank_river(
    history: RankHistory,
    module: str | None = None,
    *,
    alt: str | None = None,
    caption: str | None = None,
) -> None:
    """The river of one module; None for the one with the most events. A RankHistory that `fit` wrote holds
    the importances on both sides of an event, and so does the picture; without them an event is
    drawn from the last record before it.

    ValueError for a history without records, or a module that it does not know.
    """
    history._require_recorded()
    module = busiest(history) if module is None else module
    drawn, lives = river_figure(history, module)
    alt = alt or _in_words(history, module, lives)
    show(drawn, alt, caption or HOW.format("colour and number"), _table(history, module, lives))


def river_figure(history: RankHistory, module: str) -> tuple[Figure, list[Life]]:
    """One module's river, 8 by 3.8 inches, and the lives in it from top to bottom."""
    _require(history, module)
    with plt.rc_context(STYLE):
        drawn, axis = plt.subplots(figsize=(8, 3.8))
    lives = _draw(axis, history, module, numbered=True)
    axis.set_title(short_name(module), loc="left", fontsize=11, fontweight="bold")
    axis.set_xlabel("optimizer step")
    return drawn, lives


def busiest(history: RankHistory) -> str:
    """The module with the most copies."""
    return max(history.importance[0], key=lambda name: len(_expansions(history, name)))


def rank_rivers(
    history: RankHistory,
    modules: Sequence[str] | None = None,
    *,
    alt: str | None = None,
    caption: str | None = None,
) -> None:
    """The rivers of many modules, small: all of them, or those that are named. Modules of numbered
    blocks stand in a row for each block and a column for each kind."""
    history._require_recorded()
    modules = list(history.importance[0]) if modules is None else list(modules)
    require(bool(modules), "modules", modules, "None or a list of names")
    for module in modules:
        _require(history, module)
    cells = _cells(modules)
    rows, columns = 1 + max(r for r, _ in cells), 1 + max(c for _, c in cells)
    with plt.rc_context(STYLE):
        size = (9.5, max(1.6, rows * (1.3 if columns > 4 else 1.6)))
        drawn, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    table = []
    for module, cell in zip(modules, cells):
        axis: Axes = axes[cell]
        lives = _draw(axis, history, module, numbered=False)
        axis.set_title(short_name(module), fontsize=9, pad=2)
        left = {life.founder for life in lives if life.died is None}
        table.append({"module": module, "events": len(_expansions(history, module)),
                      "first ranks with descendants": len(left)})  # fmt: skip
    frame = pd.DataFrame(table)
    words = (
        f"{len(frame)} small rivers, one for each layer: "
        f"{int((frame.events == 0).sum())} of them had no rank replaced; of the first ranks of a layer, "
        f"{frame.iloc[:, 2].min()} to {frame.iloc[:, 2].max()} have descendants at the end."
    )
    show(drawn, alt or words, caption or HOW.format("colour"), frame)


def _color(life: Life) -> tuple[float, ...]:
    """The colour of a first rank, one of eight; the next eight have the same, darker."""
    again, place = divmod(life.founder, len(FOUNDERS))
    return tuple(part * (0.6 if again % 2 else 1) for part in to_rgb(FOUNDERS[place]))


# --- from a history to bands ---


def _require(history: RankHistory, module: str) -> None:
    known = list(history.importance[0])
    require(module in known, "module", module, f"one of the {len(known)} recorded, as {known[0]!r}")


def _expansions(history: RankHistory, module: str) -> list:
    first = history.steps[0]
    return [
        e for e in history.events if e.module == module and e.kind == "expand" and e.step > first
    ]


def _lives(history: RankHistory, module: str) -> tuple[list[Life], list[int], np.ndarray]:
    """The lives of a module from top to bottom (a copy below its source), the steps of its events, and
    who sits in which slot in each era (events + 1, r)."""
    ranks = max(len(of_step[module]) for of_step in history.importance)
    lives = [Life(slot, slot) for slot in range(ranks)]
    now, events = list(lives), _expansions(history, module)
    steps, eras = sorted({event.step for event in events}), [list(lives)]
    founders = count(ranks)  # numbers for fresh ranks
    for era, step in enumerate(steps, start=1):
        before = list(now)
        for event in (e for e in events if e.step == step):
            fresh = event.source is None
            above = before[event.slot if fresh else event.source]
            before[event.slot].died = era
            born = Life(event.slot, next(founders) if fresh else above.founder, era)
            lives.insert(lives.index(above) + 1, born)
            now[event.slot] = born
        eras.append(list(now))
    at = {id(life): k for k, life in enumerate(lives)}
    return lives, steps, np.array([[at[id(life)] for life in era] for era in eras])


def _widths(
    history: RankHistory, module: str
) -> tuple[np.ndarray, np.ndarray, list[Life], list[int]]:
    """Points in time and the width of each life at them: (n,), (lives, n). Around an event there are
    two points, before and, a little later so that it can be seen, after."""
    lives, events, eras = _lives(history, module)
    span = max(1, history.steps[-1] - history.steps[0])
    points, columns = [], []

    def add(point: float, values, era: int) -> None:
        widths = np.zeros(len(lives))
        widths[eras[era][: len(values)]] = np.asarray(values, dtype=float)
        points.append(point)
        columns.append(widths)

    recorded = dict(zip(history.steps, (of_step[module] for of_step in history.importance)))
    last = recorded[history.steps[0]]
    for step in sorted({*history.steps, *events}):
        era = sum(event < step for event in events)
        if step in events:
            before = history.before.get(step, {}).get(module, last)
            add(step, before, era)
            after = recorded.get(step)
            if after is not None:
                add(step + 0.012 * span, after, era + 1)
        else:
            add(step, recorded[step], era)
        last = recorded.get(step, last)
    order = np.argsort(points, kind="stable")
    return np.array(points)[order], np.array(columns)[order].T, lives, events


def _draw(axis: Axes, history: RankHistory, module: str, numbered: bool) -> list[Life]:
    points, widths, lives, events = _widths(history, module)
    fine = np.unique(
        np.concatenate([np.linspace(a, b, 9) for a, b in pairwise(points)] or [points])
    )
    smooth = _interpolate(points, widths, fine)
    top = smooth.sum(0).max() / 2 + smooth.sum(0) / 2
    edges = top - np.vstack([np.zeros(len(fine)), smooth.cumsum(0)])
    gap = 1.3 if numbered else 0.4
    for k, life in enumerate(lives):
        there = smooth[k] > 0
        there = there | np.roll(there, 1) | np.roll(there, -1) if there.any() else there
        pale = 0.4 if life.died is not None else 1.0
        axis.fill_between(
            fine, edges[k], edges[k + 1], where=there, fc=_color(life), alpha=pale, lw=0
        )
        for edge in (edges[k], edges[k + 1]):
            axis.plot(fine, np.where(there, edge, np.nan), color="white", ls="-", lw=gap)
    for event in events:
        axis.axvline(event, color="#444444", ls=":", lw=0.8 if numbered else 0.4, zorder=3)
    if numbered:
        _number(axis, fine, edges, smooth, lives)
    axis.set_xlim(fine[0], fine[-1])
    axis.set_ylim(0, max(1e-9, smooth.sum(0).max()))
    axis.set_yticks([])
    axis.grid(False)
    axis.spines["left"].set_visible(False)
    return lives


def _interpolate(points: np.ndarray, widths: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Widths between the points, along half a cosine: exact at the points, and where the sum is the
    same at two points it is between them."""
    if len(points) == 1:
        return widths
    left = np.clip(np.searchsorted(points, fine, side="right") - 1, 0, len(points) - 2)
    share = (fine - points[left]) / (points[left + 1] - points[left])
    share = (1 - np.cos(np.pi * share)) / 2
    return widths[:, left] * (1 - share) + widths[:, left + 1] * share


def _number(
    axis: Axes, x: np.ndarray, edges: np.ndarray, widths: np.ndarray, lives: list[Life]
) -> None:
    """The founder's number in each band, where it first has room for it and, if that is elsewhere, last."""
    for k, life in enumerate(lives):
        wide = 0.008 * (x[-1] - x[0]) * (1 + len(str(life.founder)))  # half a number
        rooms = {}  # {place: the middle and the height of the band all along a number there}
        for i in np.flatnonzero((x >= x[0] + wide) & (x <= x[-1] - wide)):
            around = slice(np.searchsorted(x, x[i] - wide), np.searchsorted(x, x[i] + wide) + 1)
            top, foot = edges[k, around].min(), edges[k + 1, around].max()
            if top - foot > 0.042 * widths.sum(0).max():
                rooms[i] = (top + foot) / 2, top - foot
        places = [min(rooms), max(rooms)] if rooms else []
        if rooms and x[places[1]] - x[places[0]] < 5 * wide:
            places = [max(rooms, key=lambda i: rooms[i][1])]
        ink = "black" if life.died is not None else ink_on(_color(life))
        for i in places:
            look = {"ha": "center", "va": "center", "fontsize": 8, "zorder": 4, "color": ink}
            axis.text(float(x[i]), rooms[i][0], str(life.founder), **look)


def _in_words(history: RankHistory, module: str, lives: list[Life]) -> str:
    events = _expansions(history, module)
    last = history.importance[-1][module]
    heirs = sorted({life.founder for life in lives if life.died is None})
    strongest = int(last.argmax())
    widest = next(life.founder for life in lives if life.died is None and life.slot == strongest)
    by = "fresh ranks" if events and all(event.source is None for event in events) else "copies"
    steps = ", ".join(str(step) for step in sorted({event.step for event in events})) or "none"
    return (
        f"River of the {len(last)} ranks of {module} over {history.steps[-1]} steps. {len(events)} ranks "
        f"were replaced by {by}, at the events at steps {steps}. At the end, descendants of the first "
        f"ranks {', '.join(map(str, heirs))} are left; the widest descends from {widest}, {last[strongest]:.2f} wide."
    )


def _table(history: RankHistory, module: str, lives: list[Life]) -> pd.DataFrame:
    """Each life: slot, first rank, from when, until when, importance at the end."""
    _, events, _ = _lives(history, module)
    last = history.importance[-1][module].tolist()
    rows = [
        {
            "rank": life.slot,
            "descends from": life.founder,
            "since step": events[life.born - 1] if life.born else history.steps[0],
            "until step": "end" if life.died is None else events[life.died - 1],
            "importance at the end": round(last[life.slot], 3) if life.died is None else None,
        }
        for life in lives
        if life.slot < len(last)
    ]
    return pd.DataFrame(rows)


def _cells(modules: list[str]) -> list[tuple[int, int]]:
    """Where each module stands: (block, kind), or four in a row where they are not of numbered blocks."""
    places = [found.groups() for found in map(BLOCK.match, modules) if found]
    if len(modules) <= 4 or len(places) < len(modules):
        return [divmod(k, min(4, len(modules))) for k in range(len(modules))]
    blocks = list(dict.fromkeys(block for block, _ in places))
    kinds = list(dict.fromkeys(kind for _, kind in places))
    return [(blocks.index(block), kinds.index(kind)) for block, kind in places]


__all__ = ["rank_river", "rank_rivers"]
