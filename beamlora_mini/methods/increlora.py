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

import torch
import torch.distributed as dist
from torch import Tensor, nn, optim

from ..adapters import AdapterLayer, low_rank_linear
from ..events import RankEvent
from ..ranks import SmoothedSensitivity, frobenius_importance
from .adalora import orthogonality, require_smoothing
from .base import Method, Schedule, require, require_layers, require_whole, step_generator
from .late_groups import LateGroups

RESERVE_E = 1e-5


class _Watch(torch.autograd.Function):
    """y as it is; its backward pass shows dL/dy and the adapter's input x to the layer."""

    @staticmethod
    def forward(ctx, y: Tensor, x: Tensor, layer: IncreLoRALinear) -> Tensor:
        ctx.save_for_backward(x)  # and not in a closure: activation checkpointing can drop it
        ctx.layer = layer
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.layer.see(gradient, *ctx.saved_tensors)
        return gradient, None, None


class IncreLoRALinear(AdapterLayer):
    """y = W x + b + s B (E * (A x)), summed over r active components and one in reserve.

    s = alpha / target_r for good: the official code divides by the rank of the moment, so that its
    function jumps at every growth. The components lie in blocks, each a parameter of its own that
    an optimizer can take in later: the first holds those of the start, each later one a single
    component, the last the reserve, whose E is fixed at 1e-5.

    Shapes: x (..., in) -> (..., out); blocks_A[i] (k, in), blocks_B[i] (out, k), blocks_E[i] (k,),
    k = 1 for all but the first. lora_A (r, in), lora_B (out, r), lora_E (r,): the active components
    put together, r of them now; a gradient flows on to the blocks.
    """

    def create_factors(self, r: int) -> None:
        self.blocks_A, self.blocks_B, self.blocks_E = (nn.ParameterList() for _ in range(3))
        self._add_block(r, 0.0)
        self._add_block(1, RESERVE_E)
        self.blocks_E[-1].requires_grad_(False)
        self.watched = False
        self.weight_gradient: Tensor | None = None
        self.register_load_state_dict_pre_hook(IncreLoRALinear._make_room)

    def _add_block(self, k: int, e: float, generator: torch.Generator | None = None) -> None:
        dtype = self.blocks_A[0].dtype if len(self.blocks_A) else self.factor_dtype
        like = {"dtype": dtype, "device": self.weight.device}

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter((0.02 * torch.randn(shape, generator=generator)).to(**like))

        self.blocks_A.append(normal(k, self.in_features))
        self.blocks_B.append(normal(self.out_features, k))
        self.blocks_E.append(nn.Parameter(torch.full((k,), e, **like)))

    def grow(self, generator: torch.Generator | None = None) -> list[nn.Parameter]:
        """Make the reserve a component like the others and start a new one (N(0, 0.02^2), from
        `generator`, a CPU one). The function stays, but for what the new reserve adds with its E
        of 1e-5. Returns the parameters that are new to an optimizer: the E of the one, A and B of
        the other."""
        active = self.blocks_E[-1].requires_grad_(True)
        self._add_block(1, RESERVE_E, generator)
        self.blocks_E[-1].requires_grad_(False)
        self.r += 1
        return [active, self.blocks_A[-1], self.blocks_B[-1]]

    @staticmethod
    def _make_room(layer: IncreLoRALinear, state_dict: dict, prefix: str, *_) -> None:
        """Before a state is loaded: have as many blocks as it has. (An optimizer does not learn of
        them: `IncreLoRASchedule.prepare` is for going on with a run.)"""
        blocks = sum(key.startswith(f"{prefix}blocks_A.") for key in state_dict)
        while len(layer.blocks_A) < blocks:
            layer.grow(torch.Generator())  # the numbers will be overwritten

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """(A (r + 1, in), B (out, r + 1), E (r + 1,)): all components, the reserve last."""
        A, B, E = map(list, (self.blocks_A, self.blocks_B, self.blocks_E))
        return torch.cat(A), torch.cat(B, dim=1), torch.cat(E)

    @property
    def lora_A(self) -> Tensor:
        return torch.cat(list(self.blocks_A)[:-1])

    @property
    def lora_B(self) -> Tensor:
        return torch.cat(list(self.blocks_B)[:-1], dim=1)

    @property
    def lora_E(self) -> Tensor:
        return torch.cat(list(self.blocks_E)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        if self.merged_weight is not None:
            return self.merged_forward(x)
        A, B, E = self.factors()
        dropped = self.adapter_input(x)
        y = low_rank_linear(x, self.weight, self.bias, A, B, self.scaling, E, x_adapter=dropped)
        if self.watched and y.requires_grad:
            y = _Watch.apply(y, (x if dropped is None else dropped).detach(), self)
        return y

    def see(self, gradient: Tensor, x: Tensor) -> None:
        """Take in dL/dW of one backward pass; several add up until `take_score`."""
        gradient = gradient.flatten(0, -2)
        product = (gradient.T @ x.flatten(0, -2).to(gradient)).to(self.blocks_A[0].dtype)
        if self.weight_gradient is None:
            self.weight_gradient = product
        else:
            self.weight_gradient += product

    @torch.no_grad()
    def take_score(self) -> Tensor:
        """How sensitive the loss is to this module's update dW: the sum of |dW * dL/d(dW)| over
        all entries, divided by the root of their number. A number; forgets the gradient. Entries
        that are not finite, of a step that was skipped for it, count as nothing."""
        gradient, self.weight_gradient = self.weight_gradient, None
        if gradient is None:
            return self.blocks_E[0].new_zeros(())
        entries = (self.delta_weight() * gradient).abs().nan_to_num(0, posinf=0)
        return entries.sum() / math.sqrt(entries.numel())

    def delta_weight(self) -> Tensor:
        A, B, E = self.factors()
        return self.scaling * ((B * E) @ A)

    @torch.no_grad()
    def rank_importance(self) -> Tensor:
        """(r,): size of what each active component adds. (The method itself compares modules.)"""
        A, B, E = self.factors()
        return (E.abs() * frobenius_importance(A, B))[:-1]


@dataclass(frozen=True)
class IncreLoRA(Method):
    """Incremental parameter allocation. While it grows, each step also computes a full-size gradient
    of every adapted weight, which is what the scores are made of.

    r: components of each module at the start; target_r: components a module at the end, on average
    and exactly in total; lora_alpha: the update is scaled by lora_alpha / target_r. init_warmup:
    steps before anything grows, None for a tenth of the run. incre_interval: steps from one growth
    to the next, None for about twenty growths in the first half of the run. top_h: how many modules
    grow at once, None for as many as reach the target by half of the run. growth_warmup: steps in
    which the learning rate of new parameters rises to that of the others, None for incre_interval.
    beta1, beta2, orth_reg_weight: as for AdaLoRA. seed: draws the new components, the same on every
    process.
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

    def __post_init__(self):
        super().__post_init__()
        target = self.target_r
        require(
            isinstance(target, int) and target > self.r,
            "target_r", target, f"an integer of at least r + 1 = {self.r + 1}",
        )  # fmt: skip
        for argument, least in (("init_warmup", 0), ("growth_warmup", 0),
                                ("top_h", 1), ("incre_interval", 1)):  # fmt: skip
            require_whole(self, argument, least, or_none=True)
        require_whole(self, "seed", 0)
        require_smoothing(self)

    @property
    def scaling(self) -> float:
        return self.lora_alpha / self.target_r

    def wrap(self, base: nn.Module) -> IncreLoRALinear:
        return IncreLoRALinear(base, self.r, self.scaling, self.lora_dropout)

    def schedule(
        self, model: nn.Module, optimizer: optim.Optimizer, total_steps: int
    ) -> IncreLoRASchedule:
        return IncreLoRASchedule(self, model, optimizer, total_steps)


class IncreLoRASchedule(Schedule):
    """Scores the modules of one IncreLoRA run after every step, and lets the best ones grow.

    What grows together becomes a parameter group of its own (`LateGroups`): make this object before
    a learning-rate scheduler. One process only: a wrapper such as DistributedDataParallel would
    neither average what the scores are made of nor the gradients of what grows.

    scores (modules,): smoothed sensitivity times uncertainty; grown: [(step, modules)] so far. An
    event's threshold is the lowest score that grew.
    """

    def __init__(
        self, method: IncreLoRA, model: nn.Module, optimizer: optim.Optimizer, total_steps: int
    ):
        super().__init__(model, optimizer, total_steps)
        self.method = method
        self.layers = require_layers(model, IncreLoRALinear)
        processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        require(processes == 1, "processes", processes, "one: each would grow in its own way")
        self._plan()
        like = next(iter(self.layers.values())).blocks_A[0]
        growths = math.ceil(self.missing / self.top_h)
        self.groups = LateGroups(optimizer, growths, self.growth_warmup, like)
        self.grown: list[tuple[int, list[str]]] = []
        self.start = {name: (la.r, *la.weight.shape) for name, la in self.layers.items()}
        self.scores = like.new_zeros(len(self.layers))
        self.sensitivity = SmoothedSensitivity(method.beta1, method.beta2)

    @property
    def missing(self) -> int:
        """How many components are still to grow."""
        target = self.method.target_r * len(self.layers)
        return max(0, target - sum(layer.r for layer in self.layers.values()))

    def _plan(self) -> None:
        """Fill in what the method leaves open, and see that the target can be reached."""
        method, total, missing = self.method, self.total_steps, self.missing
        self.init_warmup = total // 10 if method.init_warmup is None else method.init_warmup
        early = max(0, total // 2 - self.init_warmup)
        self.interval = method.incre_interval or max(1, early // 20)
        top_h = method.top_h or max(1, math.ceil(missing / max(1, early // self.interval)))
        self.top_h = min(top_h, len(self.layers))
        warmup = method.growth_warmup
        self.growth_warmup = self.interval if warmup is None else warmup
        growths = max(0, total - 1 - self.init_warmup) // self.interval
        require(
            growths * self.top_h >= missing,
            "target_r", method.target_r,
            f"what {growths} growths of {self.top_h} of the {len(self.layers)} modules can reach "
            f"in total_steps={total} (init_warmup={self.init_warmup}, incre_interval="
            f"{self.interval}, top_h={top_h}): {missing} components are missing",
        )  # fmt: skip

    def _watch(self) -> None:
        """Have the layers take in their gradients, as long as something is to grow. (Not before the
        first step, whose update is next to nothing: a schedule that is never used costs nothing.)"""
        still = self.missing > 0
        for layer in self.layers.values():
            layer.watched = still

    def loss(self) -> Tensor:
        pairs = (layer.factors()[:2] for layer in self.layers.values())
        return self.method.orth_reg_weight * orthogonality(pairs)

    def is_event(self, n: int) -> bool:
        """Whether modules grow after step n, if there is something left to grow."""
        since = n - self.init_warmup
        return 0 < since and since % self.interval == 0 and n < self.total_steps

    @torch.no_grad()
    def step(self, n: int) -> list[RankEvent]:
        self.groups.done = n
        missing = self.missing
        if not missing:
            return []
        taken = torch.stack([layer.take_score() for layer in self.layers.values()])
        self.scores = self.sensitivity.update(taken)
        events = []
        if self.is_event(n):
            names = self.choose(n, min(self.top_h, missing))
            scores = dict(zip(self.layers, self.scores.tolist()))
            lowest = min(scores[name] for name in names)
            events = [RankEvent(n, "grow", m, self.layers[m].r, threshold=lowest) for m in names]
            self._grow(n, names)
        self._watch()
        return events

    def choose(self, n: int, count: int) -> list[str]:
        """Which `count` modules grow after step n, in module order."""
        best = self.scores.sort(descending=True, stable=True).indices[:count].tolist()
        return [name for i, name in enumerate(self.layers) if i in best]

    def _grow(self, n: int, names: list[str]) -> None:
        generator = step_generator(self.method.seed, n)
        self.groups.fill(n, [p for name in names for p in self.layers[name].grow(generator)])
        self.grown.append((n, names))

    def state_dict(self) -> dict:
        return {
            "start": self.start,
            "done": self.groups.done,
            "grown": list(self.grown),
            "mean": self.sensitivity.mean,
            "uncertainty": self.sensitivity.uncertainty,
        }

    def prepare(self, state: dict) -> None:
        if set(state) != {"start", "done", "grown", "mean", "uncertainty"}:
            raise ValueError(f"state={sorted(state)}: allowed is the state of an IncreLoRASchedule")
        if state["start"] != self.start:
            raise ValueError(
                "state: its run began with other modules, sizes or ranks than this model has: "
                "allowed is the model as it was then; detach(model) undoes what has grown since"
            )
        grown = [(n, list(names)) for n, names in state["grown"]]
        left = self.missing + sum(len(names) for _, names in self.grown)
        names = [name for _, names in grown for name in names]
        known = grown[: len(self.grown)] == self.grown and set(names) <= self.layers.keys()
        if not known or len(names) > left or len(grown) > self.groups.count:
            raise ValueError("state: its modules have grown in another way than this model's")
        for n, names in grown[len(self.grown) :]:
            self._grow(n, names)

    def load_state_dict(self, state: dict) -> None:
        self.prepare(state)
        self.groups.done = state["done"]
        self.sensitivity.mean = torch.as_tensor(state["mean"]).to(self.scores)
        self.sensitivity.uncertainty = torch.as_tensor(state["uncertainty"]).to(self.scores)
        self.scores = self.sensitivity.mean * self.sensitivity.uncertainty
        self._watch()
