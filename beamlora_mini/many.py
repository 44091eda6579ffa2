"""Many small runs at once, on one frozen model.

A tiny model leaves most of a processor idle. Here S runs, which may differ in method, rank, learning
rate and seed, share every pass through the frozen layers; what each adds, its own pair of factors
(`AdapterLayer.plain`), is stacked with the others' for one batched product. Each run has the batches
and the start that `fit` would give it, and a `Run` of its own.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batches import Room, collate, device_of, in_mode, padding_id, plan_batches, tokenizer_of
from .checks import require, require_whole
from .events import RankEvent
from .layers import AdapterLayer, attach, trainable_parameters
from .layers.attach import replace_modules
from .loss import token_losses
from .machine import progress_bar
from .methods import Method
from .run import Run
from .tasks import Task, split_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True)
class Trial:
    """One run of `fit_many`: what to train, how fast, from which seed."""

    method: Method
    lr: float
    seed: int = 0


@dataclass
class Outcome:
    """What came of a trial: its model, which shares the frozen weights; losses, one a step; events
    of its schedule; the step at which its loss was no longer finite, since when it stands still."""

    trial: Trial
    model: nn.Module
    losses: list[float] = field(default_factory=list)
    events: list[RankEvent] = field(default_factory=list)
    diverged: int | None = None


class SideBySide(nn.Module):
    """One frozen layer and S adapters on it, None where a run has none here: the rows of x come in S
    equal blocks, (S * n, ..., in) -> (S * n, ..., out)."""

    def __init__(self, base: nn.Module, adapters: Sequence[AdapterLayer | None]):
        super().__init__()
        self.base = base
        self.adapters = list(adapters)  # of their own models: no modules of this one

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        A, B = self.factors(y.dtype)
        rows = x.reshape(len(A), -1, x.shape[-1])
        out = torch.baddbmm(y.reshape(len(A), -1, y.shape[-1]), rows.to(y.dtype) @ A.mT, B.mT)
        if any(type(a).observe is not AdapterLayer.observe for a in self.adapters if a):
            seen = zip(self.adapters, out.unbind(), rows)
            out = torch.stack([a.observe(y.clone(), x) if a else y for a, y, x in seen])
        return out.view(y.shape)

    @property
    def weight(self) -> Tensor:
        raise TypeError(
            "fit_many: the model reads a layer's weight instead of calling the layer: allowed are "
            "target_modules that it calls; use fit"
        )

    def factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(A (S, r, in), B (S, out, r)), filled up with zeros to the largest rank; A is scaled."""
        pairs = [a.plain() if a else None for a in self.adapters]
        most = max(len(pair[0]) for pair in pairs if pair)
        some_A, some_B = next(pair for pair in pairs if pair)
        As, Bs = [], []
        for adapter, pair in zip(self.adapters, pairs):
            A, B = pair or (some_A.detach()[:0], some_B.detach()[:, :0])
            missing = most - len(A)
            As.append(F.pad(adapter.scaling * A if adapter else A, (0, 0, 0, missing)))
            Bs.append(F.pad(B, (0, missing)))
        return torch.stack(As).to(dtype), torch.stack(Bs).to(dtype)


def fit_many(
    model: nn.Module,
    task: Task,
    trials: Sequence[Trial],
    *,
    steps: int,
    batch_size: int = 16,
    warmup: float = 0.05,
    max_grad_norm: float | None = 1.0,
    tokenizer: Tokenizer | None = None,
    max_length: int | None = None,
    progress: bool = True,
) -> list[Outcome]:
    """Run all trials side by side on `model`, whose weights they share and which is frozen by it.

    Any method whose update is one pair of factors (`plain`), which DoRA's is not, without dropout,
    whose random numbers would be others than `fit`'s. Ranks and target modules may differ. Settings
    as in `fit`, whose losses each trial reproduces but for the order of sums (and for dropout inside
    the frozen model itself, which draws once for all). Uses the memory of S batches.

    A trial whose loss is not finite is named in a warning and stops; the others go on.

    Raises ValueError for dropout, `modules_to_save` or an empty list, and for rows as `fit` does,
    TypeError for a method without `plain`; then nothing has changed.
    """
    require(len(trials) > 0, "trials", trials, "a non-empty list")
    steps = require_whole("steps", steps, 1)
    batch_size = require_whole("batch_size", batch_size, 1)
    for trial in trials:
        if not isinstance(trial, Trial):
            raise TypeError(f"trials: {trial!r}: allowed is Trial(method, lr, seed)")
        require_whole("seed", trial.seed, 0)
        dropout = trial.method.lora_dropout
        require(dropout == 0, "lora_dropout", dropout, "0 in fit_many; use fit")
    tokenizer, rows = tokenizer_of(model, tokenizer), split_of(task, "train")
    room = Room.of(model)
    room.check_max_length(max_length)
    pad = padding_id(tokenizer, room)
    shared = {id(p): p for p in model.parameters()}
    flags = {p: p.requires_grad for p in model.parameters()}
    outcomes, plans, runs = [], [], []
    try:
        for trial in trials:
            own = copy.deepcopy(model, dict(shared)).train()
            torch.manual_seed(int(trial.seed))
            plan = plan_batches(
                rows, tokenizer, steps, batch_size, int(trial.seed), room, max_length
            )
            plans.append(plan)
            layer, *_ = attach(own, trial.method).values()
            own.__dict__["_trainable_before_attach"] = set()  # the weights are not its own
            if any(id(p) in shared for p in trainable_parameters(own).values()):
                saved = trial.method.modules_to_save
                raise ValueError(
                    f"modules_to_save={saved!r}: allowed are none in fit_many, whose trials share all "
                    "but their adapters; use fit"
                )
            layer.plain()
            plainly = (AdapterLayer.forward, AdapterLayer.adapter_input)
            if (type(layer).forward, type(layer).adapter_input) != plainly:
                raise TypeError(f"method={trial.method!r}: its layer does more than add factors")
            settings = {"warmup": warmup, "max_grad_norm": max_grad_norm}
            runs.append(Run(own, steps=steps, lr=trial.lr, **settings))
            outcomes.append(Outcome(trial, own))
        together = _put_together(copy.deepcopy(model, dict(shared)), runs)
        with (
            in_mode(together, train=True),
            progress_bar(steps, f"fit {len(trials)} runs", progress) as bar,
        ):
            for n in range(1, steps + 1):
                examples = [example for plan in plans for example in plan[n - 1]]
                _step(together, collate(examples, pad, device_of(model)), runs, outcomes, n)
                bar.update()
    except BaseException:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        raise
    for outcome in outcomes:
        outcome.model.train(model.training)
    return outcomes


def _step(
    together: nn.Module, batch: dict[str, Tensor], runs: list[Run], outcomes: list[Outcome], n: int
) -> None:
    """Step n of all runs; one whose loss is not finite makes no further ones."""
    by_token, counted = token_losses(together, batch)
    of_run = (len(runs), -1)
    losses = by_token.view(of_run).sum(1) / counted.view(of_run).sum(1)
    sum((run.loss() for run in runs), start=losses.sum()).backward()
    for run, outcome, loss in zip(runs, outcomes, losses.tolist()):
        outcome.losses.append(loss)
        if outcome.diverged is None and not math.isfinite(loss):
            outcome.diverged = n
            warnings.warn(f"step {n}: the loss of {outcome.trial} is {loss}", stacklevel=3)
        if outcome.diverged is None:
            outcome.events += run.update()
        else:
            run.optimizer.zero_grad()


def _put_together(model: nn.Module, runs: list[Run]) -> nn.Module:
    """A copy of the model in which every adapted layer does the work of all runs."""
    adapters = [run.schedule.layers for run in runs]
    names = dict.fromkeys(name for own in adapters for name in own)
    for name in names:
        here = [own.get(name) for own in adapters]
        base = next(layer.base for layer in here if layer is not None)
        replace_modules(model, {model.get_submodule(name): SideBySide(base, here)})
    return model
