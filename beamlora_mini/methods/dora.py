"""DoRA (Liu et al., arXiv 2402.09353, ICML 2024): learn how long a weight's rows are, and where
they point, apart.

Each row of W is a length times a direction. Full fine-tuning often changes one of them and hardly
the other; LoRA tends to change both together. DoRA gives the lengths parameters of their own, the
magnitude m, and leaves the directions to LoRA: W' = (m / ||V||) V with V = W + s B A, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..adapters import low_rank_linear
from .base import Method
from .lora import LoRALinear


class DoRALinear(LoRALinear):
    """y = (m / ||V||) * (V x) + b, with V = W + s B A and ||V|| the norm of each row.

    ||V|| counts as a constant in the backward pass, as in the paper (section 4.3). Dropout, as in
    LoRA, falls on the input of A alone.

    Shapes: x (..., in) -> (..., out); lora_A (r, in); lora_B (out, r); magnitude (out,).
    """

    def __init__(self, base: nn.Module, r: int, scaling: float, lora_dropout: float = 0.0):
        super().__init__(base, r, scaling, lora_dropout)
        weight = self.weight.detach().to(self.lora_A.dtype)
        self.register_buffer("squared_norm", weight.square().sum(1))  # of W's rows, which stay
        self.magnitude = nn.Parameter(self.row_norm())

    @torch.no_grad()
    def row_norm(self) -> Tensor:
        """(out,): ||V||, without forming B A:
        ||V||^2 = ||W||^2 + 2 s rowsum((W A^T) * B) + s^2 rowsum((B (A A^T)) * B)."""
        A, B, s = self.lora_A, self.lora_B, self.scaling
        with torch.autocast(A.device.type, enabled=False):
            WA = (self.weight @ A.T.to(self.weight.dtype)).to(A.dtype)
            squared = self.squared_norm + ((2 * s * WA + s * s * (B @ (A @ A.T))) * B).sum(1)
        # A row of zeros has no direction: the least number above zero keeps m / ||V|| at 1.
        return squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        if self.merged_weight is not None:
            return self.merged_forward(x)
        y = low_rank_linear(
            x, self.weight, None, self.lora_A, self.lora_B, self.scaling,
            x_adapter=self.adapter_input(x),
        )  # fmt: skip
        stretch = self.magnitude / self.row_norm()
        stretched = y * stretch if self.bias is None else torch.addcmul(self.bias, y, stretch)
        return stretched.to(y.dtype)  # a stretch near 1 needs more digits than bfloat16 has

    def delta_weight(self) -> Tensor:
        V = self.weight + super().delta_weight()
        return (self.magnitude / self.row_norm())[:, None] * V - self.weight


@dataclass(frozen=True)
class DoRA(Method):
    """Weight-decomposed low-rank adaptation."""

    def wrap(self, base: nn.Module) -> DoRALinear:
        return DoRALinear(base, self.r, self.scaling, self.lora_dropout)
