"""When do copies in the places of dead ranks become directions of their own? data/results/copies_study.parquet.

python -m studies.copies                  # all settings, about ten minutes on one core
python -m studies.copies "rate 0.032"     # one of them, the others' results are kept

Notebook 01's secret alphabet needs more than two directions in its one layer. Here the layer has four
ranks, two of them dead (a row of A and a column of B that are both zero get no gradient, ever), and
BeamLoRA's events put something into the slots of the dead: a copy of a live rank as it is ("current"),
as it was `lag` steps ago ("historical"), the present one moved as far as history moved it, in a random
direction ("turned", with the moments of then), or a new rank ("fresh"). "cosine" is that of the twins'
b a^T before the next event, or the end, averaged over the run; "dead_first" is the share of the dead among the slots of the first event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from datasets import Dataset

import beamlora_mini as bl
from beamlora_mini.evaluation import exam_batch
from beamlora_mini.many import Trial, fit_many
from beamlora_mini.methods.beamlora import BeamSchedule
from beamlora_mini.ranks import effective_rank, reset_ranks_

from .common import FRESH, main, measure_quickly, with_schedule

CIPHER, LAYER = 2, "layers.3.mlp.down_proj"
R, ALIVE, BATCH = 4, 2, 8


class HalfDead(BeamSchedule):
    """BeamLoRA's events on layers of which only the first ranks live; what came of the twins."""

    def __init__(self, method, model, optimizer, total_steps):
        super().__init__(method, model, optimizer, total_steps)
        self.pairs: tuple[list[int], list[int]] | None = None
        self.cosines: list[float] = []
        for layer in self.layers.values():
            layer.lora_A.data[ALIVE:] = 0  # B is zero at the start

    def step(self, n):
        (layer,) = self.layers.values()
        if self.pairs and (n % self.method.period == 0 or n == self.total_steps):
            one, other = ((layer.lora_A[of], layer.lora_B.T[of]) for of in self.pairs)
            alike = [F.cosine_similarity(x, y) for x, y in zip(one, other)]
            self.cosines.append((alike[0] * alike[1]).mean().item())
            self.pairs = None
        layer.cosines = self.cosines
        return super().step(n)

    def replace(self, layer, slots, sources):
        self.fill(layer, slots, sources)
        self.pairs = slots, sources

    def fill(self, layer, slots, sources):
        super().replace(layer, slots, sources)


class Fresh(HalfDead):
    def fill(self, layer, slots, sources):
        reset_ranks_(layer, self.optimizer, slots)


class Turned(HalfDead):
    def fill(self, layer, slots, sources):
        super().fill(layer, slots, sources)
        for ranks in (layer.lora_A, layer.lora_B.T):
            moved = (ranks[slots] - ranks[sources]).norm(dim=1, keepdim=True)
            ranks[slots] = ranks[sources] + moved * F.normalize(torch.randn_like(ranks[slots]))


def variants(period: int, lag: int) -> dict[str, bl.BeamLoRA]:
    settings = {"r": R, "lora_alpha": 2 * R, "target_modules": [LAYER], "scope": "module"}
    settings |= {"temperature": 0.2, "p_start": 0.8, "period": period}
    beam = bl.BeamLoRA(**settings, snapshot_lag=lag)
    return {
        "current": with_schedule(bl.BeamLoRA(**settings, snapshot_lag=0), HalfDead),
        "historical": with_schedule(beam, HalfDead),
        "turned": with_schedule(beam, Turned),
        "fresh": with_schedule(beam, Fresh),
    }


@dataclass(frozen=True)
class Setting:
    """cases: (period, lag); names: the variants that each of them is run with."""

    lr: float
    steps: int
    cases: tuple[tuple[int, int], ...]
    names: tuple[str, ...] = ("current", "historical", "turned", "fresh")


SETTINGS = {
    "rate 0.032": Setting(3.2e-2, 120, ((20, 10), (5, 2))),
    "rate 0.008": Setting(8e-3, 120, ((20, 10),)),
    "rate 0.008, 480 steps": Setting(8e-3, 480, ((20, 10), (80, 40)), ("historical", "fresh")),
    "rate 0.032, other lags": Setting(3.2e-2, 120, ((20, 2), (20, 19)), ("historical",)),
    "rate 0.008, 480 steps, other lags": Setting(8e-3, 480, ((80, 10), (20, 19)), ("historical",)),
}


def in_secret(rows: Dataset) -> Dataset:
    start = f"X {CIPHER} "
    chosen = [row for row in rows if row["prompt"].startswith(start)]
    return Dataset.from_list(
        [row | {"prompt": row["prompt"].replace(start, "C ")} for row in chosen]
    )


def study(setting: Setting) -> list[dict]:
    model, tokenizer = bl.load_model("tiny", device="cpu")
    words = bl.load_task("ciphers")
    exam = exam_batch(tokenizer, in_secret(words["test"]))
    named = []
    if len(setting.names) > 1:  # the others are compared with these
        named += [("no event", variants(setting.steps, 0)["current"])]
    for case in setting.cases:
        named += [(name, variants(*case)[name]) for name in setting.names]
    rows = []
    for name, method in named:
        trials = [Trial(method, setting.lr, seed) for seed in FRESH]
        runs = fit_many(
            model, in_secret(words["train"]), trials, steps=setting.steps, batch_size=BATCH
        )
        for run in runs:
            (layer,) = bl.adapter_layers(run.model).values()
            first = [e.slot >= ALIVE for e in run.events if e.step == run.events[0].step]
            twins = layer.cosines
            rows.append(
                {"task": "ciphers", "r": R, "steps": setting.steps, "batch_size": BATCH}
                | {"variant": name, "period": method.period, "lag": method.snapshot_lag}
                | {"lr": setting.lr, "seed": run.trial.seed}
                | measure_quickly(run.model, exam)
                | {"events": len(run.events)}
                | {"effective_rank": round(effective_rank(layer.delta_weight()), 3)}
                | {"dead_first": sum(first) / len(first) if first else None}
                | {"cosine": round(sum(twins) / len(twins), 4) if twins else None}
            )
    return rows


if __name__ == "__main__":
    main(__doc__, "copies_study.parquet", SETTINGS, study)
