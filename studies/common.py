"""What the studies share: seeds, how a run is measured, how a learning rate is chosen, the file.

A study's file has a row for each run. What pandas reads as its `attrs` says of each setting how its
rows were made: {setting: {command, device, versions, cpu_seconds}}.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import torch

import beamlora_mini as bl
from beamlora_mini.evaluation import accuracy
from beamlora_mini.loss import answer_loss
from beamlora_mini.machine import data_folder, processor, versions
from beamlora_mini.methods import Method, RankSchedule

RESULTS = data_folder() / "results"
TUNING, FRESH = range(100, 103), range(8)


def with_schedule(method: Method, schedule: type[RankSchedule]) -> Method:
    """The same settings with another schedule."""
    variant = type(schedule.__name__, (type(method),), {"Schedule": schedule})
    return variant(**vars(method))


def measure(model, losses: list[float], events: list, task: str, limit: int) -> dict:
    result = bl.evaluate(model, task, limit=limit, progress=False)
    tail = losses[-50:]
    return {
        "exact_match": round(result["exact_match"], 4),
        "test_loss": round(result["loss"], 5),
        "train_loss": round(sum(tail) / len(tail), 5),
        "events": len(events),
    }


def measure_quickly(model, exam: dict) -> dict:
    """Exact match and loss on a batch of `exam_batch`, by one forward pass."""
    with torch.no_grad():
        loss = answer_loss(model.eval(), exam).item()
    return {"exact_match": round(accuracy(model, exam), 4), "test_loss": round(loss, 5)}


def best_rates(rows: list[dict]) -> dict[str, list[float]]:
    """The learning rate with the highest mean exact match, for each variant."""
    scores: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        scores.setdefault(row["variant"], {}).setdefault(row["lr"], []).append(row["exact_match"])
    return {
        name: [max(by_rate, key=lambda rate: sum(by_rate[rate]) / len(by_rate[rate]))]
        for name, by_rate in scores.items()
    }


def save(path: Path, setting: str, rows: list[dict], made: dict) -> None:
    """Write a setting's rows into a study's file, in place of its earlier ones if it has any, and
    how they were made; the other settings keep theirs."""
    parts, attrs = {}, {}
    if path.is_file():
        before = pd.read_parquet(path)
        parts, attrs = dict(list(before.groupby("setting", sort=False))), before.attrs
    parts[setting] = pd.DataFrame([{"setting": setting} | row for row in rows])
    table = pd.concat(parts.values(), ignore_index=True)
    table.attrs = attrs | {setting: made}
    path.parent.mkdir(exist_ok=True)
    table.to_parquet(path, compression="zstd", index=False)


def main(
    description: str, file: str, settings: Mapping[str, object], study: Callable[..., list[dict]]
) -> None:
    """Run the settings named on the command line, or all, and save each as soon as it is done."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("settings", nargs="*", help=f"{', '.join(settings)}; all if none is named")
    names = parser.parse_args().settings or list(settings)
    if unknown := [name for name in names if name not in settings]:
        parser.error(f"unknown setting {unknown[0]!r}; there are {', '.join(settings)}")
    for name in names:
        started = time.process_time()
        rows = study(settings[name])
        made = {
            "command": f'python -m studies.{Path(sys.argv[0]).stem} "{name}"',
            "device": processor(),
            "versions": versions("torch", "transformers"),
            "cpu_seconds": round(time.process_time() - started),
        }
        save(RESULTS / file, name, rows, made)
