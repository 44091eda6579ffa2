"""Save a run so that it can go on after a crash as if nothing had happened."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from torch import distributed as dist

from .events import RankEvent
from .history import History, RankHistory
from .machine import processes
from .run import Run

FILE = "checkpoint.pt"


def save(folder: str | Path, run: Run, log: History, history: RankHistory | None = None) -> None:
    """Write folder/checkpoint.pt. A crash while writing leaves the one before. Of several processes,
    which are all alike, the first one writes and the others wait."""
    together = processes() > 1
    if not together or dist.get_rank() == 0:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {"run": run.state_dict(), "log": vars(log), "history": None}
        if history is not None:
            state["history"] = history.state_dict()
        torch.save(state, folder / f"{FILE}.new")
        os.replace(folder / f"{FILE}.new", folder / FILE)
    if together:
        dist.barrier()


def load(folder: str | Path, run: Run, log: History, history: RankHistory | None = None) -> None:
    """Put a saved run's state into `run`, `log` and `history`; without a checkpoint nothing happens
    but a warning.

    Raises ValueError, with nothing changed, if the file is not a whole checkpoint or is one of
    another model or of other settings.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        warnings.warn(f"resume=True: there is no {path}: the run starts anew", stacklevel=3)
        return
    try:
        with torch.serialization.safe_globals([RankEvent]):
            state = torch.load(path, map_location="cpu", weights_only=True)
        state["run"]["settings"], state["log"]
    except Exception as error:  # a damaged file raises what it likes
        raise ValueError(f"checkpoint_dir: {path} is not a readable checkpoint: {error}") from error
    try:
        run.load_state_dict(state["run"])
    except ValueError as error:
        raise ValueError(
            f"{error}; {path} is another run's: resume with the same settings, or use another "
            "checkpoint_dir"
        ) from error
    vars(log).update(state["log"])
    if history is not None and state["history"] is not None:
        history.load_state_dict(state["history"])
