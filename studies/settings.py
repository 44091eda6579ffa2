"""What a setting does, one at a time, on the tiny model: data/results/settings_study.parquet.

python -m studies.settings           # all of it, about half an hour on one core
python -m studies.settings alpha     # one of them, the others' results are kept

Nothing is tuned here: every value runs with every learning rate, and all of it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import beamlora_mini as bl
from beamlora_mini.evaluation import exam_batch
from beamlora_mini.many import Trial, fit_many

from .common import main, measure_quickly

STEPS, SEEDS = 200, range(3)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
# Ranks that train as many numbers as rank 4 everywhere, to 4 %.
PLACES = {"all": ("all-linear", 4), "attention": (ATTENTION, 10), "MLP": (MLP, 7), "q and v": (("q_proj", "v_proj"), 19)}  # fmt: skip
Named = tuple[str, dict, bl.LoRA, tuple[float, ...], int | None]  # what, facts, method, rates, rows


def alpha() -> Iterator[Named]:
    """The same rank with several alphas: a grid, and twice and half the best rate in it."""
    for value, best in ((2, 1.6e-2), (8, 4e-3), (32, 4e-3), (128, 1e-3)):
        method = bl.LoRA(r=8, lora_alpha=value)
        rates = sorted({2.5e-4, 1e-3, 4e-3, 1.6e-2, best / 2, 2 * best})
        yield f"alpha {value}", {}, method, tuple(rates), None


def rslora() -> Iterator[Named]:
    """Several ranks with one alpha, scaled by alpha / r and by alpha / sqrt(r)."""
    for r in (2, 8, 32):
        for root in (False, True):
            method = bl.LoRA(r=r, lora_alpha=8, use_rslora=root)
            name = "alpha / sqrt(r)" if root else "alpha / r"
            yield name, {}, method, (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), None


def places() -> Iterator[Named]:
    """As many trained numbers in all layers, in attention, in the MLPs, in q and v alone."""
    for name, (modules, r) in PLACES.items():
        method = bl.LoRA(r=r, lora_alpha=2 * r, target_modules=modules)
        yield name, {}, method, (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), None


def data() -> Iterator[Named]:
    """Several ranks on the first rows of the training split alone."""
    for rows in (50, 200, 800, 3200):
        for r in (1, 4, 16):
            method = bl.LoRA(r=r, lora_alpha=2 * r)
            yield f"{rows} rows", {"rows": rows}, method, (2e-3, 8e-3), rows


SETTINGS = {"alpha": alpha, "rslora": rslora, "places": places, "data": data}


def study(named) -> list[dict]:
    model, tokenizer = bl.load_model("tiny", device="cpu")
    task = bl.load_task("subtraction")
    exam = exam_batch(tokenizer, task["test"].select(range(300)))
    rows = []
    for name, facts, method, rates, limit in named():
        train = task["train"].select(range(limit)) if limit else task["train"]
        seen = exam_batch(tokenizer, train.select(range(min(300, len(train)))))
        trials = [Trial(method, rate, seed) for rate in rates for seed in SEEDS]
        for outcome in fit_many(model, train, trials, steps=STEPS):
            trained, _ = bl.count_parameters(outcome.model)
            measured = measure_quickly(outcome.model, exam) | {
                "train_exact_match": measure_quickly(outcome.model, seen)["exact_match"]
            }
            run = {"variant": name, "r": method.r, "trained": trained}
            of = outcome.trial
            rows.append(run | facts | {"lr": of.lr, "seed": of.seed} | measured)
    return [{"task": "subtraction", "steps": STEPS, "batch_size": 16} | row for row in rows]


if __name__ == "__main__":
    main(__doc__, "settings_study.parquet", SETTINGS, study)
