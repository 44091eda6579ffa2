"""BeamLoRA (Gu et al., arXiv 2502.13604): ranks compete, and the best ones multiply.

LoRA treats its r ranks alike. BeamLoRA gives each a learned score s_i, and weighs it with
w = r * softmax(s / temperature), so that the weights show which ranks matter. Every `period` steps
the ranks that hold the last few per cent of all weight are pruned, and each makes room for a copy
of one of the module's strongest ranks, like the candidates of a beam search. The copy is taken from
half a period ago, so that the twins differ and can part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim

from ..events import RankEvent
from ..ranks import (
    Snapshot,
    entrywise_states,
    expand_ranks_,
    pair_ranks,
    score_importance,
    take_snapshot,
    top_p_mask,
    top_p_threshold,
)
from .base import Method, Schedule, require, require_layers, require_whole, step_generator
from .lora import LoRALinear


class BeamLoRALinear(LoRALinear):
    """y = W x + b + s B (w * (A x)), with w = r * softmax(scores / temperature) and s = alpha / r.

    Shapes: x (..., in) -> (..., out); lora_A (r, in); lora_B (out, r); scores (r,), zero at the
    start, where w = 1 and the layer is LoRA's to the bit.
    """

    def __init__(
        self,
        base: nn.Module,
        r: int,
        scaling: float,
        lora_dropout: float = 0.0,
        temperature: float = 0.05,
    ):
        super().__init__(base, r, scaling, lora_dropout)
        self.temperature = temperature
        self.scores = nn.Parameter(self.lora_A.new_zeros(r))

    def rank_weights(self) -> Tensor:
        return score_importance(self.scores, self.temperature)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_plus_low_rank(x, self.rank_weights())

    def delta_weight(self) -> Tensor:
        return self.scaling * ((self.lora_B * self.rank_weights()) @ self.lora_A)

    @torch.no_grad()
    def rank_importance(self) -> Tensor:
        return self.rank_weights()


@dataclass(frozen=True)
class BeamLoRA(Method):
    """LoRA whose ranks are scored, pruned and expanded. The published recipe, at r 64 and about
    37,000 steps: temperature 0.05 (0.03 for learning rates below 1e-4), period 3000, p_start 0.95,
    end_step 24,688.

    temperature: how sharply scores turn into weights. period: steps between events; none is held
    later than one period before the end. p_start, end_step: the share of all weight that survives
    an event rises from p_start to 1 at end_step, None for two thirds of the run. snapshot_lag: how
    many steps back the copies are taken from, None for half a period, 0 for now. scope: "global"
    compares the ranks of all modules, "module" within each. copy_moments: copies keep the
    optimizer's moments of their source then. max_prune_fraction: of a module's ranks, in one event.
    pairing: strongest source to first slot ("sorted"), or "random", drawn from `seed` and the step,
    the same on every process.

    Beyond the paper, off by default: score_lr_ratio: learning rate of the scores, as a multiple of
    the others'. first_event: no event before this step. share: what a pair's scores become, "mean"
    of the two, or "preserve": equal weights with which the pair adds, as nearly as it can, what the
    source added alone (the slot's former weight then goes to all ranks alike). snapshot_device: where snapshots are kept, None for the model's device.
    selection_dtype: "float64", or "adapter" to choose in the adapter's own dtype.
    """

    temperature: float = 0.05
    period: int = 50
    p_start: float = 0.95
    end_step: int | None = None
    snapshot_lag: int | None = None
    scope: str = "global"
    copy_moments: bool = True
    max_prune_fraction: float = 0.5
    pairing: str = "sorted"
    seed: int = 0
    score_lr_ratio: float = 1.0
    first_event: int = 1
    share: str = "mean"
    snapshot_device: str | None = None
    selection_dtype: str = "float64"

    def __post_init__(self):
        super().__post_init__()
        for argument, least in (("period", 1), ("first_event", 1), ("seed", 0)):
            require_whole(self, argument, least)
        for argument in ("temperature", "score_lr_ratio"):
            value = getattr(self, argument)
            require(value > 0 and math.isfinite(value), argument, value, "a finite number above 0")
        require(0 < self.p_start <= 1, "p_start", self.p_start, "a number in (0, 1]")
        end = self.end_step
        require(end is None or end >= 1, "end_step", end, "None or an integer of at least 1")
        lag = self.snapshot_lag
        require(
            lag is None or (isinstance(lag, int) and 0 <= lag < self.period),
            "snapshot_lag", lag, f"None or an integer from 0 to period - 1 = {self.period - 1}",
        )  # fmt: skip
        most = self.max_prune_fraction
        require(0 <= most <= 1, "max_prune_fraction", most, "a number in [0, 1]")
        for argument, allowed in _CHOICES.items():
            value = getattr(self, argument)
            require(value in allowed, argument, value, " or ".join(map(repr, allowed)))

    @classmethod
    def as_published(cls, **settings) -> BeamLoRA:
        """The official code as it executes, not as the paper describes it: the copy of the moments
        is lost, the snapshot comes one step late, no cap on what a module loses, random pairs, and
        a selection in the adapter's dtype. An odd period, with which that code never takes a
        snapshot and fails at the first event, is a ValueError. Settings override."""
        period = settings.get("period", cls.period)
        require(period % 2 == 0, "period", period, "an even number: the official code needs one")
        quirks = {
            "copy_moments": False,
            "snapshot_lag": period // 2 - 1,
            "max_prune_fraction": 1.0,
            "pairing": "random",
            "selection_dtype": "adapter",
        }
        return cls(**quirks | settings)

    def wrap(self, base: nn.Module) -> BeamLoRALinear:
        return BeamLoRALinear(base, self.r, self.scaling, self.lora_dropout, self.temperature)

    def parameter_groups(self, parameters: Mapping[str, nn.Parameter], lr: float) -> list[dict]:
        if self.score_lr_ratio == 1:
            return super().parameter_groups(parameters, lr)
        scores = [p for name, p in parameters.items() if name.endswith(".scores")]
        others = [p for name, p in parameters.items() if not name.endswith(".scores")]
        return [{"params": others}, {"params": scores, "lr": lr * self.score_lr_ratio}]

    def schedule(self, model: nn.Module, optimizer: optim.Optimizer, total_steps: int) -> Schedule:
        return BeamSchedule(self, model, optimizer, total_steps)


_CHOICES = {
    "scope": ("global", "module"),
    "pairing": ("sorted", "random"),
    "share": ("mean", "preserve"),
    "selection_dtype": ("float64", "adapter"),
}


class BeamSchedule(Schedule):
    """Takes the snapshots and holds the events of one BeamLoRA run."""

    def __init__(
        self, method: BeamLoRA, model: nn.Module, optimizer: optim.Optimizer, total_steps: int
    ):
        super().__init__(model, optimizer, total_steps)
        self.method = method
        self.layers = require_layers(model, BeamLoRALinear)
        self.lag = method.period // 2 if method.snapshot_lag is None else method.snapshot_lag
        self.end_step = method.end_step or max(1, 2 * total_steps // 3)
        self.snapshot: Snapshot | None = None

    def is_event(self, n: int) -> bool:
        """Whether ranks are pruned and expanded after step n."""
        period = self.method.period
        due = n % period == 0 and self.total_steps - n >= period
        return due and n >= self.method.first_event

    @torch.no_grad()
    def step(self, n: int) -> list[RankEvent]:
        if n == 1:  # an optimizer whose states can't be split shows itself before the first event
            for layer in self.layers.values():
                entrywise_states(self.optimizer, layer.lora_A)
        if self.is_event(n + self.lag):
            device = self.method.snapshot_device
            self.snapshot = take_snapshot(self.model, self.optimizer, device)
        return self._hold_event(n) if self.is_event(n) else []

    def _hold_event(self, n: int) -> list[RankEvent]:
        method = self.method
        if self.snapshot is None:
            raise RuntimeError(
                f"step {n}: no snapshot was taken {self.lag} steps ago: call step(n) for every n"
            )
        scores = torch.stack([layer.scores for layer in self.layers.values()]).cpu()
        if method.selection_dtype == "float64":
            scores = scores.double()
        weights = [score_importance(row, method.temperature) for row in scores]
        importances = dict(zip(self.layers, weights))
        p = top_p_threshold(n, self.end_step, method.p_start)
        masks = self.choose(n, importances, p)
        generator = step_generator(method.seed, n)
        events = []
        for name, layer in self.layers.items():
            slots, sources = pair_ranks(importances[name], masks[name], method.pairing, generator)
            if slots:
                before = layer.scores.tolist()
                self.replace(layer, slots, sources)
                after = layer.scores.tolist()
                events += [
                    RankEvent(n, "expand", name, slot, source, p, before[slot], after[slot])
                    for slot, source in zip(slots, sources)
                ]
            for moment in entrywise_states(self.optimizer, layer.scores).values():
                moment.zero_()
        self.snapshot = None
        return events

    def choose(self, n: int, importances: dict[str, Tensor], p: float) -> dict[str, Tensor]:
        """Which ranks are pruned after step n: {module: (r,) bool}."""
        method = self.method
        dtype = next(iter(importances.values())).dtype
        return top_p_mask(importances, p, method.scope, method.max_prune_fraction, dtype)

    def replace(self, layer: BeamLoRALinear, slots: list[int], sources: list[int]) -> None:
        """What takes the place of the pruned ranks of one layer."""
        method = self.method
        preserving = self._preserving_scores(layer, sources) if method.share == "preserve" else None
        expand_ranks_(layer, self.optimizer, slots, sources, self.snapshot, method.copy_moments)
        if preserving is not None:
            layer.scores[slots] = preserving
            layer.scores[sources] = preserving

    def _preserving_scores(self, layer: BeamLoRALinear, sources: list[int]) -> Tensor:
        """Scores at which slot and source share a weight c, chosen so that c (S + H) is nearest to
        w S, what the source adds alone: S = b a^T is the source now, H its snapshot, and
        c = w <S, S + H> / ||S + H||^2. A score changes by temperature * log(c / w)."""
        now = layer.lora_A[sources], layer.lora_B[:, sources].T
        old = self.snapshot.of(layer)
        then = old["lora_A"][sources].to(now[0]), old["lora_B"][:, sources].T.to(now[1])

        def product(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
            return (one[0] * other[0]).sum(1) * (one[1] * other[1]).sum(1)

        own, shared, other = product(now, now), product(now, then), product(then, then)
        share = (own + shared) / (own + 2 * shared + other).clamp(min=1e-30)
        # A copy that has turned round would get no weight: a twentieth keeps it alive.
        change = layer.temperature * share.clamp(min=0.05, max=1.0).log()
        return layer.scores[sources] + change

    def state_dict(self) -> dict:
        return {"snapshot": self.snapshot.tensors if self.snapshot else None}

    def load_state_dict(self, state: dict) -> None:
        if set(state) != {"snapshot"}:
            raise ValueError(f"state={sorted(state)}: allowed is the state of a BeamSchedule")
        tensors = state["snapshot"]
        if tensors is not None and tensors.keys() != self.layers.keys():
            raise ValueError("state: its snapshot is of another model: the modules differ")
        names = {layer: name for name, layer in self.layers.items()}
        self.snapshot = tensors and Snapshot(tensors, names)
