"""`arena`: a page in which a low-rank adapter trains while you watch, in the browser alone."""

from __future__ import annotations

from typing import Any

from ..history import RankHistory
from .page import PageView, bundle, page
from .settings import complete
from .twin import simulate

ENGINE = (
    "draws.js",
    "algebra.js",
    "settings.js",
    "layer.js",
    "worlds.js",
    "schedules.js",
    "engine.js",
)
MODULES = (
    *ENGINE,
    "look.js",
    "canvas.js",
    "inputs.js",
    "controls.js",
    "address.js",
    "river.js",
    "lane.js",
    "experiments.js",
    "session.js",
    "guide.js",
    "panels.js",
    "arena.js",
)
ALT = (
    "The rank arena is a page to play with, which is not run here. Instead, the river of its run: each band is a "
    "rank, as wide as its share; some end, and others fork."
)


class ArenaView(PageView):
    """The arena with settings to begin with."""

    title, alt = "Rank arena", ALT

    def __init__(self, settings: dict[str, Any]):
        self.settings = settings

    def page(self) -> str:
        return page(self.title, bundle(*MODULES), "arena", self.settings)

    def picture(self) -> str:
        from ..plots.river import busiest, river_figure
        from ..plots.style import _png

        history = RankHistory()
        simulate(history=history, **self.settings)
        drawn, _ = river_figure(history, busiest(history))
        drawn.axes[0].set_title("")
        return _png(drawn)


def arena(**settings: Any) -> ArenaView:
    """A page in which a low-rank adapter trains while you watch: all eight methods, in the browser,
    without a kernel or a network.

    settings: what the page begins with. method: one of the eight by name; world: "matrix" (a hidden
    change of rank `true_rank` of a `size` by `size` weight, noise on every example) or "plane" (a
    small net trained on the pattern `base`, adapted to `pattern`: "circle", "corners", "stripes",
    "spiral"); r, alpha (the method's lora_alpha), lr, steps, batch, seed; dead: so many ranks start
    with a = b = 0; switches: steps after which the task changes; and the method's own settings by
    their names. BeamLoRA's fill says what a free slot gets: a copy from "history", of "now", or a
    "fresh" rank. ValueError, by name, for others.

    `arena.simulate(**settings)` makes the same run by this package, in float64.
    """
    complete(**settings)
    return ArenaView(settings)


arena.simulate = simulate  # type: ignore[attr-defined]
