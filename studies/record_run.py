"""Fine-tune SmolLM2 with BeamLoRA on the word problems and record what every rank does.

python -m studies.record_run                      # writes data/runs/smollm2_beamlora.parquet
python -m studies.record_run --steps 400 --batch-size 16 --out elsewhere.parquet

`bl.RankHistory.load` reads the file; its `info` says how it was made and how well the model did.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import beamlora_mini as bl
from beamlora_mini.machine import data_folder, processor, versions

FILE = data_folder() / "runs" / "smollm2_beamlora.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--tested", type=int, default=100, help="test problems before and after")
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()

    model, _ = bl.load_model("smollm2")
    task = bl.load_task("word_problems")
    method = bl.BeamLoRA(r=16, lora_alpha=32, period=options.steps // 8)

    def measure() -> dict:
        return bl.evaluate(model, task, limit=options.tested, batch_size=25, max_new_tokens=48)

    before = measure()
    history = bl.RankHistory(every=max(1, options.steps // 40))
    run = bl.fit(
        model, task, method=method, steps=options.steps, lr=options.lr,
        batch_size=options.batch_size, history=history,
    )  # fmt: skip
    history.info = {
        "command": " ".join(["python -m studies.record_run", *sys.argv[1:]]),
        "model": "SmolLM2-135M-Instruct", "task": "word_problems",
        "method": dataclasses.asdict(method), "steps": options.steps, "lr": options.lr,
        "batch_size": options.batch_size, "tokens": run.tokens, "seconds": round(run.seconds),
        "tested": options.tested, "before": before, "after": measure(),
        "device": processor(), "versions": versions("torch", "transformers"),
    }  # fmt: skip
    options.out.parent.mkdir(exist_ok=True)
    history.save(options.out)
    print(
        f"{before['exact_match']:.0%} right before, {history.info['after']['exact_match']:.0%} after"
    )
    print(f"{len(history.events)} expansions in {options.out}")


if __name__ == "__main__":
    main()
