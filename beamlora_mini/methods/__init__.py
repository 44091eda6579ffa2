"""One method, one file. `METHODS` maps a method's name to its class."""

from .adalora import AdaLoRA
from .base import Method, RankSchedule
from .beamlora import BeamLoRA
from .dora import DoRA
from .increlora import IncreLoRA
from .lora import LoRA
from .milora import MiLoRA
from .pissa import PiSSA
from .relora import ReLoRA

METHODS: dict[str, type[Method]] = {
    "lora": LoRA,
    "pissa": PiSSA,
    "milora": MiLoRA,
    "dora": DoRA,
    "relora": ReLoRA,
    "adalora": AdaLoRA,
    "increlora": IncreLoRA,
    "beamlora": BeamLoRA,
}

__all__ = [
    "METHODS",
    "AdaLoRA",
    "BeamLoRA",
    "DoRA",
    "IncreLoRA",
    "LoRA",
    "Method",
    "MiLoRA",
    "PiSSA",
    "RankSchedule",
    "ReLoRA",
]
