"""ReLoRA (Lialin, Muckatira, Shivagunde, Rumshisky, arXiv 2307.05695, ICLR 2024): many small
updates, one after the other.

Every `merge_every` steps the adapter is added into the frozen weight and starts afresh: A random,
B zero. One round's update has rank r, the sum of k rounds up to k r. Two things keep a restart from
doing harm: Adam's moments, which belong to the old A and B, are reset, and the learning rate warms
up again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..checks import require, require_choice, require_number, require_whole
from ..events import RankEvent
from ..layers import add_low_rank, frozen, without_autocast
from ..ranks import entrywise_states
from .base import Method, RankSchedule, step_generator
from .lora import LoRALinear


class ReLoRALinear(LoRALinear):
    """y = W_k x + b + s B A x, where W_k is W and the updates of the k rounds so far.

    W itself stays as it is (detaching gives it back, a tied embedding does not move). The rounds
    are kept as the factors they were, exact and small in a checkpoint. W_k is made of them once a
    round, so that a step costs what LoRA's does; beside a W of fewer digits (bfloat16), in which
    small rounds would drown, or one that is trained itself, they are added as k r more ranks.

    rounds_A (k r, in) and rounds_B (out, k r): A and B of the rounds so far.
    """

    grows = ("rounds_A", "rounds_B")

    rounds_A: Tensor
    rounds_B: Tensor
    round_weight: Tensor | None

    def start(self) -> None:
        super().start()
        self.remember("rounds_A", self.lora_A.detach()[:0].clone())
        self.remember("rounds_B", self.lora_B.detach()[:, :0].clone())
        self.restarted = False
        self.round_weight = None

    def base_is_plain(self) -> bool:
        return not self.restarted and super().base_is_plain()

    def base_forward(self, x: Tensor) -> Tensor:
        if not self.restarted:
            return super().base_forward(x)
        if not self.in_one_weight:
            y = super().base_forward(x)
            return add_low_rank(y, x, self.rounds_A, self.rounds_B, self.scaling)
        if self.round_weight is None:
            self.round_weight = self._weight_of_this_round()
        return frozen.apply(self.base, x, self.round_weight)

    @property
    def in_one_weight(self) -> bool:
        W = self.base.weight
        return W.dtype.itemsize >= 4 and not W.requires_grad

    def _weight_of_this_round(self) -> Tensor:
        # Made whenever it is needed, be it in inference_mode: and kept for training.
        with torch.inference_mode(False), torch.no_grad(), without_autocast(self.device.type):
            return self.frozen_weight + self.scaling * (self.rounds_B @ self.rounds_A)

    def plain(self) -> tuple[Tensor, Tensor]:
        A, B = super().plain()
        return torch.cat([self.rounds_A, A]), torch.cat([self.rounds_B, B], dim=1)

    @torch.no_grad()
    def restart(self, generator: torch.Generator) -> None:
        """Add s B A into the weight and start a new round; the function stays. generator: a CPU
        one, for the new A."""
        self.remember("rounds_A", self.plain()[0].detach())
        self.remember("rounds_B", torch.cat([self.rounds_B, self.lora_B], dim=1))
        self.restarted = True
        self.round_weight = self._weight_of_this_round() if self.in_one_weight else None
        start = torch.empty(self.lora_A.shape, dtype=self.lora_A.dtype)
        nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
        self.lora_A.copy_(start)
        self.lora_B.zero_()

    def _apply(self, fn, recurse=True):  # moved or cast: W_k is made again where it is needed
        self.round_weight = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args) -> None:
        super()._load_from_state_dict(*args)
        self.restarted, self.round_weight = len(self.rounds_A) > 0, None


class ReLoRASchedule(RankSchedule):
    """Merges and restarts every layer of one ReLoRA run."""

    @torch.no_grad()
    def step(self, n: int) -> list[RankEvent]:
        if n % self.method.merge_every or n >= self.total_steps:
            return []
        generator = step_generator(self.method.seed, n)
        for layer in self.layers.values():
            layer.restart(generator)
            for parameter in (layer.lora_A, layer.lora_B):
                self.reset_moments(parameter, generator)
        return [RankEvent(n, "restart", name) for name in self.layers]

    def reset_moments(self, parameter: nn.Parameter, generator: torch.Generator) -> None:
        """What a restart does to the optimizer's moments of one A or B, in place."""
        moments = list(entrywise_states(self.optimizer, parameter).values())
        if self.method.reset == "zero" or not moments:
            for moment in moments:
                moment.zero_()
            return
        count = round(self.method.keep * parameter.numel())
        if self.method.reset == "random":
            score = torch.rand(parameter.numel(), generator=generator)
        else:
            score = moments[0].flatten().abs()  # Adam's first
        kept = torch.zeros_like(score, dtype=torch.bool)
        kept[score.topk(count).indices] = True
        for moment in moments:
            moment.mul_(kept.view_as(moment).to(moment.device))


@dataclass(frozen=True)
class ReLoRA(Method):
    """LoRA, merged and restarted.

    merge_every: steps between restarts; none after the last step. restart_warmup: steps in which
    the learning rate rises again after each. reset: what a restart does to the optimizer's moments
    of A and B, "zero" them, or keep the fraction `keep` of them: a "random" one, or the largest by
    "magnitude". (An entry's moments stay or go together: a first moment without its second would
    make a huge step.) The optimizer's step counter stays. seed: draws the new A and the random
    choice, the same on every process.
    """

    merge_every: int = 100
    restart_warmup: int = 10
    reset: str = "zero"
    keep: float = 0.001
    seed: int = 0

    Layer: ClassVar = ReLoRALinear
    Schedule: ClassVar = ReLoRASchedule

    def __post_init__(self):
        super().__post_init__()
        require_whole("merge_every", self.merge_every, 1)
        most = self.merge_every - 1
        allowed = f"an integer from 0 to merge_every - 1 = {most}"
        require_whole("restart_warmup", self.restart_warmup, 0)
        require(self.restart_warmup <= most, "restart_warmup", self.restart_warmup, allowed)
        require_choice("reset", self.reset, ("zero", "random", "magnitude"))
        require_number("keep", self.keep, "a number in [0, 1]", least=0, most=1)
        require_whole("seed", self.seed, 0)

    def lr_factor(self, n: int, warmup: int, total: int) -> float:
        """As for the other methods; and for the first restart_warmup steps after a restart a
        straight line, from zero to where the cosine will be at its end."""
        since = n % self.merge_every
        if n < self.merge_every or since >= self.restart_warmup:
            return super().lr_factor(n, warmup, total)
        top = super().lr_factor(n - since + self.restart_warmup, warmup, total)
        return since / self.restart_warmup * top
