"""MiLoRA (Wang, Li, Wang, Chen, Chen, arXiv 2406.09044, NAACL 2025): train the minor part.

The mirror image of PiSSA: the r smallest singular values and their vectors become the adapter, and
the principal part, where most of what the model knows is supposed to be, stays frozen. The adapter
starts almost at zero, in directions that the weight hardly uses. (The official script sets
lora_alpha = r; the start is the same for any lora_alpha, the size of a step is not.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Method
from .pissa import Part, SplitLinear, warn_of_dropout


class MiLoRALinear(SplitLinear):
    """`SplitLinear` with the minor part."""

    def part(self, weight: Tensor) -> Part:
        return minor_part(weight, self.r)


@dataclass(frozen=True)
class MiLoRA(Method):
    """Minor singular component adaptation."""

    Layer: ClassVar = MiLoRALinear

    def __post_init__(self):
        super().__post_init__()
        warn_of_dropout(self)


@torch.no_grad()
def minor_part(weight: Tensor, r: int) -> Part:
    """(U (out, r), S (r,), Vh (r, in)): the r smallest of the min(in, out) singular values of a
    weight (out, in), with their vectors."""
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    return U[:, -r:], S[-r:], Vh[-r:]
