"""beamlora_mini: what happens inside LoRA, and everything that grew out of it.

import beamlora_mini as bl
"""

from .adapters import (
    AdapterLayer,
    adapter_layers,
    attach,
    count_parameters,
    detach,
    merge,
    merge_and_unload,
    unmerge,
)
from .events import RankEvent
from .history import RankHistory
from .methods import (
    METHODS,
    AdaLoRA,
    BeamLoRA,
    DoRA,
    IncreLoRA,
    LoRA,
    MiLoRA,
    PiSSA,
    ReLoRA,
)
from .models import load_model
from .tasks import TASKS, load_task
from .training import History, evaluate, fit

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
    "MiLoRA",
    "PiSSA",
    "RankEvent",
    "RankHistory",
    "ReLoRA",
    "adapter_layers",
    "attach",
    "count_parameters",
    "detach",
    "evaluate",
    "fit",
    "load_model",
    "load_task",
    "merge",
    "merge_and_unload",
    "unmerge",
]
