"""What an adapter costs: `python -m beamlora_mini.bench`, or `make bench`.

One training step of SmolLM2-135M on 4 x 128 random tokens, rank 16 on every linear layer: forward,
backward, AdamW and what the method does after each step. The floor is the frozen model with
gradients through all its layers, and no optimizer. Every round times each variant once, so that a
busy machine slows all alike; peak memory is that of a process of its own for each variant.

AdaLoRA starts with rank 16 and IncreLoRA with 15, and both are timed while they still score: nothing
is pruned or grown in the timed steps.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from .adapters import attach, count_parameters, trainable_parameters
from .history import RankHistory
from .machine import processor, versions
from .methods import METHODS
from .models import load_model

RANK, ALPHA, BATCH, LENGTH = 16, 32, 4, 128
TOTAL = 1000  # steps of the run that the timed ones are the first of
FLOOR = "frozen model (floor)"


class Run(NamedTuple):
    """What takes a training step: `extra_loss` joins the model's, `after(n)` follows step n."""

    model: nn.Module
    optimizer: torch.optim.Optimizer | None = None
    extra_loss: Callable[[], float | torch.Tensor] = lambda: 0.0
    after: Callable[[int], object] = lambda n: None


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trainable_parameters(model).values(), 1e-3, fused=True)


def _ours(name: str, **settings) -> Callable[[nn.Module], Run]:
    def build(model: nn.Module) -> Run:
        method = METHODS[name](**{"r": RANK, "lora_alpha": ALPHA} | settings)
        attach(model, method)
        optimizer = _adamw(model)
        schedule = method.schedule(model, optimizer, TOTAL)
        return Run(model, optimizer, schedule.loss, schedule.step)

    return build


def _peft(config: str, **settings) -> Callable[[nn.Module], Run]:
    def build(model: nn.Module) -> Run:
        import peft

        rank = {} if "init_r" in settings else {"r": RANK}
        common = {"lora_alpha": ALPHA, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
        made = peft.get_peft_model(model, getattr(peft, config)(**rank, **common, **settings))
        allocate = getattr(made.base_model, "update_and_allocate", None)
        run = Run(made, _adamw(made))  # peft's AdaLoRA adds to the loss itself
        return run._replace(after=lambda n: allocate(n - 1)) if allocate else run

    return build


OURS = {"increlora": {"r": RANK - 1, "target_r": RANK}}  # settings that differ from the defaults
PEFT = {
    "lora": _peft("LoraConfig"),
    "pissa": _peft("LoraConfig", init_lora_weights="pissa"),
    "dora": _peft("LoraConfig", use_dora=True),
    "adalora": _peft(
        "AdaLoraConfig", init_r=RANK, target_r=8, total_step=TOTAL,
        tinit=TOTAL // 10, tfinal=TOTAL // 2, deltaT=10,
    ),
}  # fmt: skip
VARIANTS: dict[str, Callable[[nn.Module], Run]] = {
    FLOOR: lambda model: Run(model.requires_grad_(False)),
    **{f"beamlora_mini {name}": _ours(name, **OURS.get(name, {})) for name in METHODS},
    **{f"peft {name}": build for name, build in PEFT.items()},
}


def training_step(run: Run, ids: torch.Tensor, n: int) -> None:
    """Step n, from 1."""
    model = run.model
    if run.optimizer is None:  # a gradient at the embeddings still passes through every layer
        embedded = model.get_input_embeddings()(ids).requires_grad_()
        model(inputs_embeds=embedded, labels=ids).loss.backward()
    else:
        (model(input_ids=ids, labels=ids).loss + run.extra_loss()).backward()
        run.optimizer.step()
        run.after(n)
        run.optimizer.zero_grad()
    if ids.is_cuda:
        torch.cuda.synchronize()


def random_ids(device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 40_000, (BATCH, LENGTH), generator=generator).to(device)


def measure_seconds(
    names: list[str], rounds: int, warm_up: int = 2
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of a training step, `rounds` for each variant, interleaved, and how many parameters
    each trains."""
    torch.manual_seed(0)
    model, _ = load_model("smollm2")
    model.train()
    runs = {name: VARIANTS[name](copy.deepcopy(model)) for name in names}
    ids = random_ids(model.device)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(warm_up + rounds):
        for name in names:
            started = time.perf_counter()
            training_step(runs[name], ids, round_ + 1)
            if round_ >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds, {name: count_parameters(run.model)[0] for name, run in runs.items()}


def _measure_peak(name: str, queue) -> None:
    torch.manual_seed(0)
    model, _ = load_model("smollm2")
    run = VARIANTS[name](model.train())
    ids = random_ids(model.device)
    if ids.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what loading has freed goes back to the system
        Path("/proc/self/clear_refs").write_text("5")  # and its peak is forgotten
    for n in range(1, 4):
        training_step(run, ids, n)
    if ids.is_cuda:
        queue.put(torch.cuda.max_memory_allocated() / 2**20)
    else:
        status = Path("/proc/self/status").read_text()
        queue.put(int(status.split("VmHWM:")[1].split()[0]) / 2**10)


def measure_peak(name: str) -> float | None:
    """Peak memory in MiB of three training steps, model included; None where it can't be read
    (on a CPU it takes Linux)."""
    if not torch.cuda.is_available() and platform.system() != "Linux":
        return None
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measure_peak, args=(name, queue))
    process.start()
    peak = queue.get(timeout=600)
    process.join()
    return peak


def measure_event(repeats: int = 5) -> str:
    """What BeamLoRA does between steps, as a sentence: medians of a snapshot, of an event and of
    recording every rank once, on the model of the table."""
    torch.manual_seed(0)
    model, _ = load_model("smollm2")
    run = _ours("beamlora", period=2, p_start=0.9)(model)
    history, ids = RankHistory(every=1), random_ids(model.device)
    seconds: dict[str, list[float]] = {"a snapshot": [], "an event": [], "a recording": []}
    replaced = 0
    for n in range(1, 2 * repeats + 1):
        training_step(run._replace(after=lambda n: None), ids, n)
        started = time.perf_counter()
        replaced = len(run.after(n)) or replaced
        stepped = time.perf_counter()
        history.record(model, n)
        seconds["an event" if n % 2 == 0 else "a snapshot"].append(stepped - started)
        seconds["a recording"].append(time.perf_counter() - stepped)
    parts = [f"{name} {statistics.median(values):.3f} s" for name, values in seconds.items()]
    return f"BeamLoRA between steps: {', '.join(parts)}; {replaced} ranks replaced in an event"


def table(
    seconds: dict[str, list[float]], trained: dict[str, int], peaks: dict[str, float | None]
) -> str:
    """The measurements as a Markdown table: medians and quartiles of the step and of its overhead,
    which is taken within each round, so that a machine that slows down for a while counts less."""
    lines = [
        "| | trained, M | step, s | overhead over the floor, s | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for name, values in seconds.items():
        over = [value - floor for value, floor in zip(values, seconds[FLOOR])]
        overhead = "" if name == FLOOR else median_and_quartiles(over)
        peak = "not measured" if peaks.get(name) is None else f"{peaks[name]:.0f}"
        millions = f"{trained[name] / 1e6:.2f}"
        lines.append(
            f"| {name} | {millions} | {median_and_quartiles(values)} | {overhead} | {peak} |"
        )
    return "\n".join(lines)


def median_and_quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each variant")
    parser.add_argument("--no-memory", action="store_true", help="measure time only")
    parser.add_argument("--only", nargs="+", choices=sorted({*METHODS, *PEFT}), help="methods")
    options = parser.parse_args()
    chosen = options.only or [*METHODS, *PEFT]
    names = [name for name in VARIANTS if name == FLOOR or name.split()[-1] in chosen]
    seconds, trained = measure_seconds(names, options.rounds)
    peaks = {} if options.no_memory else {name: measure_peak(name) for name in names}
    print(table(seconds, trained, peaks))
    used = versions("torch", "transformers", "peft")
    machine = f"{processor()}; {', '.join(map(' '.join, used.items()))}"
    print(f"\n{measure_event()}\n\n{machine}; {options.rounds} interleaved rounds")


if __name__ == "__main__":
    main()
