"""The playground's widget: its page (playground.js) and the runs in the kernel speak by messages."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anywidget
import traitlets

from ..history import RankHistory
from ..models import load_model
from .explore import MODULES, packed
from .live import LiveRun, method_of
from .page import bundle, figure, stored_picture

PATIENCE = 90  # seconds without a sign of the page until a run is paused: somebody closed it
SENT = 4  # steps from one message to the page to the next
NAME = "<the playground: the tiny model trained live, in the kernel>"
ALT = (
    "The playground, which needs a running kernel: run this cell to use it. The picture shows its settings, the loss of "
    "two runs, the map of all layers' ranks and the river of one layer, as they look when a run is over."
)


class Playground(anywidget.AnyWidget):
    """Two lanes at most, each a run of the tiny model. Made by `playground`.

    settings: those of both lanes and, under "a" and "b", of each; status: running, step, error.
    """

    _esm = (
        bundle(*MODULES, "settings.js", "inputs.js", "playground.js")
        + "\nexport default { render };\n"
    )
    settings = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)
    tasks = traitlets.List().tag(sync=True)

    def __init__(self, settings: dict[str, Any], tasks: list[str], live: bool = True):
        self.runs: dict[str, LiveRun] = {}
        self._sent: dict[str, tuple[int, int]] = {}  # {lane: records sent, ranks they had}
        self._live, self._base, self._task, self._heard = live, None, None, 0.0
        status = {"running": False, "step": 0, "error": ""}
        super().__init__(settings=settings, tasks=tasks, status=status)
        self.on_msg(lambda _, message, __: self.hear(message))
        self.observe(lambda _: self.reset(), "settings")

    # --- what the reader does, here or in the page ---

    def hear(self, message: dict[str, Any]) -> None:
        """What the page asks for: start, pause, reset; or that it is there."""
        self._heard = time.monotonic()
        asked = message.get("do")
        if asked in ("start", "pause", "reset"):
            getattr(self, asked)()
        elif asked == "hello":
            self._sent = {}
            self._tell()

    def start(self) -> None:
        """Begin, or go on, in the kernel's event loop; RuntimeError where none runs."""
        loop = asyncio.get_running_loop()
        if not self.status["running"]:
            self._heard = time.monotonic()
            self._say(running=True, error="")
            self._task = loop.create_task(self._train())

    def pause(self) -> None:
        """Stop after the step that is being made; `start` goes on from there."""
        self._say(running=False)

    def reset(self) -> None:
        """Forget the runs; the next start begins anew, with the same seed from the same start."""
        self.runs, self._sent = {}, {}
        self._say(running=False, step=0, error="")
        self.send({"clear": True})

    def history(self, lane: str = "a") -> RankHistory:
        """What was recorded of a lane so far: save it, or show it with `explore`. KeyError before the start."""
        return self.runs[lane].history

    # --- training, in small steps ---

    def _begin(self) -> None:
        self.runs, self._sent = {}, {}
        self.send({"clear": True})  # else the page waits for more of a run that has ended
        both = {key: value for key, value in self.settings.items() if key not in ("a", "b")}
        self._base = self._base or load_model("tiny", device="cpu")[0]
        for lane in ("a", "b"):
            own = self.settings[lane]
            if own is not None:
                method = method_of(own, both["steps"])
                self.runs[lane] = LiveRun(
                    self._base, both["task"], method, steps=both["steps"], lr=own["lr"],
                    batch_size=both["batch_size"], seed=both["seed"],
                )  # fmt: skip

    async def _train(self) -> None:
        try:
            if not self.runs or all(run.n == run.steps for run in self.runs.values()):
                self._begin()
            runs = self.runs
            while self.status["running"] and runs is self.runs:
                behind = [run for run in runs.values() if run.n < run.steps]
                if not behind or time.monotonic() - self._heard > PATIENCE:
                    break
                for run in behind:
                    run.step()
                if behind[0].n % SENT == 0 or behind[0].n == behind[0].steps:
                    self._tell()
                await asyncio.sleep(0.005)  # whatever else the kernel has to do
            if runs is self.runs:
                self._tell()
                self._say(running=False)
        except (ValueError, FloatingPointError) as error:
            self.runs = {}
            self._say(running=False, error=str(error))

    def _say(self, **changes: Any) -> None:
        step = max((run.n for run in self.runs.values()), default=0)
        self.status = {**self.status, "step": step, **changes}

    def _tell(self) -> None:
        """Send the page what was recorded since the last time."""
        for lane, run in self.runs.items():
            history = run.history
            if not history.steps:
                continue
            modules = list(history.importance[0])
            count, ranks = self._sent.get(lane, (0, 0))
            widest = max(len(values) for values in history.importance[-1].values())
            if widest != ranks:
                self.send({"lane": lane, "record": packed(history, modules) | {"total": run.steps}})
            elif len(history.steps) > count:
                self.send({"lane": lane, "more": packed(history, modules, since=count)})
            self._sent[lane] = len(history.steps), widest
        self._say()

    # --- how it is shown ---

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        png = stored_picture("playground")
        if not self._live:
            return {"text/html": figure(png, ALT), "text/plain": NAME}
        shown = super()._repr_mimebundle_(**kwargs)
        data, metadata = shown if isinstance(shown, tuple) else (shown or {}, {})
        return {**data, "image/png": png, "text/plain": NAME}, metadata

    def __repr__(self) -> str:
        return NAME
