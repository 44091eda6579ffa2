"""PiSSA (Meng, Wang, Zhang, arXiv 2404.02948, NeurIPS 2024): train the principal part of a weight.

LoRA leaves W alone and learns something small beside it. PiSSA splits W = U S Vh itself: the r
largest singular values and their vectors become the adapter, s B0 A0 = U_r S_r Vh_r, and only what
is left over, the residual W - s B0 A0, stays frozen. Nothing is zero at the start, so the first
gradients are large, and still the sum is W.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..adapters import AdapterLayer, low_rank_linear
from ..ranks import frobenius_importance
from .base import Method, require


class SplitLinear(AdapterLayer):
    """y = (W - s B0 A0) x + b + s B A x, where A, B start at A0, B0, cut out of W.

    The residual is never stored: W x + s (B A - B0 A0) x is the same function, for two thin
    products more. So W stays whole (a tied embedding does not move, detaching is exact), and no
    rounding of a residual to bfloat16 moves the start away from W.

    Shapes: x (..., in) -> (..., out); lora_A and initial_A (r, in); lora_B and initial_B (out, r).
    """

    def __init__(self, base: nn.Module, r: int, scaling: float, lora_dropout: float = 0.0):
        super().__init__(base, r, scaling, lora_dropout)
        most = min(self.in_features, self.out_features)
        allowed = (
            f"an integer up to {most}, the smaller side of a weight {tuple(self.weight.shape)}"
        )
        require(r <= most, "r", r, allowed)
        self.register_buffer("initial_A", torch.empty_like(self.lora_A))
        self.register_buffer("initial_B", torch.empty_like(self.lora_B))

    @torch.no_grad()
    def start_from(self, U: Tensor, S: Tensor, Vh: Tensor) -> None:
        """Make U S Vh, a part of W, the adapter: A0 = sqrt(S / s) Vh, B0 = U sqrt(S / s).

        Shapes: U (out, r), S (r,), Vh (r, in).
        """
        root = (S / self.scaling).sqrt()
        self.lora_A.copy_(root[:, None] * Vh)
        self.lora_B.copy_(U * root)
        self.initial_A.copy_(self.lora_A)
        self.initial_B.copy_(self.lora_B)

    def forward(self, x: Tensor) -> Tensor:
        if self.merged_weight is not None:
            return self.merged_forward(x)
        dropped = self.adapter_input(x)
        if dropped is None:
            A, B = self.as_plain_lora()
            return low_rank_linear(x, self.weight, self.bias, A, B, self.scaling)
        y = low_rank_linear(
            x, self.weight, self.bias, self.lora_A, self.lora_B, self.scaling, x_adapter=dropped
        )
        A, B = self.initial_A.to(x.dtype), self.initial_B.to(x.dtype)
        return y - F.linear(F.linear(x, A), self.scaling * B)  # the residual's input is not dropped

    def as_plain_lora(self) -> tuple[Tensor, Tensor]:
        """(A', B') of the LoRA of rank 2r and the same scaling that turns the original W into what
        the layer computes: A' = [A; A0] (2r, in), B' = [B, -B0] (out, 2r)."""
        A = torch.cat([self.lora_A, self.initial_A])
        return A, torch.cat([self.lora_B, -self.initial_B], dim=1)

    @property
    @torch.no_grad()
    def residual(self) -> Tensor:
        """(out, in), in the adapter's dtype: what stays frozen, W - s B0 A0."""
        return self.weight - self.scaling * (self.initial_B @ self.initial_A)

    def delta_weight(self) -> Tensor:
        return self.scaling * (self.lora_B @ self.lora_A - self.initial_B @ self.initial_A)

    @torch.no_grad()
    def rank_importance(self) -> Tensor:
        return frobenius_importance(self.lora_A, self.lora_B)


def wide(weight: Tensor) -> Tensor:
    """A weight in the dtype its singular values are computed in: float32, or its own if wider."""
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32))


def warn_of_dropout(method: Method) -> None:
    if method.lora_dropout > 0:
        warnings.warn(
            f"lora_dropout={method.lora_dropout}: the adapter of {type(method).__name__} is not "
            "zero at the start, so with dropout training does not start from the base model",
            stacklevel=4,  # past __post_init__ and __init__, to the line that made the method
        )


@dataclass(frozen=True)
class PiSSA(Method):
    """Principal singular values and singular vectors adaptation.

    niter: None for the exact decomposition; else the number of power iterations of a randomised
    one (Halko et al., arXiv 0909.4061), much quicker on large weights. Its random directions are
    always the same, so that the same weight always splits the same way.
    """

    niter: int | None = None

    def __post_init__(self):
        super().__post_init__()
        valid = self.niter is None or (isinstance(self.niter, int) and self.niter >= 0)
        require(valid, "niter", self.niter, "None or an integer of at least 0")
        warn_of_dropout(self)

    def wrap(self, base: nn.Module) -> SplitLinear:
        layer = SplitLinear(base, self.r, self.scaling, self.lora_dropout)
        layer.start_from(*principal_part(layer.weight, self.r, self.niter))
        return layer


@torch.no_grad()
def principal_part(
    weight: Tensor, r: int, niter: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(U (out, r), S (r,), Vh (r, in)): the r largest singular values of a weight (out, in), with
    their vectors, in float32 or wider. niter as in `PiSSA`."""
    if niter is None:
        U, S, Vh = torch.linalg.svd(wide(weight), full_matrices=False)
        return U[:, :r], S[:r], Vh[:r]
    with torch.random.fork_rng(devices=[weight.device] if weight.is_cuda else []):
        torch.manual_seed(0)
        U, S, V = torch.svd_lowrank(wide(weight), q=r, niter=niter)
    return U, S, V.T
