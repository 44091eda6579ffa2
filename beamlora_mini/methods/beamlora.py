"""BeamLoRA (Gu et al., arXiv 2502.13604): ranks compete, and the best ones multiply.

LoRA treats its r ranks alike. BeamLoRA gives each a learned score s_i, and weighs it with
w = r * softmax(s / temperature), so that the weights show which ranks matter. Every `period` steps
the ranks that hold the last few per cent of all weight are pruned, and each makes room for a copy
of one of the module's strongest ranks, like the candidates of a beam search. The copy is taken from
half a period ago, so that the twins differ and can part.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn, optim

from ..checks import require, require_choice, require_number, require_whole
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
from .base import Method, RankSchedule, step_generator
from .lora import LoRALinear


class BeamLoRALinear(LoRALinear):
    """y = W x + b + s B (w * (A x)), with w = r * softmax(scores / temperature) and s = alpha / r.

    Shapes: x (..., in) -> (..., out); lora_A (r, in); lora_B (out, r); scores (r,), zero at the
    start, where w = 1 and the layer is LoRA's to the bit.
    """

    rank_axes = LoRALinear.rank_axes | {"scores": 0}
    shared_by_twins = ("scores",)

    scores: Tensor

    def start(self) -> None:
        super().start()
        self.scores = self.trained(torch.zeros(self.r))

    def rank_weights(self) -> Tensor:
        return score_importance(self.scores, self.method.temperature)

    @torch.no_grad()
    def rank_importance(self) -> Tensor:
        return self.rank_weights()


class BeamSchedule(RankSchedule):
    """Takes the snapshots and holds the events of one BeamLoRA run."""

    def __init__(
        self, method: BeamLoRA, model: nn.Module, optimizer: optim.Optimizer, total_steps: int
    ):
        super().__init__(method, model, optimizer, total_steps)
        self.lag = method.period // 2 if method.snapshot_lag is None else method.snapshot_lag
        self.end_step = method.end_step or max(1, 2 * total_steps // 3)
        self.snapshot: Snapshot | Any = None
        some = any(self.is_event(n) for n in range(method.period, total_steps, method.period))
        if not some and method.period != total_steps:  # which says that none is wanted
            warnings.warn(
                f"period={method.period}, first_event={method.first_event}: no event falls into "
                f"total_steps={total_steps} (the last one leaves a period after it): no rank is pruned",
                stacklevel=5,
            )

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
        if self.snapshot is None:
            raise RuntimeError(
                f"step {n}: no snapshot was taken {self.lag} steps ago: call step(n) for every n"
            )
        p = top_p_threshold(n, self.end_step, self.method.p_start)
        self.before = importances = self.importances()
        masks = self.choose(n, importances, p)
        generator = step_generator(self.method.seed, n)
        pairing = self.method.pairing
        events = []
        for name, layer in self.layers.items():
            slots, sources = pair_ranks(importances[name], masks[name], pairing, generator)
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

    def importances(self) -> dict[str, Tensor]:
        """What the choice goes by: {module: w (r,)} on the CPU, in float64 whatever the scores are."""
        temperature = self.method.temperature
        return {
            name: score_importance(layer.scores.detach().cpu().double(), temperature)
            for name, layer in self.layers.items()
        }

    def choose(self, n: int, importances: dict[str, Tensor], p: float) -> dict[str, Tensor]:
        """Which ranks are pruned after step n: {module: (r,) bool}."""
        dtype = next(iter(importances.values())).dtype
        method = self.method
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
        change = self.method.temperature * share.clamp(min=0.05, max=1.0).log()
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
    source added alone (the slot's former weight then goes to all ranks alike). snapshot_device:
    where snapshots are kept, None for the model's device.
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

    Layer: ClassVar = BeamLoRALinear
    Schedule: ClassVar = BeamSchedule

    def __post_init__(self):
        super().__post_init__()
        for argument, least in (("period", 1), ("first_event", 1), ("seed", 0)):
            require_whole(argument, getattr(self, argument), least)
        for argument in ("temperature", "score_lr_ratio"):
            require_number(argument, getattr(self, argument), "a finite number above 0", above=0)
        require_number("p_start", self.p_start, "a number in (0, 1]", above=0, most=1)
        require_whole("end_step", self.end_step, 1, or_none=True)
        require_whole("snapshot_lag", self.snapshot_lag, 0, or_none=True)
        require(
            self.snapshot_lag is None or self.snapshot_lag < self.period,
            "snapshot_lag", self.snapshot_lag,
            f"None or an integer from 0 to period - 1 = {self.period - 1}",
        )  # fmt: skip
        most = self.max_prune_fraction
        require_number("max_prune_fraction", most, "a number in [0, 1]", least=0, most=1)
        require_choice("scope", self.scope, ("global", "module"))
        require_choice("pairing", self.pairing, ("sorted", "random"))
        require_choice("share", self.share, ("mean", "preserve"))
        try:
            torch.device("cpu" if self.snapshot_device is None else self.snapshot_device)
        except RuntimeError as error:
            allowed = f"None or a device: {str(error).splitlines()[0]}"
            require(False, "snapshot_device", self.snapshot_device, allowed)

    @classmethod
    def as_published(cls, **settings) -> BeamLoRA:
        """What the official code does where it does not do what the paper describes: the copy of the
        moments is lost, the snapshot comes one step late, no cap on what a module loses, random
        pairs. An odd period, with which that code never takes a snapshot and fails at the first
        event, is a ValueError. Settings override. (`studies/official_beamlora.py` imitates the rest:
        its choice in the adapter's dtype, and all of it in one place.)"""
        period = settings.get("period", cls.period)
        require(period % 2 == 0, "period", period, "an even number: the official code needs one")
        quirks = {
            "copy_moments": False,
            "snapshot_lag": period // 2 - 1,
            "max_prune_fraction": 1.0,
            "pairing": "random",
        }
        return cls(**quirks | settings)

    def parameter_groups(self, parameters: Mapping[str, nn.Parameter], lr: float) -> list[dict]:
        if self.score_lr_ratio == 1:
            return super().parameter_groups(parameters, lr)
        scores = [p for name, p in parameters.items() if name.endswith(".scores")]
        others = [p for name, p in parameters.items() if not name.endswith(".scores")]
        return [{"params": others}, {"params": scores, "lr": lr * self.score_lr_ratio}]
