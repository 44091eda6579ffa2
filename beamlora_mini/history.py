"""What every rank did, step by step: `RankHistory`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .checks import require, require_choice, require_whole
from .events import RankEvent
from .layers import AdapterLayer, require_adapters, unwrap
from .ranks.choosing import to_cpu

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class History:
    """What a run of `fit` did, one entry a step: losses, learning rates, events of the method's
    schedule; and in total: seconds, tokens seen (padding not counted)."""

    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    events: list = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0

    def add(self, loss: float, learning_rate: float, events: list[RankEvent], tokens: int) -> None:
        """A step."""
        self.losses.append(loss)
        self.learning_rates.append(learning_rate)
        self.events += events
        self.tokens += tokens

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def running_mean(values: Sequence[float], width: int = 20) -> list[float]:
    """Mean of the last `width` values at every step, fewer at the start: a loss curve to read."""
    windows = (values[max(0, n - width) : n] for n in range(1, len(values) + 1))
    return [sum(window) / len(window) for window in windows]


class RankHistory:
    """The importance of every rank of every adapter every `every` optimizer steps, the loss of
    those steps, and all events.

    Hand it to `fit`, or call `record` after each step of your own loop. measures: what else to
    record, {name: function of a layer that returns (r,)}, as one of `ranks` by which to compare.

    steps: the recorded ones; importance: for each of them {module: (r,)}; measured: for each of them
    {name of a measure: {module: (r,)}}; losses: for each of them a number, NaN where none was given;
    events: list of `RankEvent`; before: {step with events: {module: (r,)}}, the importances that they
    were chosen by, where the method says them; info: whatever is worth keeping with a run (command,
    versions, device), saved with it.

    Raises ValueError for a measure that is no function, or named like a column of `to_pandas`.
    """

    def __init__(
        self,
        every: int = 10,
        measures: Mapping[str, Callable[[AdapterLayer], Tensor]] | None = None,
    ):
        self.every = require_whole("every", every, 1)
        self.measures = dict(measures or {})
        for name, measure in self.measures.items():
            free = isinstance(name, str) and name not in (*_FACTS, "step", "module", "rank")
            require(
                free and callable(measure),
                "measures",
                {name: measure},
                "{name: function of a layer}",
            )
        self.steps: list[int] = []
        self.importance: list[dict[str, Tensor]] = []
        self.measured: list[dict[str, dict[str, Tensor]]] = []
        self.losses: list[float] = []
        self.events: list[RankEvent] = []
        self.before: dict[int, dict[str, Tensor]] = {}
        self.info: dict = {}

    @torch.no_grad()
    def record(
        self,
        model: nn.Module,
        step: int,
        events: Iterable[RankEvent] = (),
        loss: float = float("nan"),
        before: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Keep a step's events and, if it is one of every `every`, importance, measures and loss.

        before: what the events were chosen by, `run.schedule.before`: with it a picture shows both
        sides of an event. Raises ValueError, with nothing recorded, where a measure is not (r,).
        """
        events = list(events)
        if step % self.every == 0:
            layers = require_adapters(unwrap(model))
            importance = _by_module(layers, [layer.rank_importance() for layer in layers.values()])
            measured = {}
            for name, measure in self.measures.items():
                values = {module: measure(layer) for module, layer in layers.items()}
                for module, of in values.items():
                    shape, wanted = tuple(of.shape), tuple(importance[module].shape)
                    if shape != wanted:
                        raise ValueError(
                            f"measures: {name!r} of {module!r} is of shape {shape}: allowed is {wanted}"
                        )
                measured[name] = _by_module(layers, list(values.values()))
            self.steps.append(step)
            self.importance.append(importance)
            self.measured.append(measured)
            self.losses.append(loss)
        self.events += events
        if events and before is not None:
            self.before[step] = {name: values.float() for name, values in before.items()}

    def to_pandas(self, what: str = "importance") -> pd.DataFrame:
        """A table of "importance" (step, module, rank, importance, and a column for each measure),
        "before" (step, module, rank, importance), "events" (the fields of `RankEvent`) or "loss"
        (step, loss)."""
        import pandas as pd

        if what == "events":
            return pd.DataFrame(self.events, columns=RankEvent._fields)
        if what == "loss":
            return pd.DataFrame({"step": self.steps, "loss": self.losses})
        require_choice("what", what, ("importance", "before", "events", "loss"))
        columns = ["step", "module", "rank", "importance"]
        if what == "before":
            return pd.DataFrame(_rows(self.before.items()), columns=columns)
        table = pd.DataFrame(_rows(zip(self.steps, self.importance)), columns=columns)
        names = self.measured[0] if self.measured else {}
        for name in names:
            table[name] = [
                value
                for of_step in self.measured
                for values in of_step[name].values()
                for value in values.tolist()
            ]
        return table

    def lineage(self) -> pd.DataFrame:
        """Which of the first ranks each rank descends from: columns step, module, rank, ancestor.

        One block of rows for the first recorded step and one for every step with an event. A rank
        that was expanded into takes over the ancestor of its source; one that grew is its own, and so is
        one that came fresh into a slot (an "expand" without a source), with the next free number.
        """
        import pandas as pd

        self._require_recorded()
        first = {module: list(range(len(values))) for module, values in self.importance[0].items()}
        ancestors = {module: list(ranks) for module, ranks in first.items()}
        blocks = {self.steps[0]: ancestors}
        numbers = {module: count(len(ranks)) for module, ranks in first.items()}  # of fresh ranks
        by_step: dict[int, list[RankEvent]] = {}
        for event in self.events:
            if event.step > self.steps[0]:  # else the first record has seen it
                by_step.setdefault(event.step, []).append(event)
        for step, events in sorted(by_step.items()):
            before = ancestors
            ancestors = {module: list(ranks) for module, ranks in before.items()}
            for event in events:
                if event.kind == "expand":
                    fresh = event.source is None
                    ancestor = (
                        next(numbers[event.module]) if fresh else before[event.module][event.source]
                    )
                    ancestors[event.module][event.slot] = ancestor
                elif event.kind == "grow":
                    ancestors[event.module].append(event.slot)
            blocks[step] = ancestors
        rows = [
            (step, module, rank, ancestor)
            for step, modules in blocks.items()
            for module, ranks in modules.items()
            for rank, ancestor in enumerate(ranks)
        ]
        return pd.DataFrame(rows, columns=["step", "module", "rank", "ancestor"])

    def _require_recorded(self) -> None:
        if not self.steps:
            raise ValueError(
                "history: nothing is recorded: call record(model, step), or give it to fit"
            )

    def state_dict(self) -> dict:
        kept = {
            name: value for name, value in vars(self).items() if name not in ("every", "measures")
        }
        return kept | {"info": json.dumps(self.info, default=str)}

    def load_state_dict(self, state: dict) -> None:
        vars(self).update(state | {"info": json.loads(state["info"])})

    def save(self, path: str | Path) -> None:
        """Write one Parquet file, a row for each fact: column `what` says whether it is an
        "importance", a "before" or a measure by its name (step, module, rank, value), a "loss" (step,
        value) or the `kind` of an event (step, module, rank, source, threshold, score_before,
        score_after)."""
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._require_recorded()
        wide = self.to_pandas()
        names = list(wide.columns[3:])
        facts = wide.melt(["step", "module", "rank"], names, var_name="what", value_name="value")
        before = self.to_pandas("before").rename(columns={"importance": "value"})
        loss = self.to_pandas("loss").rename(columns={"loss": "value"}).assign(what="loss")
        events = self.to_pandas("events").rename(columns={"kind": "what", "slot": "rank"})
        frames = [facts, before.assign(what="before"), loss, events]
        columns = ["what", "step", "module", "rank", "value", *_EVENT_NUMBERS]
        table = pd.concat([f.reindex(columns=columns) for f in frames if len(f)])
        integers = {name: "Int32" for name in ("step", "rank", "source")}
        table = table.astype(integers | {"value": "float32"} | {"what": str})
        about = {"every": self.every, "info": self.info, "measures": names[1:]}
        metadata = {"beamlora_mini": json.dumps(about, default=str)}
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        pq.write_table(arrow.replace_schema_metadata(metadata), path, compression="zstd")

    @classmethod
    def load(cls, path: str | Path) -> RankHistory:
        """Read what `save` wrote. Raises FileNotFoundError, or ValueError for another file."""
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not Path(path).is_file():
            raise FileNotFoundError(f"path={str(path)!r}: there is no such file")
        try:
            arrow = pq.read_table(path)
            kept = json.loads(arrow.schema.metadata[b"beamlora_mini"])
        except (pa.ArrowException, KeyError, TypeError, OSError) as error:
            raise ValueError(f"path={str(path)!r}: not a saved RankHistory: {error}") from error
        table = arrow.to_pandas()
        history = cls(kept["every"])
        history.info = kept["info"]
        loss = table[table.what == "loss"]
        history.steps, history.losses = loss.step.tolist(), loss.value.tolist()
        history.importance = list(_of_steps(table, "importance").values())
        history.before = _of_steps(table, "before")
        measures = {name: _of_steps(table, name).values() for name in kept.get("measures", [])}
        of_each_step = zip(*measures.values()) if measures else [()] * len(history.steps)
        history.measured = [dict(zip(measures, values)) for values in of_each_step]
        events = table[~table.what.isin([*_FACTS, *measures])]
        for row in events.itertuples():
            slot, source = (None if pd.isna(v) else int(v) for v in (row.rank, row.source))
            numbers = (
                None if pd.isna(v) else float(v)
                for v in (row.threshold, row.score_before, row.score_after)
            )  # fmt: skip
            history.events.append(
                RankEvent(int(row.step), row.what, row.module, slot, source, *numbers)
            )
        return history


_EVENT_NUMBERS = ("source", "threshold", "score_before", "score_after")
_FACTS = ("importance", "before", "loss")


def _by_module(layers: Iterable[str], values: list[Tensor]) -> dict[str, Tensor]:
    return {name: v.float() for name, v in zip(layers, to_cpu(values))}


def _rows(of_steps: Iterable[tuple[int, Mapping[str, Tensor]]]) -> Iterator[tuple]:
    for step, modules in of_steps:
        for module, values in modules.items():
            for rank, value in enumerate(values.tolist()):
                yield step, module, rank, value


def _of_steps(table: pd.DataFrame, what: str) -> dict[int, dict[str, Tensor]]:
    """{step: {module: (r,)}} of the rows of a saved table that say `what`."""
    return {
        int(step): {
            module: torch.tensor(values.tolist())
            for module, values in of_step.groupby("module", sort=False).value
        }
        for step, of_step in table[table.what == what].groupby("step")
    }
