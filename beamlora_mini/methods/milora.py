"""MiLoRA (Wang, Li, Wang, Chen, Chen, arXiv 2406.09044, NAACL 2025): train the minor part.

The mirror image of PiSSA: the r smallest singular values and their vectors become the adapter, and
the principal part, where most of what the model knows is supposed to be, stays frozen. The adapter
starts almost at zero, in directions that the weight hardly uses. (The official script sets
lora_alpha = r; the start is the same for any lora_alpha, the size of a step is not.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .base import Method
from .pissa import SplitLinear, warn_of_dropout, wide


@dataclass(frozen=True)
class MiLoRA(Method):
    """Minor singular component adaptation."""

    def __post_init__(self):
        super().__post_init__()
        warn_of_dropout(self)

    def wrap(self, base: nn.Module) -> SplitLinear:
        layer = SplitLinear(base, self.r, self.scaling, self.lora_dropout)
        layer.start_from(*minor_part(layer.weight, self.r))
        return layer


@torch.no_grad()
def minor_part(weight: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """(U (out, r), S (r,), Vh (r, in)): the r smallest of the min(in, out) singular values of a
    weight (out, in), with their vectors, in float32 or wider."""
    U, S, Vh = torch.linalg.svd(wide(weight), full_matrices=False)
    return U[:, -r:], S[-r:], Vh[-r:]
