"""What the tiny model still knows after learning subtraction: data/results/forgetting_study.parquet.

python -m studies.forgetting             # all of it, about half an hour on one core
python -m studies.forgetting methods     # one of them, the others' results are kept

Every method and rank runs with every learning rate, and all of it is kept: what is lost can only be
compared where as much was learned.
"""

from __future__ import annotations

import copy

import beamlora_mini as bl
from beamlora_mini.evaluation import exam_batch
from beamlora_mini.tasks import KNOWN_TASKS

from .common import main, measure_quickly

STEPS, R = 300, 8
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


SETTINGS = {"methods": methods, "ranks": ranks}


def study(named) -> list[dict]:
    model, tokenizer = bl.load_model("tiny", device="cpu")
    task = bl.load_task("subtraction")
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
                bl.fit(trained, task, method=method, steps=STEPS, lr=lr, seed=seed, progress=False)
                old = {k: measure_quickly(trained, batch) for k, batch in known.items()}
                losses = [result["test_loss"] for result in old.values()]
                rows.append(
                    {
                        "task": "subtraction",
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
