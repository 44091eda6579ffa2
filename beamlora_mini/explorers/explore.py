"""`explore`: a recorded run as a page, every rank of every module at every recorded step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..checks import require
from ..history import RankHistory
from .page import PageView, bundle, in_base64, page

MODULES = (
    "algebra.js",
    "look.js",
    "canvas.js",
    "river.js",
    "numbers.js",
    "record.js",
    "grid.js",
    "event.js",
    "reading.js",
    "explorer.js",
)
ALT = (
    "The rank explorer is a page to play with, which is not run here. Instead, the river of one of its modules: "
    "each band is a rank, as wide as its importance; some end, and others fork."
)


class ExplorerView(PageView):
    """The explorer of one recorded run."""

    title, alt = "Rank explorer", ALT

    def __init__(self, history: RankHistory, modules: Sequence[str]):
        self.history, self.modules = history, list(modules)

    def page(self) -> str:
        given = packed(self.history, self.modules)
        return page(self.title, bundle(*MODULES), "explorer", given)

    def picture(self) -> str:
        from ..plots.river import river_figure
        from ..plots.style import _png

        events = [event.module for event in self.history.events]
        drawn, _ = river_figure(self.history, max(self.modules, key=events.count))
        return _png(drawn)


def explore(history: RankHistory, modules: Sequence[str] | None = None) -> ExplorerView:
    """A page with every rank of a recorded run: a map of all modules at a step, the river of one of
    them, its lines of descent, the loss, and how each event chose who falls.

    modules: names of those to show, all of them unless given. `.save(path)` writes one file that asks
    the network for nothing. ValueError for a history without records, or a module it does not know.
    """
    history._require_recorded()
    known = list(history.importance[0])
    modules = known if modules is None else list(modules)
    for name in modules or [None]:
        require(
            name in known, "modules", name, f"names of the {len(known)} recorded, as {known[0]!r}"
        )
    return ExplorerView(history, modules)


def packed(history: RankHistory, modules: Sequence[str], since: int = 0) -> dict[str, Any]:
    """What the page is given: numbers as float32 in base64, modules by their place. since: leave the first
    so many records out, and what happened until the last of them."""
    from ..plots.maps import place_of, short_name

    ranks = max(len(of_step[name]) for of_step in history.importance for name in modules)
    places = {name: k for k, name in enumerate(modules)}

    def numbers(of_step: dict[str, Tensor]) -> np.ndarray:
        table = np.full((len(modules), ranks), np.nan, dtype="<f4")
        for name, k in places.items():
            table[k, : len(of_step[name])] = of_step[name].float().numpy()
        return table

    # What the first record shows has no event in the picture.
    earlier = history.steps[max(0, since - 1)]
    return {
        "steps": history.steps[since:],
        "losses": [round(of, 5) if math.isfinite(of) else None for of in history.losses[since:]],
        "modules": [
            {"name": name, "label": short_name(name), "block": block, "kind": kind}
            for name, (block, kind) in ((name, place_of(name)) for name in modules)
        ],
        "ranks": ranks,
        "importance": in_base64(np.stack([numbers(of_step) for of_step in history.importance[since:]])),
        "before": {n: in_base64(numbers(of)) for n, of in history.before.items() if n > earlier},
        "events": [
            {"step": e.step, "kind": e.kind, "module": places[e.module], "slot": e.slot, "source": e.source,
             "threshold": e.threshold}
            for e in history.events if e.module in places and e.step > earlier
        ],
        "pools": pools(history, earlier),
        "info": {key: history.info[key] for key in ("model", "task") if key in history.info},
    }  # fmt: skip


def pools(history: RankHistory, earlier: int = 0) -> dict[int, dict[str, Any]]:
    """For each event after the step `earlier` that chose among all modules: their importances until then,
    the highest first, and the places of those that fell. exact: they are of just before the event, not of the record before it."""
    if history.info.get("method", {}).get("scope", "global") != "global":
        return {}
    found = {}
    for step in sorted(
        {event.step for event in history.events if event.kind == "expand" and event.step > earlier}
    ):
        exact = step in history.before
        records = [k for k, of in enumerate(history.steps) if of < step]
        if not exact and not records:
            continue
        values = history.before[step] if exact else history.importance[records[-1]]
        fallen = {
            (e.module, e.slot) for e in history.events if e.step == step and e.kind == "expand"
        }
        pool = [
            (float(of[slot]), (name, slot))
            for name, of in values.items()
            for slot in range(len(of))
        ]
        pool.sort(key=lambda pair: -pair[0])
        found[step] = {
            "values": in_base64(np.array([value for value, _ in pool], dtype="<f4")),
            "fell": [place for place, (_, rank) in enumerate(pool) if rank in fallen],
            "exact": exact,
        }
    return found
