"""What every method shares: the four settings, their checks, and a schedule that does nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_cosine_schedule_with_warmup

from ..adapters import AdapterLayer, require_adapters
from ..events import RankEvent


class Schedule:
    """What a method does between optimizer steps; this one does nothing.

    Call `step(n)` for n = 1, 2, ... after `optimizer.step()` and before `zero_grad()`.
    """

    def __init__(self, model: nn.Module, optimizer: optim.Optimizer, total_steps: int):
        require(
            isinstance(total_steps, int) and total_steps >= 1,
            "total_steps", total_steps, "an integer of at least 1",
        )  # fmt: skip
        self.model, self.optimizer, self.total_steps = model, optimizer, total_steps

    def step(self, n: int) -> list[RankEvent]:
        """Do what is due after optimizer step n; returns the events it caused."""
        return []

    def loss(self) -> float:
        """A term to add to the training loss (a tensor where it has a gradient)."""
        return 0.0

    def state_dict(self) -> dict:
        return {}

    def prepare(self, state: dict) -> None:
        """Give model and optimizer the parameters they had when `state` was made, so that theirs
        can be loaded: for methods that add some while they train. ValueError, with nothing changed,
        for the state of another model."""

    def load_state_dict(self, state: dict) -> None:
        if state:
            raise ValueError(f"state={sorted(state)}: {type(self).__name__} keeps no state")


def require(condition: bool, argument: str, value: object, allowed: str) -> None:
    """ValueError that names the argument, its value and what is allowed."""
    if not condition:
        raise ValueError(f"{argument}={value!r}: allowed is {allowed}")


def require_whole(settings: object, argument: str, least: int, or_none: bool = False) -> None:
    """ValueError unless settings.argument is an integer of at least `least`, or None if allowed."""
    value = getattr(settings, argument)
    valid = (or_none and value is None) or (isinstance(value, int) and value >= least)
    none = "None or " if or_none else ""
    require(valid, argument, value, f"{none}an integer of at least {least}")


def require_layers(model: nn.Module, kind: type[AdapterLayer]) -> dict[str, AdapterLayer]:
    """The model's {name: adapter}; one that is not of this kind is a TypeError."""
    layers = require_adapters(model)
    for name, layer in layers.items():
        if not isinstance(layer, kind):
            raise TypeError(
                f"model: {name!r} carries a {type(layer).__name__}: allowed is a model whose "
                f"adapters are all {kind.__name__}"
            )
    return layers


def step_generator(seed: int, n: int) -> torch.Generator:
    """The random choices after step n: the same on every process and after a resume, because they
    depend on nothing else that was drawn. A CPU generator."""
    return torch.Generator().manual_seed(seed * 1_000_003 + n)


@dataclass(frozen=True)
class Method:
    """Settings common to all methods; names and meanings are PEFT's.

    r: rank of the update; lora_alpha: its strength (the update is scaled by lora_alpha / r);
    lora_dropout: chance to drop an input of the adapter, in training; target_modules: see `attach`.
    """

    r: int = 8
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"

    def __post_init__(self):
        whole = isinstance(self.r, int) and not isinstance(self.r, bool)
        require(whole and self.r >= 1, "r", self.r, "an integer of at least 1")
        alpha = self.lora_alpha
        number = isinstance(alpha, int | float) and math.isfinite(alpha)
        require(number and alpha > 0, "lora_alpha", alpha, "a finite number above 0")
        dropout = self.lora_dropout
        number = isinstance(dropout, int | float)
        require(number and 0 <= dropout < 1, "lora_dropout", dropout, "a number in [0, 1)")
        self._check_targets()

    def _check_targets(self):
        targets = self.target_modules
        if isinstance(targets, str):
            try:
                re.compile(targets)
            except re.error as error:
                raise ValueError(
                    f"target_modules={targets!r} is no regular expression: {error}"
                ) from None
            return
        valid = isinstance(targets, list | tuple | set) and all(isinstance(t, str) for t in targets)
        require(
            valid and len(targets) > 0,
            "target_modules", targets, "a string or a non-empty list of strings",
        )  # fmt: skip
        object.__setattr__(self, "target_modules", tuple(targets))

    @property
    def scaling(self) -> float:
        return self.lora_alpha / self.r

    def wrap(self, base: nn.Module) -> AdapterLayer:
        """The method's layer around one linear module."""
        raise NotImplementedError

    def parameter_groups(self, parameters: Mapping[str, nn.Parameter], lr: float) -> list[dict]:
        """The optimizer's groups for {name: trainable parameter}; a group without "lr" gets `lr`."""
        return [{"params": list(parameters.values())}]

    def lr_scheduler(
        self, optimizer: optim.Optimizer, warmup_steps: int, total_steps: int
    ) -> LRScheduler:
        """Learning rates of a run: a linear warm-up from zero, then a cosine down to zero."""
        return get_cosine_schedule_with_warmup(optimizer, warmup_steps, total_steps)

    def schedule(self, model: nn.Module, optimizer: optim.Optimizer, total_steps: int) -> Schedule:
        """What the method does during training; see `Schedule`. Make it before a learning-rate
        scheduler: it may add parameter groups."""
        return Schedule(model, optimizer, total_steps)
