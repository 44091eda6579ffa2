"""Where should the ranks go? AdaLoRA and IncreLoRA against even and random allocations of the same
number of ranks, on the tiny model, with tuned rates: data/results/budget_study.parquet.

python -m studies.budget                  # both tasks, over an hour on one core
python -m studies.budget subtraction      # one of them, the other's results are kept

Every variant ends with three ranks a module on average, 84 in all, and scales its update by two. Its
learning rate is chosen on the seeds in TUNING, by mean exact match on the first 300 test prompts; then
it is run with that rate on the seeds in FRESH, and measured on all 500 (the same first 300 among
them). `ranks` are those that each of the `modules` ends with, in the model's order.

Whether AdaLoRA's places are good, apart from how it gets there, is asked of plain LoRA ("placed"): with
LoRA's rate, each fresh seed starts with the ranks that AdaLoRA ended with on that seed, in its places
or permuted over the modules; and so with IncreLoRA's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

import beamlora_mini as bl
from beamlora_mini.many import Trial, fit_many
from beamlora_mini.methods import RankSchedule
from beamlora_mini.methods.adalora import AdaLoRASchedule
from beamlora_mini.methods.increlora import IncreLoRASchedule

from .common import FRESH, TUNING, best_rates, main, measure, with_schedule

TARGET, STEPS = 3, 400
SETTINGS = {"subtraction": "subtraction", "base-7 sums": "base7_addition"}


class RandomRanks(AdaLoRASchedule):
    """Ranks compete with numbers drawn once, at the start."""

    def __init__(self, method, model, optimizer, total_steps):
        super().__init__(method, model, optimizer, total_steps)
        self.drawn = {name: torch.rand(layer.r) for name, layer in self.layers.items()}

    def scores(self, n):
        return self.drawn


class RandomModules(RandomRanks):
    """As many ranks in each module as lots would keep, but the module's best."""

    def scores(self, n):
        order = places(AdaLoRASchedule.scores(self, n))
        return {name: drawn.sort().values[order[name]] for name, drawn in self.drawn.items()}


class SameForAll(AdaLoRASchedule):
    """Ranks compete inside their module: each module keeps as many."""

    def scores(self, n):
        return {name: order.float() for name, order in places(super().scores(n)).items()}


def places(scores: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The place of each score in its module, 0 for the lowest."""
    return {name: values.argsort(stable=True).argsort() for name, values in scores.items()}


class RandomGrowth(IncreLoRASchedule):
    """Lots are drawn anew for every growth."""

    def choose(self, n, count):
        drawn = set(torch.randperm(len(self.layers))[:count].tolist())
        return [name for i, name in enumerate(self.layers) if i in drawn]


class InTurn(IncreLoRASchedule):
    """The modules that have grown least are next."""

    def choose(self, n, count):
        smallest = sorted(self.layers, key=lambda name: self.layers[name].r)[:count]
        return [name for name in self.layers if name in smallest]


class PlacedSchedule(RankSchedule):
    """Only the first `counts[i]` ranks of module i live: where a row of A and a column of B are both
    zero, neither gets a gradient, ever."""

    def __init__(self, method, model, optimizer, total_steps):
        super().__init__(method, model, optimizer, total_steps)
        for layer, count in zip(self.layers.values(), method.counts, strict=True):
            layer.lora_A.data[count:] = 0


@dataclass(frozen=True)
class Placed(bl.LoRA):
    """LoRA with counts[i] ranks in module i, all scaled by lora_alpha / r."""

    counts: tuple[int, ...] = ()

    Schedule: ClassVar = PlacedSchedule


PRUNED = {"r": 2 * TARGET, "target_r": TARGET, "lora_alpha": 4 * TARGET, "orth_reg_weight": 0.1}
GROWN = {"r": 1, "target_r": TARGET, "lora_alpha": 2 * TARGET, "orth_reg_weight": 0.1}
VARIANTS = {
    "LoRA": bl.LoRA(r=TARGET, lora_alpha=2 * TARGET),
    "AdaLoRA": bl.AdaLoRA(**PRUNED),
    "AdaLoRA, no extra loss": bl.AdaLoRA(**PRUNED | {"orth_reg_weight": 0.0}),
    "AdaLoRA, even": with_schedule(bl.AdaLoRA(**PRUNED), SameForAll),
    "AdaLoRA, random layers": with_schedule(bl.AdaLoRA(**PRUNED), RandomModules),
    "AdaLoRA, random ranks": with_schedule(bl.AdaLoRA(**PRUNED), RandomRanks),
    "IncreLoRA": bl.IncreLoRA(**GROWN),
    "IncreLoRA, no extra loss": bl.IncreLoRA(**GROWN | {"orth_reg_weight": 0.0}),
    "IncreLoRA, even": with_schedule(bl.IncreLoRA(**GROWN), InTurn),
    "IncreLoRA, random layers": with_schedule(bl.IncreLoRA(**GROWN), RandomGrowth),
}
RATES = {name: (4e-3, 8e-3, 1.6e-2, 3.2e-2) for name in VARIANTS}


def final_ranks(layer) -> int:
    return int((layer.lora_E != 0).sum()) if hasattr(layer, "lora_E") else layer.r


def run(task: str, rates: dict, seeds, phase: str, limit: int) -> list[dict]:
    """One row for each variant, learning rate and seed."""
    rows = []
    for name, method in VARIANTS.items():
        for rate in rates[name]:
            for seed in seeds:
                model, _ = bl.load_model("tiny", device="cpu")
                history = bl.fit(
                    model, task, method=method, steps=STEPS, lr=rate, seed=seed, progress=False
                )
                row = {"phase": phase, "variant": name, "lr": rate, "seed": seed}
                row |= measure(model, history.losses, history.events, task, limit)
                layers = bl.adapter_layers(model)
                row["modules"] = list(layers)
                row["ranks"] = [final_ranks(layer) for layer in layers.values()]
                rows.append(row)
                print(*list(row.values())[:7], flush=True)
    return rows


PLACED = {
    "AdaLoRA's places": ("AdaLoRA", False),
    "AdaLoRA's places, permuted": ("AdaLoRA", True),
    "IncreLoRA's places": ("IncreLoRA", False),
    "IncreLoRA's places, permuted": ("IncreLoRA", True),
}


def permuted(counts: list[int], seed: int) -> list[int]:
    order = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))
    return [counts[i] for i in order.tolist()]


def placed(task: str, fresh: list[dict], limit: int) -> list[dict]:
    """One row for each variant and seed, from the rows of the fresh runs."""
    rows = []
    (rate,) = {row["lr"] for row in fresh if row["variant"] == "LoRA"}
    for variant, (name, elsewhere) in PLACED.items():
        runs = [row for row in fresh if row["variant"] == name]
        given = [list(map(int, row["ranks"])) for row in runs]
        if elsewhere:
            given = [permuted(counts, row["seed"]) for counts, row in zip(given, runs)]
        r = max(map(max, given))
        trials = [
            Trial(Placed(r=r, lora_alpha=2 * r, counts=tuple(counts)), rate, row["seed"])
            for counts, row in zip(given, runs)
        ]
        model, _ = bl.load_model("tiny", device="cpu")
        outcomes = fit_many(model, task, trials, steps=STEPS, progress=False)
        for counts, row, done in zip(given, runs, outcomes):
            new = {"phase": "placed", "variant": variant, "lr": rate, "seed": row["seed"]}
            new |= measure(done.model, done.losses, done.events, task, limit)
            rows.append(new | {"modules": list(row["modules"]), "ranks": counts})
            print(*list(rows[-1].values())[:7], flush=True)
    return rows


def study(task: str) -> list[dict]:
    rows = run(task, RATES, TUNING, "tuning", 300)
    rows += (fresh := run(task, best_rates(rows), FRESH, "fresh", 500))
    rows += placed(task, fresh, 500)
    facts = {"task": task, "target_r": TARGET, "steps": STEPS, "batch_size": 16}
    return [facts | row for row in rows]


if __name__ == "__main__":
    main(__doc__, "budget_study.parquet", SETTINGS, study)
