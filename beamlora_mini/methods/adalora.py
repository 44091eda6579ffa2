"""AdaLoRA (Zhang et al., arXiv 2303.10512): start with too many ranks and keep the best.

LoRA gives every module the same rank. AdaLoRA writes the update like a singular value
decomposition, B diag(E) A, and can so take a rank out by setting its E to zero. It starts with r
ranks a module and, while it trains, lowers the number that all modules share towards target_r a
module; the ranks whose triplet (E_i, row i of A, column i of B) the loss is most sensitive to stay,
wherever they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim

from ..adapters import AdapterLayer
from ..events import RankEvent
from ..ranks import SmoothedSensitivity, budget_mask, sensitivity_importance
from .base import Method, Schedule, require, require_layers, require_whole

_TRIPLET = ("lora_A", "lora_E", "lora_B")


class AdaLoRALinear(AdapterLayer):
    """y = W x + b + s B (E * (A x)), with s = alpha / r for the r it starts with, for good. (peft and
    the official code divide by r + 0.00001.)

    Shapes: x (..., in) -> (..., out); lora_A (r, in) and lora_B (out, r) start at N(0, 0.02^2),
    lora_E (r,) at zero. rank_scores (r,): the triplets' latest scores, zero before the first step.
    """

    def __init__(self, base: nn.Module, r: int, scaling: float, lora_dropout: float = 0.0):
        super().__init__(base, r, scaling, lora_dropout)
        nn.init.normal_(self.lora_A, std=0.02)
        nn.init.normal_(self.lora_B, std=0.02)
        self.lora_E = nn.Parameter(self.lora_A.new_zeros(r))
        self.register_buffer("rank_scores", self.lora_A.new_zeros(r))

    def forward(self, x: Tensor) -> Tensor:
        return self.base_plus_low_rank(x, self.lora_E)

    def delta_weight(self) -> Tensor:
        return self.scaling * ((self.lora_B * self.lora_E) @ self.lora_A)

    def rank_importance(self) -> Tensor:
        return self.rank_scores


def orthogonality(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """How far the rows of every A (r, in), and the columns of every B (out, r), are from being
    orthonormal: the mean over all of them of ||A A^T - I||_F and ||B^T B - I||_F."""
    grams = [gram for A, B in pairs for gram in (A @ A.T, B.T @ B)]
    eyes = {len(gram): torch.eye(len(gram)).to(gram) for gram in grams}
    return torch.stack([(gram - eyes[len(gram)]).norm() for gram in grams]).mean()


@dataclass(frozen=True)
class AdaLoRA(Method):
    """Adaptive low-rank adaptation.

    r: ranks of each module at the start; target_r: ranks a module at the end, on average. tinit and
    tfinal: how long all ranks are kept at the start, and the last choice at the end, in steps, None
    for a tenth and for half of the run; in between the budget falls along a cubic. deltaT: steps
    from one choice to the next. beta1, beta2: smoothing of the sensitivity and of its uncertainty.
    orth_reg_weight: how strongly A and B are kept near orthonormal, in training. The scores take
    twice the adapter's memory until the choice is final. A second run starts with all r ranks again.
    """

    r: int = 12
    target_r: int = 8
    tinit: int | None = None
    tfinal: int | None = None
    deltaT: int = 10
    beta1: float = 0.85
    beta2: float = 0.85
    orth_reg_weight: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        target = self.target_r
        require(self.r >= 2, "r", self.r, "an integer of at least 2, to prune from")
        require(
            isinstance(target, int) and 1 <= target < self.r,
            "target_r", target, f"an integer from 1 to r - 1 = {self.r - 1}",
        )  # fmt: skip
        for argument, least in (("tinit", 0), ("tfinal", 1)):
            require_whole(self, argument, least, or_none=True)
        require_whole(self, "deltaT", 1)
        require_smoothing(self)

    def wrap(self, base: nn.Module) -> AdaLoRALinear:
        return AdaLoRALinear(base, self.r, self.scaling, self.lora_dropout)

    def schedule(
        self, model: nn.Module, optimizer: optim.Optimizer, total_steps: int
    ) -> AdaLoRASchedule:
        return AdaLoRASchedule(self, model, optimizer, total_steps)


def require_smoothing(method: Method) -> None:
    """Check the settings that AdaLoRA and IncreLoRA share."""
    for argument in ("beta1", "beta2"):
        value = getattr(method, argument)
        number = isinstance(value, int | float) and 0 < value < 1
        require(number, argument, value, "a number between 0 and 1")
    weight = method.orth_reg_weight
    number = isinstance(weight, int | float) and 0 <= weight < math.inf
    require(number, "orth_reg_weight", weight, "a finite number of at least 0")


def rank_budget(t: int, total_steps: int, tinit: int, tfinal: int, first: int, target: int) -> int:
    """How many ranks all modules together may keep after optimizer step t + 1 (the official code
    counts from 0): `first` up to tinit, `target` from total_steps - tfinal on, a cubic in between,
    steep at first, rounded down."""
    if t <= tinit:
        return first
    left = max(0.0, 1 - (t - tinit) / (total_steps - tfinal - tinit))
    return int((first - target) * left**3 + target)


class AdaLoRASchedule(Schedule):
    """Scores the ranks of one AdaLoRA run after every step, and prunes to the budget.

    kept: {module: (r,) bool}, the ranks that the latest choice kept. A pruned rank's E is zero, and
    goes on being trained until the next choice: it may earn its place back. After
    total_steps - tfinal the choice is final. An event's threshold is the lowest score that was
    kept, score_before the rank's own.
    """

    def __init__(
        self, method: AdaLoRA, model: nn.Module, optimizer: optim.Optimizer, total_steps: int
    ):
        super().__init__(model, optimizer, total_steps)
        self.method = method
        self.layers = require_layers(model, AdaLoRALinear)
        self.tinit = total_steps // 10 if method.tinit is None else method.tinit
        self.tfinal = max(1, total_steps // 2) if method.tfinal is None else method.tfinal
        require(
            self.tinit + self.tfinal < total_steps,
            "tinit + tfinal", self.tinit + self.tfinal, f"less than total_steps={total_steps}",
        )  # fmt: skip
        self.kept = {name: torch.ones(la.r, dtype=torch.bool) for name, la in self.layers.items()}
        self.sensitivity = self._fresh_sensitivity()

    def _fresh_sensitivity(self) -> dict[str, dict[str, SmoothedSensitivity]]:
        beta1, beta2 = self.method.beta1, self.method.beta2
        return {
            name: {part: SmoothedSensitivity(beta1, beta2) for part in _TRIPLET}
            for name in self.layers
        }

    def loss(self) -> Tensor:
        pairs = ((layer.lora_A, layer.lora_B) for layer in self.layers.values())
        return self.method.orth_reg_weight * orthogonality(pairs)

    @torch.no_grad()
    def step(self, n: int) -> list[RankEvent]:
        t, freeze = n - 1, self.total_steps - self.tfinal  # the official code counts from 0
        if t < freeze:
            self._update_scores()
        due = t == freeze or (self.tinit < t < freeze and t % self.method.deltaT == 0)
        events = self._choose(n) if due else []
        if due or t > freeze:
            for name, layer in self.layers.items():
                layer.lora_E[~self.kept[name].to(layer.lora_E.device)] = 0
        if t == freeze:
            self.sensitivity.clear()
        return events

    def _update_scores(self) -> None:
        for name, layer in self.layers.items():
            scores = {}
            for part, smoothed in self.sensitivity[name].items():
                parameter = getattr(layer, part)
                gradient = 0 if parameter.grad is None else parameter.grad
                scores[part] = smoothed.update((parameter * gradient).abs())
            rows_and_columns = sensitivity_importance(
                layer.lora_A, layer.lora_B, scores["lora_A"], scores["lora_B"]
            )
            layer.rank_scores = scores["lora_E"] + rows_and_columns

    def scores(self, n: int) -> dict[str, Tensor]:
        """What the choice after step n goes by: {module: (r,)}."""
        return {name: layer.rank_scores for name, layer in self.layers.items()}

    def budget(self, n: int) -> int:
        """How many ranks all modules together may keep after step n."""
        modules, method = len(self.layers), self.method
        return rank_budget(
            n - 1, self.total_steps, self.tinit, self.tfinal,
            modules * method.r, modules * method.target_r,
        )  # fmt: skip

    def _choose(self, n: int) -> list[RankEvent]:
        scores = self.scores(n)
        masks = budget_mask(scores, self.budget(n))
        kept_scores = [scores[name][~mask.to(scores[name].device)] for name, mask in masks.items()]
        threshold = torch.cat(kept_scores).min().item()
        events = []
        for name, mask in masks.items():
            for slot, (kept, pruned) in enumerate(zip(self.kept[name].tolist(), mask.tolist())):
                if kept == pruned:
                    kind = "prune" if pruned else "revive"
                    score = scores[name][slot].item()
                    events.append(RankEvent(n, kind, name, slot, None, threshold, score))
            self.kept[name] = ~mask
        return events

    def state_dict(self) -> dict:
        return {
            "kept": dict(self.kept),
            "rank_scores": {name: layer.rank_scores for name, layer in self.layers.items()},
            "sensitivity": {
                name: {part: (each.mean, each.uncertainty) for part, each in parts.items()}
                for name, parts in self.sensitivity.items()
            },
        }

    def load_state_dict(self, state: dict) -> None:
        if set(state) != {"kept", "rank_scores", "sensitivity"}:
            raise ValueError(f"state={sorted(state)}: allowed is the state of an AdaLoRASchedule")
        sizes = {name: layer.r for name, layer in self.layers.items()}
        loaded = self._fresh_sensitivity() if state["sensitivity"] else {}
        try:
            same = {name: len(kept) for name, kept in state["kept"].items()} == sizes
            same &= {name: len(scores) for name, scores in state["rank_scores"].items()} == sizes
            for name, parts in loaded.items():
                for part, smoothed in parts.items():
                    like = getattr(self.layers[name], part)
                    means = (torch.as_tensor(m).to(like) for m in state["sensitivity"][name][part])
                    smoothed.mean, smoothed.uncertainty = (m.expand_as(like) for m in means)
        except (KeyError, RuntimeError):
            same = False
        if not same:
            raise ValueError("state: its ranks are of another model: names or sizes differ")
        self.kept, self.sensitivity = dict(state["kept"]), loaded
        for name, layer in self.layers.items():
            layer.rank_scores.copy_(state["rank_scores"][name])
