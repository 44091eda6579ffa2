"""IncreLoRA (Zhang, Li, Chen, Jiang, Wang, Qian, arXiv 2308.12043): start small and grow where it
pays.

The other way round from AdaLoRA: every module starts with r components (a rank each, written as
B diag(E) A), and now and then the modules whose update the loss is most sensitive to get one more,
until there are target_r a module on average. So that a new component may be of use at once, each
module trains one in reserve, with an E too small to matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn, optim
from torch import distributed as dist

from ..checks import is_whole, require, require_whole
from ..events import RankEvent
from ..layers.blocks import BlockLayer
from ..layers.watch import WeightGradient
from ..machine import processes
from ..ranks import SmoothedSensitivity
from .adalora import orthogonality, require_smoothing
from .base import Method, RankSchedule
from .growing import Growth, plan_growth

RESERVE_E = 1e-5


class IncreLoRALinear(BlockLayer):
    """y = W x + b + s B (E * (A x)), summed over r active components and one in reserve.

    s = alpha / target_r for good: the official code divides by the rank of the moment, so that its
    function jumps at every growth. The first block holds the components of the start, each later
    one a single component, the last the reserve, whose E is fixed at 1e-5. A and B start at
    N(0, 0.02^2), E at zero.
    """

    def start(self) -> None:
        super().start()
        self.add_block(self.r, 0.0, std=0.02)
        self._add_reserve()
        self.gradient = WeightGradient(self.factor_dtype)

    def _add_reserve(self, generator: torch.Generator | None = None) -> None:
        self.add_block(1, RESERVE_E, 0.02, generator)
        self.blocks_E[-1].requires_grad_(False)

    def grow(self, generator: torch.Generator | None = None) -> list[nn.Parameter]:
        """Make the reserve a component like the others and start a new one from `generator`, a CPU
        one. The function stays, but for what the new reserve adds with its E of 1e-5. Returns what
        an optimizer has to take in."""
        self.blocks_E[-1].requires_grad_(True)
        self._add_reserve(generator)
        self.r += 1
        return self.of_growth(len(self.blocks_A) - 2)

    def observe(self, y: Tensor, x: Tensor) -> Tensor:
        return self.gradient.look(y, x)

    def observe_weight(self, weight: Tensor) -> Tensor:
        return self.gradient.look_at(weight)

    @torch.no_grad()
    def take_score(self) -> Tensor:
        """How sensitive the loss is to this module's update dW: the sum of |dW * dL/d(dW)| over
        all entries, divided by the root of their number. A number; forgets the gradient."""
        gradient, delta = self.gradient.take(), self.delta_weight()
        if gradient is None:
            return delta.new_zeros(())
        return (delta * gradient).abs().sum() / math.sqrt(delta.numel())


class IncreLoRASchedule(RankSchedule):
    """Scores the modules of one IncreLoRA run after every step, and lets the best ones grow.

    What grows together becomes a parameter group of its own (`Growth`): make this object before a
    learning-rate scheduler. Several processes grow alike: scores are averaged over them. A step that
    the optimizer left out scores nothing.

    scores (modules,): smoothed sensitivity times uncertainty. An event's threshold is the lowest
    score that grew.
    """

    def __init__(
        self, method: IncreLoRA, model: nn.Module, optimizer: optim.Optimizer, total_steps: int
    ):
        super().__init__(method, model, optimizer, total_steps)
        self.plan = plan_growth(method, total_steps, len(self.layers), self.missing)
        growths = math.ceil(self.missing / self.plan.at_once)
        self.growth = Growth(self.layers, optimizer, growths, self.plan.warmup, method.seed)
        self.scores = next(iter(self.layers.values())).lora_E.new_zeros(len(self.layers))
        self.sensitivity = SmoothedSensitivity(method.beta1, method.beta2)

    @property
    def missing(self) -> int:
        """How many components are still to grow."""
        target = self.method.target_r * len(self.layers)
        return max(0, target - sum(layer.r for layer in self.layers.values()))

    def loss(self) -> Tensor:
        pairs = (layer.factors()[:2] for layer in self.layers.values())
        return self.method.orth_reg_weight * orthogonality(pairs)

    @torch.no_grad()
    def step(self, n: int) -> list[RankEvent]:
        self.growth.done = n
        missing = self.missing
        if not missing:
            return []
        taken = torch.stack([la.take_score().to(self.scores) for la in self.layers.values()])
        if processes() > 1:
            dist.all_reduce(taken)
        if taken.isfinite().all() and not self.step_was_skipped():
            self.scores = self.sensitivity.update(taken / (processes() * self.gradient_scale))
        events = []
        if self.plan.is_event(n):
            names = self.choose(n, min(self.plan.at_once, missing))
            scores = dict(zip(self.layers, self.scores.tolist()))
            lowest = min(scores[name] for name in names)
            events = [RankEvent(n, "grow", m, self.layers[m].r, threshold=lowest) for m in names]
            self.growth.grow(n, names)
        self._watch()
        return events

    def choose(self, n: int, count: int) -> list[str]:
        """Which `count` modules grow after step n, in module order."""
        best = self.scores.sort(descending=True, stable=True).indices[:count].tolist()
        return [name for i, name in enumerate(self.layers) if i in best]

    def _watch(self) -> None:
        """Have gradients taken in as long as something is to grow. (Not before the first step, whose
        update is next to nothing: a schedule that is never used costs nothing.)"""
        for layer in self.layers.values():
            layer.gradient.on = self.missing > 0

    def state_dict(self) -> dict:
        averages = {"mean": self.sensitivity.mean, "uncertainty": self.sensitivity.uncertainty}
        return {"growth": self.growth.state_dict()} | averages

    def prepare(self, state: dict) -> None:
        if set(state) != {"growth", "mean", "uncertainty"}:
            raise ValueError(f"state={sorted(state)}: allowed is the state of an IncreLoRASchedule")
        self.growth.load_state_dict(state["growth"], self.missing)

    def load_state_dict(self, state: dict) -> None:
        self.prepare(state)
        zero = torch.zeros_like(self.scores)
        mean, uncertainty = zero + state["mean"], zero + state["uncertainty"]
        self.sensitivity.mean, self.sensitivity.uncertainty = mean, uncertainty
        self.scores = mean * uncertainty
        if self.growth.done:
            self._watch()


@dataclass(frozen=True)
class IncreLoRA(Method):
    """Incremental parameter allocation. While it grows, each step also computes a full-size gradient
    of every adapted weight, which is what the scores are made of.

    r: components of each module at the start; target_r: at the end, on average and exactly in total;
    the update is scaled by lora_alpha / target_r. init_warmup: steps before anything grows, None for
    a tenth of the run. incre_interval: steps between growths, None for about twenty in the first half
    of the run. top_h: how many modules grow at once, None for as many as reach the target by then.
    growth_warmup: steps in which the learning rate of new parameters rises to that of the others,
    None for incre_interval. beta1, beta2, orth_reg_weight: as for AdaLoRA. seed: draws what is new.
    """

    r: int = 1
    target_r: int = 8
    top_h: int | None = None
    init_warmup: int | None = None
    incre_interval: int | None = None
    growth_warmup: int | None = None
    beta1: float = 0.85
    beta2: float = 0.85
    orth_reg_weight: float = 0.5
    seed: int = 0

    Layer: ClassVar = IncreLoRALinear
    Schedule: ClassVar = IncreLoRASchedule

    def __post_init__(self):
        super().__post_init__()
        least = self.r + 1
        allowed = f"an integer of at least r + 1 = {least}"
        require(is_whole(self.target_r, least), "target_r", self.target_r, allowed)
        for argument, least in (("init_warmup", 0), ("growth_warmup", 0),
                                ("top_h", 1), ("incre_interval", 1)):  # fmt: skip
            require_whole(argument, getattr(self, argument), least, or_none=True)
        require_whole("seed", self.seed, 0)
        require_smoothing(self)

    @property
    def scaling(self) -> float:
        return self.lora_alpha / self.target_r
