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

import torch
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LambdaLR

from ..adapters import low_rank_linear
from ..events import RankEvent
from ..ranks import entrywise_states
from .base import Method, Schedule, require, require_layers, require_whole, step_generator
from .lora import LoRALinear


class ReLoRALinear(LoRALinear):
    """y = W_k x + b + s B A x, where W_k is W and the updates of the k rounds so far.

    W itself stays as it is (detaching gives it back, a tied embedding does not move): `round_weight`
    is a second copy, in the adapter's dtype, so that small updates survive beside a bfloat16 W.
    """

    def __init__(self, base: nn.Module, r: int, scaling: float, lora_dropout: float = 0.0):
        super().__init__(base, r, scaling, lora_dropout)
        weight = self.weight.detach().to(self.lora_A.dtype, copy=True)
        self.register_buffer("round_weight", weight.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        if self.merged_weight is not None:
            return self.merged_forward(x)
        return low_rank_linear(
            x, self.round_weight, self.bias, self.lora_A, self.lora_B, self.scaling,
            x_adapter=self.adapter_input(x),
        )  # fmt: skip

    def delta_weight(self) -> Tensor:
        return self.round_weight - self.weight + super().delta_weight()

    @torch.no_grad()
    def restart(self, generator: torch.Generator) -> None:
        """Add s B A into the weight and start a new round; the function stays. generator: a CPU
        one, for the new A."""
        self.round_weight += super().delta_weight()
        start = torch.empty(self.lora_A.shape, dtype=self.lora_A.dtype)
        nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
        self.lora_A.copy_(start)
        self.lora_B.zero_()


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

    def __post_init__(self):
        super().__post_init__()
        every, warmup = self.merge_every, self.restart_warmup
        require_whole(self, "merge_every", 1)
        whole = isinstance(warmup, int) and 0 <= warmup < every
        require(
            whole, "restart_warmup", warmup, f"an integer from 0 to merge_every - 1 = {every - 1}"
        )
        resets = ("zero", "random", "magnitude")
        require(self.reset in resets, "reset", self.reset, " or ".join(map(repr, resets)))
        number = isinstance(self.keep, int | float) and 0 <= self.keep <= 1
        require(number, "keep", self.keep, "a number in [0, 1]")
        require(
            isinstance(self.seed, int) and self.seed >= 0, "seed", self.seed, "an integer from 0"
        )

    def wrap(self, base: nn.Module) -> ReLoRALinear:
        return ReLoRALinear(base, self.r, self.scaling, self.lora_dropout)

    def lr_multiplier(self, done: int, warmup_steps: int, total_steps: int) -> float:
        """What the learning rate is multiplied by when `done` steps are done.

        Warm-up from zero and cosine to zero, as for the other methods; and for the first
        restart_warmup steps after a restart a straight line, from zero to where the cosine will be
        at its end.
        """

        def envelope(k: int) -> float:
            if k < warmup_steps:
                return k / warmup_steps
            progress = (k - warmup_steps) / max(1, total_steps - warmup_steps)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

        since = done % self.merge_every
        if done < self.merge_every or since >= self.restart_warmup:
            return envelope(done)
        return since / self.restart_warmup * envelope(done - since + self.restart_warmup)

    def lr_scheduler(
        self, optimizer: optim.Optimizer, warmup_steps: int, total_steps: int
    ) -> LambdaLR:
        return LambdaLR(optimizer, lambda k: self.lr_multiplier(k, warmup_steps, total_steps))

    def schedule(
        self, model: nn.Module, optimizer: optim.Optimizer, total_steps: int
    ) -> ReLoRASchedule:
        return ReLoRASchedule(self, model, optimizer, total_steps)


class ReLoRASchedule(Schedule):
    """Merges and restarts every layer of one ReLoRA run."""

    def __init__(
        self, method: ReLoRA, model: nn.Module, optimizer: optim.Optimizer, total_steps: int
    ):
        super().__init__(model, optimizer, total_steps)
        self.method = method
        self.layers = require_layers(model, ReLoRALinear)

    def step(self, n: int) -> list[RankEvent]:
        if n % self.method.merge_every or n >= self.total_steps:
            return []
        generator = step_generator(self.method.seed, n)
        for layer in self.layers.values():
            layer.restart(generator)
            for parameter in (layer.lora_A, layer.lora_B):
                self._reset_moments(parameter, generator)
        return [RankEvent(n, "restart", name) for name in self.layers]

    def _reset_moments(self, parameter: nn.Parameter, generator: torch.Generator) -> None:
        moments = list(entrywise_states(self.optimizer, parameter).values())
        if not moments:
            return
        if self.method.reset == "zero":
            kept = torch.zeros(parameter.numel(), dtype=torch.bool)
        else:
            count = round(self.method.keep * parameter.numel())
            if self.method.reset == "random":
                score = torch.rand(parameter.numel(), generator=generator)
            else:
                score = moments[0].flatten().abs()  # Adam's first
            kept = torch.zeros_like(score, dtype=torch.bool)
            kept[score.topk(count).indices] = True
        for moment in moments:
            moment.mul_(kept.view_as(moment).to(moment.device))

    def state_dict(self) -> dict:
        return {"round_weights": {name: la.round_weight for name, la in self.layers.items()}}

    def load_state_dict(self, state: dict) -> None:
        if set(state) != {"round_weights"}:
            raise ValueError(f"state={sorted(state)}: allowed is the state of a ReLoRASchedule")
        weights = state["round_weights"]
        shapes = {name: layer.round_weight.shape for name, layer in self.layers.items()}
        if {name: tensor.shape for name, tensor in weights.items()} != shapes:
            raise ValueError("state: its weights are of another model: names or shapes differ")
        for name, layer in self.layers.items():
            layer.round_weight.copy_(weights[name])
