"""beamlora_mini: what happens inside LoRA, and everything that grew out of it.

import beamlora_mini as bl
"""

from . import paired
from .evaluation import evaluate
from .events import RankEvent
from .explorers import arena, explore, lab, playground
from .fit import fit
from .history import History, RankHistory
from .interop import save_adapter
from .layers import (
    AdapterLayer,
    adapter_layers,
    attach,
    count_parameters,
    detach,
    merge,
    merge_and_unload,
    unmerge,
)
from .memory import training_memory
from .methods import (
    METHODS,
    AdaLoRA,
    BeamLoRA,
    DoRA,
    IncreLoRA,
    LoRA,
    Method,
    MiLoRA,
    PiSSA,
    RankSchedule,
    ReLoRA,
)
from .models import load_model
from .run import Run
from .tasks import TASKS, load_task

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "TASKS",
    "AdaLoRA",
    "AdapterLayer",
    "BeamLoRA",
    "DoRA",
    "History",
    "IncreLoRA",
    "LoRA",
    "Method",
    "MiLoRA",
    "PiSSA",
    "RankEvent",
    "RankHistory",
    "RankSchedule",
    "ReLoRA",
    "Run",
    "adapter_layers",
    "arena",
    "attach",
    "count_parameters",
    "detach",
    "evaluate",
    "explore",
    "fit",
    "lab",
    "load_model",
    "load_task",
    "merge",
    "merge_and_unload",
    "paired",
    "playground",
    "save_adapter",
    "training_memory",
    "unmerge",
]
