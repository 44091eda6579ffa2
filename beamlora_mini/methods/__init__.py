"""One method, one file. `METHODS` maps a method's name to its class."""

from .base import Method, Schedule
from .lora import LoRA

METHODS = {"lora": LoRA}

__all__ = ["METHODS", "LoRA", "Method", "Schedule"]
