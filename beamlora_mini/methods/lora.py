"""LoRA (Hu et al., arXiv 2106.09685): learn the change of a weight, not the weight.

Fine-tuning turns W into W + dW. LoRA freezes W and writes dW = (alpha / r) B A, with A (r, in) and
B (out, r): r (in + out) numbers to train instead of in * out. A starts random and B at zero, so
training starts from exactly the base model; afterwards dW can be added into W and costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..adapters import AdapterLayer
from ..ranks import frobenius_importance
from .base import Method


class LoRALinear(AdapterLayer):
    """y = W x + b + s B A x, with s = alpha / r.

    Shapes: x (..., in) -> (..., out); lora_A (r, in); lora_B (out, r).
    """

    def __init__(self, base: nn.Module, r: int, scaling: float, lora_dropout: float = 0.0):
        super().__init__(base, r, scaling, lora_dropout)
        # U(-1/sqrt(in), 1/sqrt(in)), the start of nn.Linear, as in the official code.
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.base_plus_low_rank(x)

    def delta_weight(self) -> Tensor:
        return self.scaling * (self.lora_B @ self.lora_A)

    @torch.no_grad()
    def rank_importance(self) -> Tensor:
        return frobenius_importance(self.lora_A, self.lora_B)


@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank adaptation. use_rslora scales by alpha / sqrt(r) instead of alpha / r
    (Kalajdzievski, arXiv 2312.03732), so that the update's size does not shrink as r grows."""

    use_rslora: bool = False

    @property
    def scaling(self) -> float:
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    def wrap(self, base: nn.Module) -> LoRALinear:
        return LoRALinear(base, self.r, self.scaling, self.lora_dropout)
