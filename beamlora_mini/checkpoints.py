"""Save a run so that it can go on after a crash as if nothing had happened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from .adapters import trainable_parameters
from .events import RankEvent

FILE = "checkpoint.pt"


class Run(NamedTuple):
    """What a training run is made of: everything that changes from step to step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    rate: torch.optim.lr_scheduler.LRScheduler
    schedule: Any
    record: Any
    history: Any  # a RankHistory, or None


def save(folder: str | Path, run: Run, settings: dict, step: int) -> None:
    """Write folder/checkpoint.pt. A crash while writing leaves the one before."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "settings": settings,
        "parameters": {name: p.detach() for name, p in trainable_parameters(run.model).items()},
        "optimizer": run.optimizer.state_dict(),
        "rate": run.rate.state_dict(),
        "schedule": run.schedule.state_dict(),
        "record": vars(run.record),
        "history": run.history and run.history.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all(),
    }
    torch.save(state, folder / f"{FILE}.new")
    os.replace(folder / f"{FILE}.new", folder / FILE)


def load(folder: str | Path, run: Run, settings: dict) -> int:
    """Put a saved run's state into `run`; returns the step it had reached, 0 without a checkpoint.

    Raises ValueError, with nothing changed, if the file is not a whole checkpoint or is one of
    another model or of other settings.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return 0
    try:
        with torch.serialization.safe_globals([RankEvent]):
            state = torch.load(path, map_location="cpu", weights_only=True)
        saved, parameters = state["settings"], state["parameters"]
    except Exception as error:  # a damaged file raises what it likes
        raise ValueError(f"checkpoint_dir: {path} is not a readable checkpoint: {error}") from error
    for name, value in settings.items():
        if saved.get(name) != value:
            raise ValueError(
                f"{name}={value!r}: {path} was written with {name}={saved.get(name)!r}; resume with "
                "the same settings, or use another checkpoint_dir"
            )
    run.schedule.prepare(state["schedule"])
    present = trainable_parameters(run.model)
    shapes = {name: tuple(p.shape) for name, p in present.items()}
    differing = shapes.items() ^ {name: tuple(t.shape) for name, t in parameters.items()}.items()
    if differing:
        name, shape = min(differing)
        raise ValueError(
            f"checkpoint_dir: {path} is of another model: {len(differing)} parameters differ, the "
            f"first is {name!r} of shape {shape}"
        )
    with torch.no_grad():
        for name, parameter in present.items():
            parameter.copy_(parameters[name])
    run.optimizer.load_state_dict(state["optimizer"])
    run.rate.load_state_dict(state["rate"])
    run.schedule.load_state_dict(state["schedule"])
    vars(run.record).update(state["record"])
    if run.history is not None and state["history"] is not None:
        run.history.load_state_dict(state["history"])
    torch.set_rng_state(state["rng"])
    if len(state["cuda_rng"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda_rng"])
    return state["step"]
