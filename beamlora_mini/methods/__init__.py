"""One method, one file. `METHODS` maps a method's name to its class."""

from .base import Method, Schedule
from .beamlora import BeamLoRA
from .dora import DoRA
from .lora import LoRA
from .milora import MiLoRA
from .pissa import PiSSA
from .relora import ReLoRA

METHODS = {
    "lora": LoRA,
    "pissa": PiSSA,
    "milora": MiLoRA,
    "dora": DoRA,
    "relora": ReLoRA,
    "beamlora": BeamLoRA,
}

__all__ = [
    "METHODS",
    "BeamLoRA",
    "DoRA",
    "LoRA",
    "Method",
    "MiLoRA",
    "PiSSA",
    "ReLoRA",
    "Schedule",
]
