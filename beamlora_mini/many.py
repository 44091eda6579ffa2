"""Many small runs at once: their adapters stacked beside one frozen model.

A tiny model leaves most of a processor idle. Here S runs, which may differ in method, learning rate
and seed, share every pass through the frozen layers; their adapters are (S, r, in) and (S, out, r)
tensors, applied by one batched product. Each run sees the batches and gets the start that `fit`
would give it, and its own gradient clipping, learning rate and events.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from .adapters import adapter_layers, attach
from .events import RankEvent
from .machine import progress_bar
from .methods import BeamLoRA, LoRA
from .methods.base import Method, Schedule, require
from .ranks import score_importance
from .tasks import load_task
from .training import collate, plan_batches, token_losses

PARTS = ("lora_A", "lora_B", "scores")
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # AdamW's defaults; no weight decay


@dataclass(frozen=True)
class Trial:
    """One run of `fit_many`: what to train, how fast, from which seed."""

    method: Method
    lr: float
    seed: int = 0


@dataclass
class Outcome:
    """What came of a trial: its model, which shares the frozen weights; losses, one a step; events
    of its schedule."""

    trial: Trial
    model: nn.Module
    losses: list[float] = field(default_factory=list)
    events: list[RankEvent] = field(default_factory=list)


class StackedLinear(nn.Module):
    """S low-rank adapters on one frozen linear layer: the rows of x come in S equal blocks.

    lora_A (S, r, in), lora_B (S, out, r), scores (S, r), temperature and scaling (S, 1).
    """

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        first = layers[0]
        self.base = first.base
        self.lora_A = nn.Parameter(torch.stack([layer.lora_A.detach() for layer in layers]))
        self.lora_B = nn.Parameter(torch.stack([layer.lora_B.detach() for layer in layers]))
        scored = [hasattr(layer, "scores") for layer in layers]
        self.scores = nn.Parameter(self.lora_A.new_zeros(len(layers), first.r), any(scored))
        hot = [getattr(layer, "temperature", 1.0) for layer in layers]
        self.temperature = self.lora_A.new_tensor(hot)[:, None]
        self.scaling = self.lora_A.new_tensor([layer.scaling for layer in layers])[:, None]
        # From here on each layer is a view of the stack, so schedules and `evaluate` work on it.
        for s, (layer, has_scores) in enumerate(zip(layers, scored)):
            for part in PARTS if has_scores else PARTS[:2]:
                getattr(layer, part).data = getattr(self, part).data[s]

    def forward(self, x: Tensor) -> Tensor:
        weights = self.scaling.expand_as(self.scores)
        if self.scores.requires_grad:
            weights = weights * torch.func.vmap(score_importance)(self.scores, self.temperature)
        y = self.base(x)
        rows = x.reshape(len(self.scores), -1, x.shape[-1])
        z = (rows @ self.lora_A.mT) * weights[:, None]
        return torch.baddbmm(y.view(len(z), -1, y.shape[-1]), z, self.lora_B.mT).view_as(y)


def fit_many(
    model: nn.Module,
    task: str,
    trials: list[Trial],
    *,
    steps: int,
    batch_size: int = 16,
    warmup: float = 0.05,
    max_grad_norm: float = 1.0,
    progress: bool = True,
) -> list[Outcome]:
    """Run all trials side by side on `model`, whose weights they share and which is frozen by it.

    The trials' methods are LoRA or BeamLoRA without dropout, all of one rank. Settings as in `fit`,
    whose losses each trial reproduces but for the order of sums. Uses the memory of S batches.

    Raises ValueError for other methods, mixed ranks or an empty list.
    """
    require(len(trials) > 0, "trials", trials, "a non-empty list")
    for trial in trials:
        plain = isinstance(trial.method, LoRA | BeamLoRA) and trial.method.lora_dropout == 0
        require(plain, "method", trial.method, "LoRA or BeamLoRA without dropout")
        same = trial.method.r == trials[0].method.r
        require(same, "r", trial.method.r, f"one rank for all trials, {trials[0].method.r}")
    rows, tokenizer = load_task(task)["train"], model.tokenizer
    shared = {id(p): p for p in model.parameters()}
    outcomes, plans = [], []
    for trial in trials:
        own = copy.deepcopy(model, dict(shared))
        torch.manual_seed(trial.seed)
        plans.append(plan_batches(rows, tokenizer, steps, batch_size, trial.seed))
        attach(own, trial.method)
        outcomes.append(Outcome(trial, own))
    stacked = copy.deepcopy(model, dict(shared))
    adapters = [adapter_layers(outcome.model) for outcome in outcomes]
    layers = {name: StackedLinear([own[name] for own in adapters]) for name in adapters[0]}
    for name, layer in layers.items():
        stacked.set_submodule(name, layer)
    adam = _StackedAdam(layers, outcomes, adapters)
    schedules = adam.schedules(steps)
    rates = torch.tensor([_rates(trial, round(warmup * steps), steps) for trial in trials]).T

    stacked.train()
    bar = progress_bar(steps, f"fit {len(trials)} runs", progress)
    for n in range(1, steps + 1):
        batch = [example for plan in plans for example in plan[n - 1]]
        batch = collate(batch, tokenizer.pad_token_id, model.device)
        by_token, counted = token_losses(stacked, batch)
        of_trial = (len(trials), -1)
        losses = by_token.view(of_trial).sum(1) / counted.view(of_trial).sum(1)
        losses.sum().backward()
        adam.step(rates[n - 1], max_grad_norm)
        for s, outcome in enumerate(outcomes):
            outcome.losses.append(losses[s].item())
            outcome.events += schedules[s].step(n)
        bar.update()
    bar.close()
    return outcomes


def _rates(trial: Trial, warmup_steps: int, steps: int) -> list[float]:
    """The learning rate of every step, from the method's own scheduler."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=trial.lr)
    scheduler = trial.method.lr_scheduler(optimizer, warmup_steps, steps)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


class _StackedAdam:
    """Adam over stacked parameters: one learning rate and one gradient norm for each trial."""

    def __init__(
        self,
        layers: dict[str, StackedLinear],
        outcomes: list[Outcome],
        adapters: list[dict[str, nn.Module]],
    ):
        self.outcomes, self.count = outcomes, 0
        ratio = [getattr(o.trial.method, "score_lr_ratio", 0.0) for o in outcomes]
        parts = [(name, layer, part) for name, layer in layers.items() for part in PARTS]
        self.parameters = [
            (p, torch.zeros_like(p), torch.zeros_like(p), torch.tensor(ratio) if part == "scores" else 1.0)
            for _, layer, part in parts
            if (p := getattr(layer, part)).requires_grad
        ]  # fmt: skip
        # What a trial's schedule sees of the optimizer: views of the stacked moments.
        self.views = [SimpleNamespace(state={}) for _ in outcomes]
        moments = {p: (m, v) for p, m, v, _ in self.parameters}
        for s, adapter in enumerate(adapters):
            for name, layer, part in parts:
                own, stack = adapter[name], getattr(layer, part)
                if stack in moments and hasattr(own, part):
                    m, v = moments[stack]
                    state = {"exp_avg": m[s], "exp_avg_sq": v[s]}
                    self.views[s].state[getattr(own, part)] = state

    def schedules(self, steps: int) -> list[Schedule]:
        return [
            outcome.trial.method.schedule(outcome.model, view, steps)
            for outcome, view in zip(self.outcomes, self.views)
        ]

    @torch.no_grad()
    def step(self, rates: Tensor, max_grad_norm: float) -> None:
        self.count += 1
        squares = [p.grad.flatten(1).square().sum(1) for p, *_ in self.parameters]
        norms = torch.stack(squares).sum(0).sqrt()
        clip = (max_grad_norm / (norms + 1e-6)).clamp(max=1)
        for p, m, v, ratio in self.parameters:
            each = (-1,) + (1,) * (p.ndim - 1)
            gradient = p.grad * clip.view(each)
            m.lerp_(gradient, 1 - BETA1)
            v.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
            size = (v / (1 - BETA2**self.count)).sqrt_().add_(EPSILON)
            p.sub_((rates * ratio / (1 - BETA1**self.count)).view(each) * m / size)
            p.grad = None
