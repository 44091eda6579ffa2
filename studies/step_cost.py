"""What an adapter costs: `python -m studies.step_cost`, or `make bench`.

One training step of SmolLM2-135M on 4 x 128 random tokens, rank 16 on every linear layer: forward,
backward, clipping, AdamW and what the method does after each step. The floor is the frozen model
with gradients through all its layers, and no optimizer. Every round times each variant once, so that
a busy machine slows all alike; peak memory is that of a process of its own for each variant.

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

import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini.machine import processor, progress_bar, versions

RANK, ALPHA, BATCH, LENGTH = 16, 32, 4, 128
TOTAL = 1000  # steps of the run that the timed ones are the first of
FLOOR = "frozen model (floor)"
Step = Callable[[torch.Tensor], None]


def floor(model: nn.Module) -> Step:
    """The frozen model: a gradient at the embeddings still passes through every layer."""
    model.requires_grad_(False)

    def step(ids: torch.Tensor) -> None:
        embedded = model.get_input_embeddings()(ids).requires_grad_()
        model(inputs_embeds=embedded, labels=ids).loss.backward()

    return step


def training_step(run: bl.Run, model: nn.Module) -> Step:
    def step(ids: torch.Tensor) -> None:
        (model(input_ids=ids, labels=ids).loss + run.loss()).backward()
        run.update()

    return step


def ours(name: str, **settings) -> Callable[[nn.Module], Step]:
    def build(model: nn.Module) -> Step:
        bl.attach(model, bl.METHODS[name](**{"r": RANK, "lora_alpha": ALPHA} | settings))
        return training_step(bl.Run(model, steps=TOTAL, lr=1e-3), model)

    return build


def peft(config: str, **settings) -> Callable[[nn.Module], Step]:
    """A model of peft's under the same Run; its AdaLoRA adds to the loss itself, and prunes where a
    rank schedule of ours would."""

    def build(model: nn.Module) -> Step:
        import peft

        rank = {} if "init_r" in settings else {"r": RANK}
        common = {"lora_alpha": ALPHA, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
        made = peft.get_peft_model(model, getattr(peft, config)(**rank, **common, **settings))
        run = bl.Run(made, steps=TOTAL, lr=1e-3)
        allocate = getattr(made.base_model, "update_and_allocate", None)
        if allocate:
            run.schedule.step = lambda n: allocate(n - 1) or []
        return training_step(run, made)

    return build


OURS = {"increlora": {"r": RANK - 1, "target_r": RANK}}  # settings that differ from the defaults
PEFT = {
    "lora": peft("LoraConfig"),
    "pissa": peft("LoraConfig", init_lora_weights="pissa"),
    "dora": peft("LoraConfig", use_dora=True),
    "adalora": peft(
        "AdaLoraConfig", init_r=RANK, target_r=8, total_step=TOTAL,
        tinit=TOTAL // 10, tfinal=TOTAL // 2, deltaT=10,
    ),
}  # fmt: skip
VARIANTS: dict[str, Callable[[nn.Module], Step]] = {
    FLOOR: floor,
    **{f"beamlora_mini {name}": ours(name, **OURS.get(name, {})) for name in bl.METHODS},
    **{f"peft {name}": build for name, build in PEFT.items()},
}


def loaded() -> tuple[nn.Module, torch.Tensor]:
    """SmolLM2 ready to train, and random tokens."""
    torch.manual_seed(0)
    model, _ = bl.load_model("smollm2")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 40_000, (BATCH, LENGTH), generator=generator)
    return model.train(), ids.to(model.device)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_seconds(
    names: list[str], rounds: int, warm_up: int = 2
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of a training step, `rounds` for each variant, interleaved, and how many parameters
    each trains."""
    model, ids = loaded()
    models = {name: copy.deepcopy(model) for name in names}
    steps = {name: VARIANTS[name](models[name]) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with progress_bar((warm_up + rounds) * len(names), "steps") as bar:
        for round_ in range(warm_up + rounds):
            for name, step in steps.items():
                synchronize()
                started = time.perf_counter()
                step(ids)
                synchronize()
                if round_ >= warm_up:
                    seconds[name].append(time.perf_counter() - started)
                bar.update()
    return seconds, {name: bl.count_parameters(model)[0] for name, model in models.items()}


def _measure_peak(name: str, queue) -> None:
    model, ids = loaded()
    step = VARIANTS[name](model)
    if ids.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what loading has freed goes back to the system
        Path("/proc/self/clear_refs").write_text("5")  # and its peak is forgotten
    for _ in range(3):
        step(ids)
    if ids.is_cuda:
        queue.put(torch.cuda.max_memory_allocated() / 2**20)
    else:
        status = Path("/proc/self/status").read_text()
        queue.put(int(status.split("VmHWM:")[1].split()[0]) / 2**10)


def measure_peaks(names: list[str]) -> dict[str, float]:
    """{name: peak memory in MiB of three training steps, model included}; {} where it can't be read
    (on a CPU it takes Linux)."""
    if not torch.cuda.is_available() and platform.system() != "Linux":
        return {}
    context = multiprocessing.get_context("spawn")
    peaks = {}
    with progress_bar(len(names), "memory") as bar:
        for name in names:
            queue = context.Queue()
            process = context.Process(target=_measure_peak, args=(name, queue))
            process.start()
            peaks[name] = queue.get(timeout=600)
            process.join()
            bar.update()
    return peaks


def measure_event(repeats: int = 5) -> str:
    """What BeamLoRA does between steps, as a sentence: medians of a snapshot, of an event and of
    recording every rank once, on the model of the table."""
    model, ids = loaded()
    bl.attach(model, bl.BeamLoRA(r=RANK, lora_alpha=ALPHA, period=2, p_start=0.9))
    run, history = bl.Run(model, steps=TOTAL, lr=1e-3), bl.RankHistory(every=1)
    seconds: dict[str, list[float]] = {"a snapshot": [], "an event": [], "a recording": []}
    replaced, between = 0, run.schedule.step

    def timed(n: int) -> list[bl.RankEvent]:
        synchronize()
        started = time.perf_counter()
        events = between(n)
        synchronize()
        spent = time.perf_counter() - started
        seconds["an event" if n % 2 == 0 else "a snapshot"].append(spent)
        return events

    run.schedule.step = timed
    with progress_bar(2 * repeats, "events") as bar:
        for n in range(1, 2 * repeats + 1):
            model(input_ids=ids, labels=ids).loss.backward()
            replaced = len(run.update()) or replaced
            started = time.perf_counter()
            history.record(model, n)
            seconds["a recording"].append(time.perf_counter() - started)
            bar.update()
    parts = [f"{name} {statistics.median(values):.3f} s" for name, values in seconds.items()]
    return f"BeamLoRA between steps: {', '.join(parts)}; {replaced} ranks replaced in an event"


def table(seconds: dict[str, list[float]], trained: dict[str, int], peaks: dict[str, float]) -> str:
    """The measurements as a Markdown table: medians and quartiles of the step and of its overhead,
    which is taken within each round, so that a machine that slows down for a while counts less."""
    lines = [
        "| | trained, M | step, s | overhead over the floor, s | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for name, values in seconds.items():
        over = [value - floor for value, floor in zip(values, seconds[FLOOR])]
        overhead = "" if name == FLOOR else median_and_quartiles(over)
        peak = f"{peaks[name]:.0f}" if name in peaks else "not measured"
        millions = f"{trained[name] / 1e6:.2f}"
        step = median_and_quartiles(values)
        lines.append(f"| {name} | {millions} | {step} | {overhead} | {peak} |")
    return "\n".join(lines)


def median_and_quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each variant (15)")
    parser.add_argument("--no-memory", action="store_true", help="measure time only")
    parser.add_argument("--only", nargs="+", choices=sorted({*bl.METHODS, *PEFT}), help="methods")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: allowed is 2 or more, for quartiles")
    chosen = options.only or [*bl.METHODS, *PEFT]
    names = [name for name in VARIANTS if name == FLOOR or name.split()[-1] in chosen]
    seconds, trained = measure_seconds(names, options.rounds)
    peaks = {} if options.no_memory else measure_peaks(names)
    print(table(seconds, trained, peaks))
    used = versions("torch", "transformers", "peft")
    machine = f"{processor()}; {', '.join(map(' '.join, used.items()))}"
    if "beamlora" in chosen:
        print(f"\n{measure_event()}")
    print(f"\n{machine}; {options.rounds} interleaved rounds")


if __name__ == "__main__":
    main()
