"""PiSSA (Meng, Wang, Zhang, arXiv 2404.02948, NeurIPS 2024): train the principal part of a weight.

LoRA leaves W alone and learns something small beside it. PiSSA splits W = U S Vh itself: the r
largest singular values and their vectors become the adapter, s B0 A0 = U_r S_r Vh_r, and only what
is left over, the residual W - s B0 A0, stays frozen. Nothing is zero at the start, so the first
gradients are large, and still the sum is W.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..checks import require, require_whole
from ..layers import AdapterLayer, add_low_rank
from .base import Method

Part = tuple[Tensor, Tensor, Tensor]  # U (out, r), S (r,), Vh (r, in)


class SplitLinear(AdapterLayer):
    """y = (W - s B0 A0) x + b + s B A x, where A, B start at A0, B0, cut out of W.

    The residual is never stored: W x + s (B A - B0 A0) x is the same function, and W stays whole (a
    tied embedding does not move, detaching is exact). B A - B0 A0 = B (A - A0) + (B - B0) A0: that
    way round small changes survive a product in bfloat16, which the difference of two large
    products would drown.

    Shapes: x (..., in) -> (..., out); lora_A and initial_A (r, in); lora_B and initial_B (out, r).
    """

    initial_A: Tensor
    initial_B: Tensor

    def part(self, weight: Tensor) -> Part:
        """The part of a weight (out, in), in float32 or wider, that becomes the adapter."""
        raise NotImplementedError

    @torch.no_grad()
    def start(self) -> None:
        """A0 = sqrt(S / s) Vh, B0 = U sqrt(S / s)."""
        most = min(self.in_features, self.out_features)
        shape = (self.out_features, self.in_features)
        allowed = f"an integer up to {most}, the smaller side of a weight {shape}"
        require(self.r <= most, "r", self.r, allowed)
        U, S, Vh = self.part(self.frozen_weight.detach().to(self.factor_dtype))
        root = (S / self.scaling).sqrt()
        self.lora_A, self.lora_B = self.trained(root[:, None] * Vh), self.trained(U * root)
        self.remember("initial_A", self.lora_A.detach().clone())
        self.remember("initial_B", self.lora_B.detach().clone())

    def plain(self) -> tuple[Tensor, Tensor]:
        """Relative to W, of rank 2r: A' = [A - A0; A0] (2r, in), B' = [B, B - B0] (out, 2r)."""
        A = torch.cat([self.lora_A - self.initial_A, self.initial_A])
        return A, torch.cat([self.lora_B, self.lora_B - self.initial_B], dim=1)

    def factors(self) -> tuple[Tensor, Tensor, None]:
        """Dropout falls on the adapter's input alone, and not on the residual's."""
        return (self.lora_A, self.lora_B, None) if self.drops else (*self.plain(), None)

    def base_is_plain(self) -> bool:
        return not self.drops and super().base_is_plain()

    def base_forward(self, x: Tensor) -> Tensor:
        y = super().base_forward(x)
        if self.drops:
            y = add_low_rank(y, x, self.initial_A, self.initial_B, -self.scaling)
        return y

    @property
    @torch.no_grad()
    def residual(self) -> Tensor:
        """(out, in), in the adapter's dtype: what stays frozen, W - s B0 A0."""
        return self.frozen_weight - self.scaling * (self.initial_B @ self.initial_A)


def warn_of_dropout(method: Method) -> None:
    if method.lora_dropout > 0:
        warnings.warn(
            f"lora_dropout={method.lora_dropout}: the adapter of {type(method).__name__} is not "
            "zero at the start, so with dropout training does not start from the base model",
            stacklevel=4,  # past __post_init__ and __init__, to the line that made the method
        )


class PiSSALinear(SplitLinear):
    """`SplitLinear` with the principal part."""

    def part(self, weight: Tensor) -> Part:
        return principal_part(weight, self.r, self.method.niter)


@dataclass(frozen=True)
class PiSSA(Method):
    """Principal singular values and singular vectors adaptation.

    niter: None for the exact decomposition; else the number of power iterations of a randomised
    one (Halko et al., arXiv 0909.4061), much quicker on large weights. Its random directions are
    always the same, so that the same weight always splits the same way.
    """

    niter: int | None = None

    Layer: ClassVar = PiSSALinear

    def __post_init__(self):
        super().__post_init__()
        require_whole("niter", self.niter, 0, or_none=True)
        warn_of_dropout(self)


@torch.no_grad()
def principal_part(weight: Tensor, r: int, niter: int | None = None) -> Part:
    """(U (out, r), S (r,), Vh (r, in)): the r largest singular values of a weight (out, in), with
    their vectors. niter as in `PiSSA`."""
    if niter is None:
        U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
        return U[:, :r], S[:r], Vh[:r]
    if weight.shape[0] < weight.shape[1]:
        U, S, Vh = principal_part(weight.T, r, niter)
        return Vh.T, S, U.T
    # A generator of its own: the user's random numbers, on every device, stay as they are.
    drawn = torch.randn(weight.shape[1], r, generator=torch.Generator().manual_seed(0))
    Q = torch.linalg.qr(weight @ drawn.to(weight)).Q
    for _ in range(niter):
        Q = torch.linalg.qr(weight.T @ Q).Q
        Q = torch.linalg.qr(weight @ Q).Q
    U, S, Vh = torch.linalg.svd(Q.T @ weight, full_matrices=False)
    return Q @ U, S, Vh
