"""What an adapter costs: `python -m beamlora_mini.bench`, or `make bench`.

One training step is a forward and a backward pass over 4 x 128 random tokens of SmolLM2-135M, rank
16 on every linear layer. The floor is the frozen model with gradients through all its layers. Every
round times each variant once, so that a busy machine slows all alike; peak memory is that of a
process of its own for each variant.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import importlib.metadata
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from .adapters import attach
from .history import RankHistory
from .methods import METHODS
from .models import load_model

RANK, ALPHA, BATCH, LENGTH = 16, 32, 4, 128
FLOOR = "frozen model (floor)"


def _ours(name: str) -> Callable[[nn.Module], nn.Module]:
    def build(model: nn.Module) -> nn.Module:
        attach(model, METHODS[name](r=RANK, lora_alpha=ALPHA))
        return model

    return build


def _peft(config: str, **settings) -> Callable[[nn.Module], nn.Module]:
    def build(model: nn.Module) -> nn.Module:
        import peft

        common = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
        make = getattr(peft, config)
        return peft.get_peft_model(model, make(r=RANK, lora_alpha=ALPHA, **common, **settings))

    return build


PEFT = {
    "lora": _peft("LoraConfig"),
    "pissa": _peft("LoraConfig", init_lora_weights="pissa"),
    "dora": _peft("LoraConfig", use_dora=True),
}
VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    FLOOR: lambda model: model.requires_grad_(False),
    **{f"beamlora_mini {name}": _ours(name) for name in METHODS},
    **{f"peft {name}": build for name, build in PEFT.items()},
}


def training_step(model: nn.Module, ids: torch.Tensor) -> None:
    model.zero_grad()
    if any(p.requires_grad for p in model.parameters()):
        model(input_ids=ids, labels=ids).loss.backward()
    else:  # nothing to train: a gradient at the embeddings still passes through every layer
        embedded = model.get_input_embeddings()(ids).requires_grad_()
        model(inputs_embeds=embedded, labels=ids).loss.backward()
    if ids.is_cuda:
        torch.cuda.synchronize()


def random_ids(device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 40_000, (BATCH, LENGTH), generator=generator).to(device)


def measure_seconds(names: list[str], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of a training step, `rounds` for each variant, interleaved."""
    torch.manual_seed(0)
    model, _ = load_model("smollm2")
    model.train()
    models = {name: VARIANTS[name](copy.deepcopy(model)) for name in names}
    ids = random_ids(model.device)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(warm_up + rounds):
        for name in names:
            started = time.perf_counter()
            training_step(models[name], ids)
            if round_ >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _measure_peak(name: str, queue) -> None:
    torch.manual_seed(0)
    model, _ = load_model("smollm2")
    model = VARIANTS[name](model.train())
    ids = random_ids(model.device)
    if ids.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what loading has freed goes back to the system
        Path("/proc/self/clear_refs").write_text("5")  # and its peak is forgotten
    for _ in range(3):
        training_step(model, ids)
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
    method = METHODS["beamlora"](r=RANK, lora_alpha=ALPHA, period=2, p_start=0.9)
    attach(model, method)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    schedule = method.schedule(model, optimizer, 100)
    history, ids = RankHistory(every=1), random_ids(model.device)
    seconds: dict[str, list[float]] = {"a snapshot": [], "an event": [], "a recording": []}
    replaced = 0
    for n in range(1, 2 * repeats + 1):
        training_step(model, ids)
        optimizer.step()
        started = time.perf_counter()
        replaced = len(schedule.step(n)) or replaced
        stepped = time.perf_counter()
        history.record(model, n)
        seconds["an event" if n % 2 == 0 else "a snapshot"].append(stepped - started)
        seconds["a recording"].append(time.perf_counter() - stepped)
    parts = [f"{name} {statistics.median(values):.3f} s" for name, values in seconds.items()]
    return f"BeamLoRA between steps: {', '.join(parts)}; {replaced} ranks replaced in an event"


def table(seconds: dict[str, list[float]], peaks: dict[str, float | None]) -> str:
    """The measurements as a Markdown table: medians and quartiles of the step and of its overhead,
    which is taken within each round, so that a machine that slows down for a while counts less."""
    lines = [
        "| | step, s | overhead over the floor, s | peak memory, MiB |",
        "|---|---|---|---|",
    ]
    for name, values in seconds.items():
        over = [value - floor for value, floor in zip(values, seconds[FLOOR])]
        overhead = "" if name == FLOOR else median_and_quartiles(over)
        peak = "not measured" if peaks.get(name) is None else f"{peaks[name]:.0f}"
        lines.append(f"| {name} | {median_and_quartiles(values)} | {overhead} | {peak} |")
    return "\n".join(lines)


def median_and_quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def processor() -> str:
    """What computes here: the GPU's name, or the CPU's and the number of threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    model = [line for line in text.splitlines() if line.startswith("model name")]
    name = model[0].split(":")[1].strip() if model else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads"


def versions(*libraries: str) -> dict[str, str]:
    """{name: version} of Python and of installed packages, for the record of a measurement."""
    found = {name: importlib.metadata.version(name) for name in libraries}
    return {"Python": platform.python_version(), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each variant")
    parser.add_argument("--no-memory", action="store_true", help="measure time only")
    parser.add_argument("--only", nargs="+", choices=sorted({*METHODS, *PEFT}), help="methods")
    options = parser.parse_args()
    chosen = options.only or [*METHODS, *PEFT]
    names = [name for name in VARIANTS if name == FLOOR or name.split()[-1] in chosen]
    seconds = measure_seconds(names, options.rounds)
    peaks = {} if options.no_memory else {name: measure_peak(name) for name in names}
    print(table(seconds, peaks))
    used = versions("torch", "transformers", "peft")
    machine = f"{processor()}; {', '.join(map(' '.join, used.items()))}"
    print(f"\n{measure_event()}\n\n{machine}; {options.rounds} interleaved rounds")


if __name__ == "__main__":
    main()
