"""`LiveRun`: a run in small steps, for whoever has other things to do in between."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from ..batches import Room, collate, device_of, padding_id, plan_batches, tokenizer_of
from ..history import RankHistory
from ..layers import attach
from ..loss import answer_loss
from ..methods import METHODS, Method
from ..run import Run
from ..tasks import split_of


class LiveRun:
    """What `fit` does with a copy of the model, a step at a time, recorded: same seed, same run.

    history: what was recorded; n, steps: how many steps are done, and planned.
    """

    def __init__(
        self, model: nn.Module, task: str, method: Method, *, steps: int, lr: float, batch_size: int = 16,
        seed: int = 0, every: int = 2,
    ):  # fmt: skip
        self.model = copy.deepcopy(model)
        self.history = RankHistory(every=every)
        tokenizer, room = tokenizer_of(model), Room.of(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.batches = plan_batches(
                split_of(task, "train"), tokenizer, steps, batch_size, seed, room, None
            )
            attach(self.model.train(), method)
        self.pad = padding_id(tokenizer, room)
        self.run = Run(self.model, steps=steps, lr=lr)

    @property
    def n(self) -> int:
        return self.run.n

    @property
    def steps(self) -> int:
        return self.run.steps

    def step(self) -> None:
        """One optimizer step; FloatingPointError where the loss is not finite."""
        run = self.run
        batch = collate(self.batches[run.n], self.pad, device_of(self.model))
        loss = answer_loss(self.model, batch)
        total = loss + run.loss()
        if not math.isfinite(total.item()):
            raise FloatingPointError(
                f"step {run.n + 1}: the loss is {total.item()}; lower the rate"
            )
        total.backward()
        if run.n == 0:
            self.history.record(self.model, 0)
        events = run.update()
        self.history.record(self.model, run.n, events, loss.item(), run.schedule.before)


def method_of(lane: dict[str, Any], steps: int) -> Method:
    """A method from the few settings of a lane; what they leave open suits the run."""
    name, r = lane["method"], lane["r"]
    own: dict[str, Any] = {"r": r, "lora_alpha": 2 * r}
    if name == "BeamLoRA":
        own |= {key: lane[key] for key in ("period", "p_start", "temperature", "snapshot_lag")}
    elif name == "ReLoRA":
        every = max(2, steps // 4)
        own |= {"merge_every": every, "restart_warmup": min(5, every - 1)}
    elif name == "AdaLoRA":
        own |= {"target_r": max(1, r // 2), "tinit": steps // 10, "tfinal": steps // 2, "deltaT": 5}
    elif name == "IncreLoRA":
        own |= {"target_r": 2 * r}
    return METHODS[name.lower()](**own)
