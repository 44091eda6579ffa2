"""What every method shares: the four settings, their checks, and hooks that do what LoRA does.

A method is three small classes in one file: `Method`, its settings; its layer; its rank schedule,
where ranks change while it trains. Each has few hooks, and every hook a default.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LambdaLR

from ..checks import plain, require, require_number, require_whole
from ..events import RankEvent
from ..layers import AdapterLayer, adapter_layers, unwrap


class RankSchedule:
    """What a method does to its ranks between optimizer steps; this one does nothing.

    Call `step(n)` for n = 1, 2, ... after `optimizer.step()` and before `zero_grad()`; add `loss()`
    to the training loss. layers: {qualified name: layer} of the run. gradient_scale: by how much the
    loss is scaled up before the backward pass, where a GradScaler does that. before: {name: (r,)},
    the importances that the last events were chosen by, where the method tells.
    """

    gradient_scale: float = 1.0
    before: dict[str, Tensor] | None = None

    def __init__(
        self, method: Method, model: nn.Module, optimizer: optim.Optimizer, total_steps: int
    ):
        require_whole("total_steps", total_steps, 1)
        self.method: Any = method
        self.model, self.optimizer, self.total_steps = unwrap(model), optimizer, total_steps
        self.layers: dict[str, Any] = dict(adapter_layers(self.model))
        for name, layer in self.layers.items():
            if not isinstance(layer, method.Layer):
                raise TypeError(
                    f"model: {name!r} carries a {type(layer).__name__}: allowed is a model whose "
                    f"adapters are all {method.Layer.__name__}"
                )
            if hasattr(layer.lora_A, "full_tensor"):
                raise TypeError(
                    f"model: the adapter of {name!r} is sharded: allowed are whole adapters (with "
                    "fully_shard, name their parameters in ignored_params)"
                )

    def step(self, n: int) -> list[RankEvent]:
        """Do what is due after optimizer step n; returns the events it caused."""
        return []

    def loss(self) -> float | Tensor:
        """A term to add to the training loss (a tensor where it has a gradient)."""
        return 0.0

    def state_dict(self) -> dict:
        """What a resumed run needs and neither the layers nor the optimizer hold."""
        return {}

    def prepare(self, state: dict) -> None:
        """Give model and optimizer the parameters they had when `state` was made, so that theirs
        can be loaded: for methods that add some while they train. ValueError, with nothing changed,
        for the state of another model."""

    def load_state_dict(self, state: dict) -> None:
        if state:
            raise ValueError(f"state={sorted(state)}: {type(self).__name__} keeps no state")

    def step_was_skipped(self) -> bool:
        """Whether a gradient is not finite, as after an overflow in float16, for which GradScaler
        leaves the optimizer's step out: such gradients say nothing about ranks."""
        parameters = (p for group in self.optimizer.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        return not bool(nn.utils.get_total_norm(gradients).isfinite())


@dataclass(frozen=True)
class Method:
    """Settings common to all methods; names and meanings are PEFT's.

    r: rank of the update; lora_alpha: its strength (the update is scaled by lora_alpha / r);
    lora_dropout: chance to drop an input of the adapter, in training; target_modules and
    modules_to_save: see `attach`.

    Layer and Schedule: the classes of its layers and of its rank schedule.
    """

    r: int = 8
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    modules_to_save: tuple[str, ...] | None = None

    Layer: ClassVar[type[AdapterLayer]] = AdapterLayer
    Schedule: ClassVar[type[RankSchedule]] = RankSchedule

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, bool):
                require(isinstance(value, bool), field.name, value, "True or False")
            object.__setattr__(self, field.name, plain(value))  # a sweep's come from NumPy
        require_whole("r", self.r, 1)
        require_number("lora_alpha", self.lora_alpha, "a finite number above 0", above=0)
        require_number("lora_dropout", self.lora_dropout, "a number in [0, 1)", least=0, below=1)
        if isinstance(self.target_modules, str):
            try:
                re.compile(self.target_modules)
            except re.error as error:
                raise ValueError(
                    f"target_modules={self.target_modules!r} is no regular expression: {error}"
                ) from None
        else:
            self._as_names("target_modules", "a string or a non-empty list of strings", 1)
        if self.modules_to_save is not None:
            self._as_names("modules_to_save", "None or a list of strings", 0)

    def _as_names(self, argument: str, allowed: str, least: int) -> None:
        """Make a list of names a tuple; a set in order."""
        names = getattr(self, argument)
        valid = isinstance(names, list | tuple | set) and all(isinstance(n, str) for n in names)
        require(valid and len(names) >= least, argument, names, allowed)
        in_order = sorted(names) if isinstance(names, set) else names
        object.__setattr__(self, argument, tuple(in_order))

    # --- hooks ---

    @property
    def scaling(self) -> float:
        """What the update is multiplied by."""
        return self.lora_alpha / self.r

    def parameter_groups(self, parameters: Mapping[str, nn.Parameter], lr: float) -> list[dict]:
        """The optimizer's groups for {name: trainable parameter}; a group without "lr" gets `lr`."""
        return [{"params": list(parameters.values())}]

    def lr_factor(self, n: int, warmup: int, total: int) -> float:
        """What the learning rate is multiplied by when n of `total` steps are done: a line from
        zero over the first `warmup`, then a cosine down to zero."""
        if n < warmup:
            return n / warmup
        progress = (n - warmup) / max(1, total - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    # --- what follows from them ---

    def wrap(self, base: nn.Module) -> AdapterLayer:
        """The method's layer around one linear module."""
        return self.Layer(base, self)

    def schedule(
        self, model: nn.Module, optimizer: optim.Optimizer, total_steps: int
    ) -> RankSchedule:
        """What the method does during training; see `RankSchedule`. Make it before a learning-rate
        scheduler: it may add parameter groups."""
        return self.Schedule(self, model, optimizer, total_steps)

    def lr_scheduler(self, optimizer: optim.Optimizer, warmup: int, total: int) -> LambdaLR:
        """`lr_factor` as a learning-rate scheduler, for an optimizer made with the full rates."""
        return LambdaLR(optimizer, lambda n: self.lr_factor(n, warmup, total))


def step_generator(seed: int, n: int) -> torch.Generator:
    """The random choices after step n: the same on every process and after a resume, because they
    depend on nothing else that was drawn. A CPU generator."""
    return torch.Generator().manual_seed(seed * 1_000_003 + n)
