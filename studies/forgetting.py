"""What the tiny model still knows after learning a new task: data/results/forgetting_study.parquet.

python -m studies.forgetting             # all of it, about half an hour on one core
python -m studies.forgetting methods     # one of them, the others' results are kept

Every method and rank runs with every learning rate, and all of it is kept: what is lost can only be
compared where as much was learned.
"""

from __future__ import annotations

import copy

import torch
from datasets import Dataset, DatasetDict

import beamlora_mini as bl
from beamlora_mini.evaluation import exam_batch
from beamlora_mini.tasks import KNOWN_TASKS

from .common import main, measure_quickly

STEPS, R = 300, 8
SHARE_OLD = 0.1
ASIDE = range(200, 450)  # rows of each old task for rehearsal; the exam has the first 200
EIGHT = {
    "LoRA": bl.LoRA(r=R, lora_alpha=2 * R),
    "PiSSA": bl.PiSSA(r=R, lora_alpha=R),  # the scaling that its paper has
    "MiLoRA": bl.MiLoRA(r=R, lora_alpha=R),
    "DoRA": bl.DoRA(r=R, lora_alpha=2 * R),
    "ReLoRA": bl.ReLoRA(r=R, lora_alpha=2 * R, merge_every=STEPS // 3, restart_warmup=10),
    "AdaLoRA": bl.AdaLoRA(r=R + R // 2, target_r=R, lora_alpha=2 * (R + R // 2)),
    "IncreLoRA": bl.IncreLoRA(r=2, target_r=R, lora_alpha=4, init_warmup=20, incre_interval=5),
    "BeamLoRA": bl.BeamLoRA(r=R, lora_alpha=2 * R, temperature=0.5, period=STEPS // 4),
}
RATES, FULL_RATES = (1e-3, 2e-3, 4e-3, 8e-3), (1e-4, 2.5e-4, 5e-4, 1e-3)


def methods():
    """All eight, and all weights, at several learning rates."""
    for name, method in EIGHT.items():
        yield name, method, RATES
    yield "all weights", None, FULL_RATES


def ranks():
    """LoRA of several ranks, alpha = 2r."""
    for r in (1, 2, 4, 16):
        yield "LoRA", bl.LoRA(r=r, lora_alpha=2 * r), RATES


def letters():
    """LoRA on a task of letters, at the rate of notebook 14."""
    yield "LoRA on letters", EIGHT["LoRA"], (4e-3,)


def rehearsal():
    """LoRA with a share of old rows among the new ones."""
    yield "LoRA with old rows", EIGHT["LoRA"], (4e-3,)


SETTINGS = {"methods": methods, "ranks": ranks, "letters": letters, "rehearsal": rehearsal}


def with_old_rows(task: DatasetDict) -> Dataset:
    """The training rows of a task, and so many of the old ones that they are SHARE_OLD of all."""
    new = task["train"].to_list()
    old = [
        row for name in KNOWN_TASKS for row in bl.load_task(name)["test"].select(ASIDE).to_list()
    ]
    order = torch.randperm(len(old), generator=torch.Generator().manual_seed(0))
    count = round(len(new) * SHARE_OLD / (1 - SHARE_OLD))
    return Dataset.from_list(new + [old[i] for i in order[:count].tolist()])


def study(named) -> list[dict]:
    model, tokenizer = bl.load_model("tiny", device="cpu")
    learned = "sort_descending" if named is letters else "subtraction"
    task = bl.load_task(learned)
    rows_to_learn = with_old_rows(task) if named is rehearsal else task
    exam = exam_batch(tokenizer, task["test"].select(range(300)))
    known = {
        name: exam_batch(tokenizer, bl.load_task(name)["test"].select(range(200)))
        for name in KNOWN_TASKS
    }
    rows = []
    for name, method, rates in named():
        for lr in rates:
            for seed in range(3):
                trained = copy.deepcopy(model)
                bl.fit(
                    trained, rows_to_learn, method=method, steps=STEPS, lr=lr, seed=seed, progress=False
                )  # fmt: skip
                old = {k: measure_quickly(trained, batch) for k, batch in known.items()}
                losses = [result["test_loss"] for result in old.values()]
                rows.append(
                    {
                        "task": learned,
                        "variant": name,
                        "r": method and method.r,
                        "steps": STEPS,
                    }
                    | {"batch_size": 16, "lr": lr, "seed": seed}
                    | measure_quickly(trained, exam)
                    | {"known_loss": round(sum(losses) / len(losses), 5)}
                    | {k: result["exact_match"] for k, result in old.items()}
                )
    return rows


if __name__ == "__main__":
    main(__doc__, "forgetting_study.parquet", SETTINGS, study)
