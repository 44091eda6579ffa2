"""LoRA (Hu et al., arXiv 2106.09685): learn the change of a weight, not the weight.

Fine-tuning turns W into W + dW. LoRA freezes W and writes dW = (alpha / r) B A, with A (r, in) and
B (out, r): r (in + out) numbers to train instead of in * out. A starts random and B at zero, so
training starts from exactly the base model; afterwards dW can be added into W and costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..layers import AdapterLayer
from .base import Method


class LoRALinear(AdapterLayer):
    """y = W x + b + s B A x, with s = alpha / r: what `AdapterLayer` does unless told otherwise.

    Shapes: x (..., in) -> (..., out); lora_A (r, in); lora_B (out, r).
    """


@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank adaptation. use_rslora scales by alpha / sqrt(r) instead of alpha / r
    (Kalajdzievski, arXiv 2312.03732), so that the update's size does not shrink as r grows."""

    use_rslora: bool = False

    Layer: ClassVar = LoRALinear

    @property
    def scaling(self) -> float:
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)
