"""What the studies share: seeds, how a run is measured, how a learning rate is chosen, the file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import beamlora_mini as bl
from beamlora_mini.machine import processor, versions
from beamlora_mini.methods import Method, Schedule

RESULTS = Path(__file__).parent / "results"
TUNING, FRESH = range(100, 103), range(8)


def with_schedule(method: Method, schedule_class: type[Schedule]) -> Method:
    """The same settings with another schedule."""

    class Variant(type(method)):
        def schedule(self, model, optimizer, total_steps):
            return schedule_class(self, model, optimizer, total_steps)

    return Variant(**vars(method))


def measure(model, losses: list[float], events: list, task: str, limit: int) -> dict:
    result = bl.evaluate(model, task, limit=limit, progress=False)
    tail = losses[-50:]
    return {
        "exact_match": round(result["exact_match"], 4),
        "test_loss": round(result["loss"], 5),
        "train_loss": round(sum(tail) / len(tail), 5),
        "events": len(events),
    }


def best_rates(rows: list[dict]) -> dict[str, list[float]]:
    """The learning rate with the highest mean exact match, for each variant."""
    scores: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        scores.setdefault(row["variant"], {}).setdefault(row["lr"], []).append(row["exact_match"])
    return {
        name: [max(by_rate, key=lambda rate: sum(by_rate[rate]) / len(by_rate[rate]))]
        for name, by_rate in scores.items()
    }


def main(description: str, file: str, settings: Mapping[str, object], study: Callable) -> None:
    """Run the settings named on the command line, or all; keep the file's results of the others."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("settings", nargs="*", help=f"{', '.join(settings)}; all if none is named")
    names = parser.parse_args().settings or list(settings)
    if unknown := [name for name in names if name not in settings]:
        parser.error(f"unknown setting {unknown[0]!r}; there are {', '.join(settings)}")
    for name in names:
        started = time.process_time()
        results = study(settings[name])
        results |= {
            "cpu_seconds": round(time.process_time() - started),
            "command": f'python data/{Path(sys.argv[0]).name} "{name}"',
            "device": processor(),
            "versions": versions("torch", "transformers"),
        }
        path = RESULTS / file
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(kept | {name: results}).replace("}, {", "},\n{")  # a line for each run
        path.write_text(text + "\n", encoding="utf-8", newline="\n")
