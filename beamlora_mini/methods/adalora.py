"""AdaLoRA (Zhang et al., arXiv 2303.10512): start with too many ranks and keep the best.

LoRA gives every module the same rank. AdaLoRA writes the update like a singular value
decomposition, B diag(E) A, and can so take a rank out by setting its E to zero. It starts with r
ranks a module and, while it trains, lowers the number that all modules share towards target_r a
module; the ranks whose triplet (E_i, row i of A, column i of B) the loss is most sensitive to stay,
wherever they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn, optim

from ..checks import is_whole, require, require_number, require_whole
from ..events import RankEvent
from ..layers import AdapterLayer, without_autocast
from ..ranks import budget_mask, sensitivity_importance, smooth_sensitivities_
from .base import Method, RankSchedule


class AdaLoRALinear(AdapterLayer):
    """y = W x + b + s B (E * (A x)), with s = alpha / r for the r it starts with, for good. (peft and
    the official code divide by r + 0.00001.)

    Shapes: x (..., in) -> (..., out); lora_A (r, in) and lora_B (out, r) start at N(0, 0.02^2),
    lora_E (r,) at zero. rank_scores (r,): the triplets' latest scores, zero before the first step.
    kept (r,) bool: what the latest choice kept.
    """

    rank_axes: ClassVar = {"lora_A": 0, "lora_B": 1, "lora_E": 0, "rank_scores": 0, "kept": 0}

    lora_E: Tensor
    rank_scores: Tensor
    kept: Tensor

    def start(self) -> None:
        A = torch.empty(self.r, self.in_features, dtype=self.factor_dtype)
        B = torch.empty(self.out_features, self.r, dtype=self.factor_dtype)
        self.lora_A = self.trained(nn.init.normal_(A, std=0.02))
        self.lora_B = self.trained(nn.init.normal_(B, std=0.02))
        self.lora_E = self.trained(torch.zeros(self.r))
        self.register_buffer("rank_scores", torch.zeros_like(self.lora_E.detach()))
        self.register_buffer("kept", torch.ones_like(self.lora_E, dtype=torch.bool))

    def rank_weights(self) -> Tensor:
        return self.lora_E

    def rank_importance(self) -> Tensor:
        return self.rank_scores.clone()


def orthogonality(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """How far the rows of every A (r, in), and the columns of every B (out, r), are from being
    orthonormal: the mean over all of them of ||A A^T - I||_F and ||B^T B - I||_F."""
    by_size: dict[tuple, list[Tensor]] = {}
    for A, B in pairs:
        with without_autocast(A.device.type):
            for gram in (A @ A.T, B.T @ B):
                by_size.setdefault((len(gram), gram.device), []).append(gram)
    norms = []
    for (size, device), grams in by_size.items():
        stacked = torch.stack(grams)
        eye = torch.eye(size, device=device, dtype=stacked.dtype)
        norms.append((stacked - eye).flatten(1).norm(dim=1).to(next(iter(by_size))[1]))
    return torch.cat(norms).mean()


def rank_budget(t: int, total_steps: int, tinit: int, tfinal: int, first: int, target: int) -> int:
    """How many ranks all modules together may keep after optimizer step t + 1 (the official code
    counts from 0): `first` up to tinit, `target` from total_steps - tfinal on, a cubic in between,
    steep at first, rounded down."""
    if t <= tinit:
        return first
    left = max(0.0, 1 - (t - tinit) / (total_steps - tfinal - tinit))
    return int((first - target) * left**3 + target)


class AdaLoRASchedule(RankSchedule):
    """Scores the ranks of one AdaLoRA run after every step, and prunes to the budget.

    A pruned rank's E is zero, and goes on being trained until the next choice: it may earn its place
    back. After total_steps - tfinal the choice is final. An event's threshold is the lowest score
    that was kept, score_before the rank's own. A step that the optimizer left out scores nothing.

    sensitivity: what the scores are made of, running averages of every entry of A, B and E, as large
    as Adam's moments; empty once the choice is final.
    """

    parts = ("lora_A", "lora_B", "lora_E")

    def __init__(
        self, method: AdaLoRA, model: nn.Module, optimizer: optim.Optimizer, total_steps: int
    ):
        super().__init__(method, model, optimizer, total_steps)
        self.tinit = total_steps // 10 if method.tinit is None else method.tinit
        self.tfinal = max(1, total_steps // 2) if method.tfinal is None else method.tfinal
        require(
            self.tinit + self.tfinal < total_steps,
            "tinit + tfinal", self.tinit + self.tfinal, f"less than total_steps={total_steps}",
        )  # fmt: skip
        self.sensitivity = self._fresh_sensitivity()

    def _fresh_sensitivity(self) -> dict[str, list[Tensor]]:
        fresh = lambda: [torch.zeros_like(p) for p in self._parameters()]
        return {"mean": fresh(), "uncertainty": fresh()}

    def _parameters(self) -> list[nn.Parameter]:
        layers = self.layers.values()
        return [getattr(layer, part) for part in self.parts for layer in layers]

    @property
    def kept(self) -> dict[str, Tensor]:
        """{module: (r,) bool}: the ranks that the latest choice kept."""
        return {name: layer.kept for name, layer in self.layers.items()}

    def loss(self) -> Tensor:
        pairs = ((layer.lora_A, layer.lora_B) for layer in self.layers.values())
        return self.method.orth_reg_weight * orthogonality(pairs)

    @torch.no_grad()
    def step(self, n: int) -> list[RankEvent]:
        t, freeze = n - 1, self.total_steps - self.tfinal  # the official code counts from 0
        if n == 1:
            for layer in self.layers.values():
                layer.kept.fill_(True)
        if t < freeze and not self.step_was_skipped():
            self._update_scores()
        due = t == freeze or (self.tinit < t < freeze and t % self.method.deltaT == 0)
        events = self._choose(n) if due else []
        if due or t > freeze:
            for layer in self.layers.values():
                layer.lora_E.mul_(layer.kept)
        if t == freeze:
            self.sensitivity = {}
        return events

    def _update_scores(self) -> None:
        trained: list[Any] = self._parameters()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        sensitivities = list(torch._foreach_mul(trained, gradients))
        torch._foreach_abs_(sensitivities)
        scores = smooth_sensitivities_(
            sensitivities, self.sensitivity["mean"], self.sensitivity["uncertainty"],
            self.method.beta1, self.method.beta2,
        )  # fmt: skip
        count = len(self.layers)
        of_A, of_B, of_E = scores[:count], scores[count : 2 * count], scores[2 * count :]
        for layer, A, B, E in zip(self.layers.values(), of_A, of_B, of_E):
            layer.rank_scores.copy_(E + sensitivity_importance(layer.lora_A, layer.lora_B, A, B))

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
        masks = budget_mask(self.scores(n), self.budget(n))
        scores = {name: values.tolist() for name, values in self.scores(n).items()}
        staying = {(name, i) for name, mask in masks.items() for i in (~mask).nonzero().flatten().tolist()}  # fmt: skip
        threshold = min(scores[name][i] for name, i in staying)
        events = []
        for name, layer in self.layers.items():
            for slot, was_kept in enumerate(layer.kept.tolist()):
                if was_kept != ((name, slot) in staying):
                    kind = "prune" if was_kept else "revive"
                    score = scores[name][slot]
                    events.append(RankEvent(n, kind, name, slot, None, threshold, score))
            layer.kept.copy_(~masks[name])
        return events

    def state_dict(self) -> dict:
        return {"sensitivity": self.sensitivity}

    def load_state_dict(self, state: dict) -> None:
        if set(state) != {"sensitivity"}:
            raise ValueError(f"state={sorted(state)}: allowed is the state of an AdaLoRASchedule")
        fresh = self._fresh_sensitivity() if state["sensitivity"] else {}
        for key, averages in fresh.items():
            saved = state["sensitivity"].get(key, [])
            if [p.shape for p in averages] != [p.shape for p in saved]:
                raise ValueError("state: its ranks are of another model: sizes differ")
            torch._foreach_copy_(averages, list(saved))
        self.sensitivity = fresh


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

    Layer: ClassVar = AdaLoRALinear
    Schedule: ClassVar = AdaLoRASchedule

    def __post_init__(self):
        super().__post_init__()
        target = self.target_r
        require(self.r >= 2, "r", self.r, "an integer of at least 2, to prune from")
        allowed = f"an integer from 1 to r - 1 = {self.r - 1}"
        require(is_whole(target, 1) and target < self.r, "target_r", target, allowed)
        require_whole("tinit", self.tinit, 0, or_none=True)
        require_whole("tfinal", self.tfinal, 1, or_none=True)
        require_whole("deltaT", self.deltaT, 1)
        require_smoothing(self)


def require_smoothing(method: Any) -> None:
    """Check the settings that AdaLoRA and IncreLoRA share."""
    for argument in ("beta1", "beta2"):
        value = getattr(method, argument)
        require_number(argument, value, "a number between 0 and 1", above=0, below=1)
    weight = method.orth_reg_weight
    require_number("orth_reg_weight", weight, "a finite number of at least 0", least=0)
