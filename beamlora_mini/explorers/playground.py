"""`playground`: the tiny model trained live, in the kernel, watched by the explorer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..checks import require_choice
from ..tasks import TASKS
from .settings import METHODS

if TYPE_CHECKING:
    from .widget import Playground

LANE = {
    "method": "BeamLoRA", "r": 8, "lr": 0.004, "period": 20, "p_start": 0.9, "temperature": 0.05, "snapshot_lag": 10,
}  # fmt: skip
BOTH = {"task": "subtraction", "steps": 120, "batch_size": 16, "seed": 0}


def playground(*, compare: dict[str, Any] | None = None, **settings: Any) -> Playground:
    """The tiny model trained live in the kernel: choose method, rank, rate, period and more, start, pause,
    reset, two runs side by side; the explorer follows while it runs, and the kernel stays free.

    settings: what both lanes begin with (task, steps, batch_size, seed) and what the first one does (method,
    r, lr, period, p_start, temperature, snapshot_lag); compare: what a second lane has of its own.
    `.history("a")` is the RankHistory of a lane. Closing the notebook pauses a run. BEAMLORA_WIDGETS=off in the
    environment shows a picture instead, for whoever executes notebooks without a reader.

    ValueError, by name, for a setting it does not know; ImportError without anywidget (the "lab" extra).
    """
    for lane in (settings, compare or {}):
        for name in lane:
            require_choice("settings", name, LANE if lane is compare else {**BOTH, **LANE})
        require_choice("method", lane.get("method", LANE["method"]), METHODS)
    tasks = [name for name in TASKS if name != "word_problems"]
    both = {name: settings.get(name, value) for name, value in BOTH.items()}
    require_choice("task", both["task"], tasks)
    try:
        from .widget import Playground
    except ImportError as error:
        raise ImportError(
            "the playground needs anywidget: pip install 'beamlora-mini[lab]'"
        ) from error
    first = {name: settings.get(name, value) for name, value in LANE.items()}
    given = both | {"a": first, "b": None if compare is None else first | compare}
    return Playground(given, tasks, live=os.environ.get("BEAMLORA_WIDGETS") != "off")
