"""The machine and its files: where the shipped data lies, what computes, progress bars."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from functools import partialmethod
from pathlib import Path

from tqdm.auto import tqdm

SILENT = os.environ.get("TQDM_DISABLE", "") not in ("", "0")

if SILENT:  # tqdm's notebook bars do not heed the variable; transformers draws some while loading
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)


def progress_bar(
    total: int, description: str, show: bool = True, initial: int = 0, delay: float = 0
) -> tqdm:
    """A bar over `total` steps with the time left, drawn if `show` and unless the environment says
    TQDM_DISABLE=1; only once `delay` seconds have passed."""
    hidden = SILENT or not show
    return tqdm(total=total, desc=description, initial=initial, delay=delay, disable=hidden)


def data_folder() -> Path:
    """Where the shipped models and tasks are: inside an installed wheel, else in the repository."""
    package = Path(__file__).resolve().parent
    folder = next((f for f in (package / "data", package.parent / "data") if f.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f"no data folder beside {package.name}: install the package again, or run it from a "
            "clone of its repository"
        )
    return folder


def processor() -> str:
    """What computes here: the GPU's name, or the CPU's and the number of threads."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    model = [line for line in text.splitlines() if line.startswith("model name")]
    name = model[0].split(":")[1].strip() if model else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads"


def processes() -> int:
    """How many processes train together."""
    from torch import distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def versions(*libraries: str) -> dict[str, str]:
    """{name: version} of Python and of installed packages, for the record of a measurement."""
    found = {name: importlib.metadata.version(name) for name in libraries}
    return {"Python": platform.python_version(), **found}
