"""Out into the world: the formats and tools that others use."""

from . import saving  # noqa: F401  (attach has a hand in transformers' saving)
from .peft import save_adapter

__all__ = ["save_adapter"]
