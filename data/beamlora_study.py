"""LoRA against BeamLoRA on the tiny model, with tuned learning rates: data/results/beamlora_study.json.

python data/beamlora_study.py                  # all settings, about half an hour on one core
python data/beamlora_study.py subtraction      # one of them, the others' results are kept

For each setting: every variant's learning rate is chosen on the seeds in TUNING, by mean exact match
on the first 300 test prompts; then the variant is run with that rate on the seeds in FRESH, and
measured on all 500. The ablations take the learning rate of the variant that they change.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import beamlora_mini as bl
from beamlora_mini.bench import processor, versions
from beamlora_mini.many import Outcome, Trial, fit_many
from beamlora_mini.methods.beamlora import BeamSchedule
from beamlora_mini.ranks import reset_ranks_

FILE = Path(__file__).parent / "results" / "beamlora_study.json"
TUNING, FRESH = range(100, 103), range(8)
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


@dataclass(frozen=True)
class Variant(bl.BeamLoRA):
    """BeamLoRA with another schedule."""

    schedule_class: type = BeamSchedule

    def schedule(self, model, optimizer, total_steps):
        return self.schedule_class(self, model, optimizer, total_steps)


def variants(r: int, steps: int) -> dict[str, bl.LoRA | bl.BeamLoRA]:
    """What is tuned. "published" keeps the published recipe's proportions as far as a short run
    can; "gentle" changes what made its events costly."""
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
        "prune only": Variant(**settings, schedule_class=PruneOnly),
        "fresh start": Variant(**settings, schedule_class=FreshStart),
        "random pruning": Variant(**settings, schedule_class=RandomPruning),
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


def measure(outcome: Outcome, task: str, limit: int) -> dict:
    result = bl.evaluate(outcome.model, task, limit=limit, progress=False)
    tail = outcome.losses[-50:]
    return {
        "exact_match": round(result["exact_match"], 4),
        "test_loss": round(result["loss"], 5),
        "train_loss": round(sum(tail) / len(tail), 5),
        "events": len(outcome.events),
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
            rows.append(row | measure(outcome, setting.task, limit))
    return rows


def best_rates(rows: list[dict]) -> dict[str, list[float]]:
    """The learning rate with the highest mean exact match, for each variant."""
    scores: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        scores.setdefault(row["variant"], {}).setdefault(row["lr"], []).append(row["exact_match"])
    return {
        name: [max(by_rate, key=lambda rate: sum(by_rate[rate]) / len(by_rate[rate]))]
        for name, by_rate in scores.items()
    }


def study(setting: Setting) -> dict:
    started = time.process_time()
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
    return {
        "task": setting.task, "r": setting.r, "steps": setting.steps, "batch_size": 16,
        "cpu_seconds": round(time.process_time() - started), "rows": rows,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", help=f"{', '.join(SETTINGS)}; all if none is named")
    names = parser.parse_args().settings or list(SETTINGS)
    if unknown := [name for name in names if name not in SETTINGS]:
        parser.error(f"unknown setting {unknown[0]!r}; there are {', '.join(SETTINGS)}")
    for name in names:
        results = {
            **study(SETTINGS[name]),
            "command": f'python data/{Path(sys.argv[0]).name} "{name}"',
        }
        results["device"] = processor()
        results["versions"] = versions("torch", "transformers")
        kept = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
        FILE.parent.mkdir(exist_ok=True)
        text = json.dumps(kept | {name: results}, indent=1)
        FILE.write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
