"""DoRA (Liu et al., arXiv 2402.09353, ICML 2024): learn how long a weight's rows are, and where
they point, apart.

Each row of W is a length times a direction. The paper finds that full fine-tuning often changes one
of them and hardly the other, and that LoRA tends to change both together. DoRA gives the lengths parameters of their own, the
magnitude m, and leaves the directions to LoRA: W' = (m / ||V||) V with V = W + s B A, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..layers import without_autocast
from .base import Method
from .lora import LoRALinear


class DoRALinear(LoRALinear):
    """y = (m / ||V||) * (V x) + b, with V = W + s B A and ||V|| the norm of each row.

    ||V|| counts as a constant in the backward pass, as in the paper (section 4.3). Dropout, as in
    LoRA, falls on the input of A alone.

    Shapes: x (..., in) -> (..., out); lora_A (r, in); lora_B (out, r); magnitude (out,).
    """

    magnitude: Tensor
    initial_norm: Tensor

    def start(self) -> None:
        super().start()
        weight = self.frozen_weight.detach().to(self.factor_dtype)
        norm = _root(weight.square().sum(1))
        self.magnitude = self.trained(norm)
        # Kept beside m, in m's dtype: however both are rounded later, m / ||V|| starts at one.
        self.remember("initial_norm", norm.clone())

    @torch.no_grad()
    def row_norm(self) -> Tensor:
        """(out,): ||V||, without forming B A:
        ||V||^2 = ||W||^2 + 2 s rowsum((W A^T) * B) + s^2 rowsum((B (A A^T)) * B)."""
        s, weight = self.scaling, self.frozen_weight
        wide = torch.promote_types(self.lora_A.dtype, torch.float32)
        A, B, start = (t.to(wide) for t in (self.lora_A, self.lora_B, self.initial_norm))
        with without_autocast(A.device.type):
            WA = (weight @ A.T.to(weight.dtype)).to(wide)
            change = ((2 * s * WA + s * s * (B @ (A @ A.T))) * B).sum(1)
            squared = start.square()
            # Below this it is the rounding of a difference.
            least = torch.finfo(wide).eps * squared
            return _root((squared + change).clamp(min=least))

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.merged_weight is not None:
            return y
        stretch = self.magnitude / self.row_norm()
        if self.bias is None:
            stretched = y * stretch
        else:  # not the bias: (y - b) stretch + b
            stretched = torch.addcmul(self.bias * (1 - stretch), y, stretch)
        return stretched.to(y.dtype)  # a stretch near 1 needs more digits than bfloat16 has

    def plain(self) -> tuple[Tensor, Tensor]:
        raise TypeError("DoRA stretches whole rows of W: its update is no pair of thin factors")

    def delta_weight(self) -> Tensor:
        with without_autocast(self.device.type):
            V = self.frozen_weight + self.scaling * (self.lora_B @ self.lora_A)
        return (self.magnitude / self.row_norm())[:, None] * V - self.frozen_weight


def _root(squared: Tensor) -> Tensor:
    # A row of zeros has no direction: the least number above zero keeps m / ||V|| at 1.
    return squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt()


@dataclass(frozen=True)
class DoRA(Method):
    """Weight-decomposed low-rank adaptation."""

    Layer: ClassVar = DoRALinear
