"""The gradient of a frozen weight, seen in passing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class _Watch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y: Tensor, x: Tensor, see: Callable[[Tensor], None]) -> Tensor:
        ctx.save_for_backward(x)  # and not in a closure: activation checkpointing can drop it
        ctx.see = see
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        dy = gradient.flatten(0, -2)
        if dy.dtype is torch.float16:  # where the sum would overflow before the gradients do
            dy = dy.float()
        ctx.see(dy.T @ x.flatten(0, -2).to(dy))
        return gradient, None, None


class WeightGradient:
    """dL/dW (out, in) of a layer y = x W^T + ..., summed over backward passes in `dtype` while `on`."""

    def __init__(self, dtype: torch.dtype):
        self.dtype, self.on = dtype, False
        self.total: Tensor | None = None

    def look(self, y: Tensor, x: Tensor) -> Tensor:
        """y (..., out) as it is, once x (..., in) has gone in; the backward pass adds to the sum."""
        return _Watch.apply(y, x.detach(), self.see) if self.on and y.requires_grad else y

    def look_at(self, weight: Tensor) -> Tensor:
        """weight (out, in) as it is; the backward pass adds its gradient to the sum."""
        if self.on and weight.requires_grad:
            weight.register_hook(lambda gradient: self.see(gradient.clone()))
        return weight

    def see(self, gradient: Tensor) -> None:
        gradient = gradient.to(self.dtype)
        self.total = gradient if self.total is None else self.total.add_(gradient)

    def take(self) -> Tensor | None:
        """The sum, None if nothing was seen; it starts anew."""
        taken, self.total = self.total, None
        return taken
