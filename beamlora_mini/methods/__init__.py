"""One method, one file. `METHODS` maps a method's name to its class."""

from .base import Method, Schedule
from .beamlora import BeamLoRA
from .lora import LoRA

METHODS = {"lora": LoRA, "beamlora": BeamLoRA}

__all__ = ["METHODS", "BeamLoRA", "LoRA", "Method", "Schedule"]
