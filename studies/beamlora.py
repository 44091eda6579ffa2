"""LoRA against BeamLoRA on the tiny model, with tuned rates: data/results/beamlora_study.parquet.

python -m studies.beamlora                  # all settings, about half an hour on one core
python -m studies.beamlora subtraction      # one of them, the others' results are kept

For each setting: every variant's learning rate is chosen on the seeds in TUNING, by mean exact match
on the first 300 test prompts; then the variant is run with that rate on the seeds in FRESH, and
measured on all 500. The ablations take the learning rate of the variant that they change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

import beamlora_mini as bl
from beamlora_mini.many import Trial, fit_many
from beamlora_mini.methods.beamlora import BeamSchedule
from beamlora_mini.ranks import reset_ranks_

from .common import FRESH, TUNING, best_rates, main, measure, with_schedule

RATES = (2e-3, 4e-3, 8e-3)


class PruneOnly(BeamSchedule):
    def replace(self, layer, slots, sources):
        reset_ranks_(layer, self.optimizer, slots, init="zero")


class FreshStart(BeamSchedule):
    def replace(self, layer, slots, sources):
        reset_ranks_(layer, self.optimizer, slots, init="kaiming")


class RandomPruning(BeamSchedule):
    """As many ranks in each module as BeamLoRA would prune, but any."""

    def choose(self, n, importances, p):
        generator = torch.Generator().manual_seed(n)
        masks = super().choose(n, importances, p)
        return {
            name: mask[torch.randperm(len(mask), generator=generator)]
            for name, mask in masks.items()
        }


def variants(r: int, steps: int) -> dict[str, bl.LoRA | bl.BeamLoRA]:
    """What is tuned. "published" keeps the paper's temperature, threshold and pairing, and ten periods,
    though not its speed: with Adam a score moves by lr / temperature a step, 0.04 to 0.16 over RATES,
    0.006 in the paper. "gentle" has slower scores, fewer events, and pairs that preserve what the
    source added."""
    common = {"r": r, "lora_alpha": 2 * r}
    return {
        "LoRA": bl.LoRA(**common),
        "BeamLoRA, published": bl.BeamLoRA(**common, period=steps // 10),
        "BeamLoRA, gentle": bl.BeamLoRA(
            **common,
            period=steps // 4,
            first_event=steps // 4,
            score_lr_ratio=0.1,
            share="preserve",
        ),
    }


def ablations(r: int, steps: int) -> dict[str, bl.LoRA | bl.BeamLoRA]:
    """What is changed about "BeamLoRA, published"; the others of `variants` at its learning rate."""
    others = variants(r, steps)
    beam = others.pop("BeamLoRA, published")
    settings = {"r": r, "lora_alpha": 2 * r, "period": steps // 10}
    return others | {
        "scores only": replace(beam, period=steps),
        "prune only": with_schedule(beam, PruneOnly),
        "fresh start": with_schedule(beam, FreshStart),
        "random pruning": with_schedule(beam, RandomPruning),
        "current copies": replace(beam, snapshot_lag=0),
        "moments not copied": replace(beam, copy_moments=False),
        "as published": bl.BeamLoRA.as_published(**settings),
        "half the events": replace(beam, period=steps // 5),
        "slow scores": replace(beam, score_lr_ratio=0.1),
        "weight-preserving": replace(beam, share="preserve"),
    }


@dataclass(frozen=True)
class Setting:
    task: str
    r: int
    steps: int
    with_ablations: bool = False


SETTINGS = {
    "subtraction": Setting("subtraction", 8, 500, with_ablations=True),
    "ciphers": Setting("ciphers", 8, 500),
    "more ranks": Setting("subtraction", 24, 500),
}


def run(model, setting: Setting, methods: dict, rates: dict, seeds, phase: str, limit: int):
    """One row for each variant, learning rate and seed."""
    named = [
        (name, Trial(method, rate, seed))
        for name, method in methods.items()
        for rate in rates[name]
        for seed in seeds
    ]
    rows = []
    for start in range(0, len(named), 24):
        part = named[start : start + 24]
        outcomes = fit_many(
            model, setting.task, [trial for _, trial in part], steps=setting.steps, batch_size=16
        )
        for (name, trial), outcome in zip(part, outcomes, strict=True):
            row = {"phase": phase, "variant": name, "lr": trial.lr, "seed": trial.seed}
            result = measure(outcome.model, outcome.losses, outcome.events, setting.task, limit)
            rows.append(row | result)
    return rows


def study(setting: Setting) -> list[dict]:
    model, _ = bl.load_model("tiny", device="cpu")
    tuned = variants(setting.r, setting.steps)
    grid = dict.fromkeys(tuned, RATES)
    rows = run(model, setting, tuned, grid, TUNING, "tuning", 300)
    rates = best_rates(rows)
    rows += run(model, setting, tuned, rates, FRESH, "fresh", 500)
    if setting.with_ablations:
        changed = ablations(setting.r, setting.steps)
        same = dict.fromkeys(changed, rates["BeamLoRA, published"])
        rows += run(model, setting, changed, same, FRESH, "ablation", 500)
    facts = {"task": setting.task, "r": setting.r, "steps": setting.steps, "batch_size": 16}
    return [facts | row for row in rows]


if __name__ == "__main__":
    main(__doc__, "beamlora_study.parquet", SETTINGS, study)
