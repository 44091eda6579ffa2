"""Growth in the middle of a run: what grew, the optimizer's share of it, and how to go on with it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import distributed as dist
from torch import nn, optim

from ..checks import require
from ..layers.blocks import BlockLayer
from ..machine import processes
from .base import step_generator


class GrowthPlan(NamedTuple):
    """When modules grow: every `interval` steps after step `first`, before step `total`, `at_once` of
    them; what is new warms up for `warmup` steps."""

    first: int
    interval: int
    at_once: int
    warmup: int
    total: int

    def is_event(self, n: int) -> bool:
        """Whether modules grow after step n, if there is something left to grow."""
        since = n - self.first
        return 0 < since and since % self.interval == 0 and n < self.total


def plan_growth(method: Any, total_steps: int, modules: int, missing: int) -> GrowthPlan:
    """Fill in what IncreLoRA's settings leave open. ValueError if `missing` components can't grow."""
    first = total_steps // 10 if method.init_warmup is None else method.init_warmup
    early = max(0, total_steps // 2 - first)
    interval = method.incre_interval or max(1, early // 20)
    top_h = method.top_h or max(1, math.ceil(missing / max(1, early // interval)))
    at_once = min(top_h, modules)
    growths = max(0, total_steps - 1 - first) // interval
    require(
        growths * at_once >= missing, "target_r", method.target_r,
        f"what {growths} growths of {at_once} of the {modules} modules can reach in "
        f"total_steps={total_steps} (init_warmup={first}, incre_interval={interval}, "
        f"top_h={top_h}): {missing} components are missing",
    )  # fmt: skip
    warmup = interval if method.growth_warmup is None else method.growth_warmup
    return GrowthPlan(first, interval, at_once, warmup, total_steps)


class Growth:
    """`count` parameter groups that fill one by one, as modules grow, each with a warm-up of its own.

    They lie in the optimizer from the start, empty, with the options of the group that trains the
    adapters, so that every learning-rate scheduler made afterwards counts them. A group's rate is
    the scheduler's; in the first `warmup` steps after it was filled it is lowered just for the
    optimizer's step, along a line from zero.

    done: optimizer steps so far, to be kept up to date; grown: [(step, modules)]; seed: draws what
    grows. ValueError if a scheduler has counted the optimizer's groups already, or the optimizer
    does not train the adapters.
    """

    def __init__(
        self,
        layers: Mapping[str, BlockLayer],
        optimizer: optim.Optimizer,
        count: int,
        warmup: int,
        seed: int,
    ):
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper has no hooks
        if any("initial_lr" in group for group in optimizer.param_groups):
            raise ValueError(
                "optimizer: a learning-rate scheduler has counted its parameter groups already: "
                "allowed is one without; make the method's schedule first, then the scheduler"
            )
        like = next(iter(layers.values())).blocks_A[0]
        own = [g for g in optimizer.param_groups if any(p is like for p in g["params"])]
        if not own:
            raise ValueError(
                "optimizer: it does not train the model's adapters: allowed is one made after attach"
            )
        self.layers, self.optimizer, self.seed = layers, optimizer, seed
        self.count, self.warmup, self.first = count, warmup, len(optimizer.param_groups)
        self.began = {n: (la.r, la.out_features, la.in_features) for n, la in layers.items()}
        self.done = 0
        self.grown: list[tuple[int, list[str]]] = []
        self._rates: list | None = None
        options = {key: value for key, value in own[0].items() if key != "params"}
        for _ in range(count):
            optimizer.add_param_group(options | {"params": []})
        self._lower_rates_in_steps()

    def _lower_rates_in_steps(self) -> None:
        self.optimizer.register_step_pre_hook(self._lower)
        self.optimizer.register_step_post_hook(self._restore)

    def __deepcopy__(self, memo: dict) -> Growth:
        """With its hooks, which the copy of an optimizer leaves behind."""
        twin = memo[id(self)] = copy.copy(self)
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        twin._lower_rates_in_steps()
        twin._average([p for group in twin._groups() for p in group["params"]])
        return twin

    def grow(self, n: int, names: list[str]) -> None:
        """Let these modules grow after step n."""
        generator = step_generator(self.seed, n)
        for name in names:
            self.layers[name].grow(generator)
        self._take_in(n, names)

    def _take_in(self, n: int, names: list[str]) -> None:
        """Give the optimizer what modules that have just grown gained, in the next group."""
        parameters = []
        for name in names:
            before = sum(name in earlier for _, earlier in self.grown)
            parameters += self.layers[name].of_growth(before + 1)
        self._groups()[len(self.grown)]["params"] += parameters
        self.grown.append((n, names))
        self._average(parameters)

    def _average(self, parameters: list[nn.Parameter]) -> None:
        if processes() > 1:
            for parameter in parameters:
                average_gradient(parameter)

    def _groups(self) -> list[dict]:
        return self.optimizer.param_groups[self.first : self.first + self.count]

    def _lower(self, *_) -> None:
        self._restore()  # a step that failed has left them lowered
        self._rates = [group["lr"] for group in self._groups()]
        for group, (born, _) in zip(self._groups(), self.grown):
            age = self.done + 1 - born
            if age < self.warmup:
                group["lr"] = group["lr"] * age / self.warmup

    def _restore(self, *_) -> None:
        for group, rate in zip(self._groups(), self._rates or ()):
            group["lr"] = rate
        self._rates = None

    def state_dict(self) -> dict:
        return {"began": self.began, "done": self.done, "grown": list(self.grown)}

    def load_state_dict(self, state: dict, missing: int) -> None:
        """Let grow again what had grown when the state was made, at most `missing` components more.
        ValueError, with nothing changed, for the state of another run."""
        if state["began"] != self.began:
            raise ValueError(
                "state: its run began with other modules, sizes or ranks than this model has: "
                "allowed is the model as it was then; detach(model) undoes what has grown since"
            )
        grown = [(n, list(names)) for n, names in state["grown"]]
        new = grown[len(self.grown) :]
        gained = {name: sum(name in names for _, names in grown) for name in self.layers}
        have = {name: la.r - self.began[name][0] for name, la in self.layers.items()}
        names = [name for _, names in new for name in names]
        known = grown[: len(self.grown)] == self.grown and set(names) <= self.layers.keys()
        # The layers may have grown already, where the model's state was loaded first.
        loaded = bool(new) and have == gained
        if not known or len(grown) > self.count or (len(names) > missing and not loaded):
            raise ValueError("state: its modules have grown in another way than this model's")
        for n, names in new:
            (self._take_in if loaded else self.grow)(n, names)
        self.done = state["done"]


def average_gradient(parameter: nn.Parameter) -> None:
    """Make a parameter's gradient, whenever it has one, the mean over all processes: for those that
    DistributedDataParallel, which counted the parameters when it was made, does not know. Gradients
    that add up over several backward passes stay right: what was averaged before is alike."""

    def average(p: nn.Parameter) -> None:
        gradient: Any = p.grad
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()

    parameter.register_post_accumulate_grad_hook(average)
