"""The arithmetic of a low-rank update beside a frozen linear layer, forward and backward."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class _LowRank(torch.autograd.Function):
    """y + scale * ((x' A^T) * rank_weights) B^T, where y is given, or is x W^T + b for frozen W, b.

    Autograd on the plain formula makes a full-size copy for every sum and every factor. Here each
    product is bracketed so that it passes through the r-wide tensor, the scale stays on that one,
    and where y is made here the narrow product adds to it in place.
    """

    @staticmethod
    def forward(ctx, x, x_adapter, y, weight, bias, A, B, rank_weights, scale):
        rows = x.reshape(-1, x.shape[-1])
        seen = rows if x_adapter is None else x_adapter.reshape(rows.shape)
        z = seen @ A.T
        weighted = _weighted(z, rank_weights, scale)
        if y is None:
            out = F.linear(rows, weight, bias).addmm_(weighted, B.T)
        else:
            out = torch.addmm(y.reshape(-1, y.shape[-1]), weighted, B.T)
        ctx.scale, ctx.x_shape, ctx.own_input = scale, x.shape, x_adapter is None
        ctx.save_for_backward(seen, z, weight, A, B, rank_weights)
        # Not a view, as torch sees it: an in-place ReLU may follow, as after nn.Linear.
        return torch.ops.aten._unsafe_view(out, (*x.shape[:-1], out.shape[-1]))

    @staticmethod
    @once_differentiable  # z is saved, not recomputed: a second derivative would miss its share
    def backward(ctx, grad_out):
        with without_autocast(grad_out.device.type):
            return _LowRank._backward(ctx, grad_out)

    @staticmethod
    def _backward(ctx, grad_out):
        seen, z, weight, A, B, rank_weights = ctx.saved_tensors
        needs_x, needs_x_adapter, needs_y, _, _, needs_A, needs_B, needs_weights, _ = (
            ctx.needs_input_grad
        )
        dy = grad_out.reshape(-1, grad_out.shape[-1])
        dz = dy @ B
        dx = dx_adapter = dA = dB = dweights = None
        if needs_weights:
            dweights = ctx.scale * (dz.to(rank_weights.dtype) * z).sum(0)
        dz = _weighted(dz, rank_weights, ctx.scale)
        if needs_x and weight is not None:
            dx = dy @ weight
            if ctx.own_input:
                dx.addmm_(dz, A)
        elif needs_x and ctx.own_input:
            dx = dz @ A
        if dx is not None:
            dx = dx.view(ctx.x_shape)
        if needs_x_adapter:
            dx_adapter = (dz @ A).view(ctx.x_shape)
        if needs_A:
            dA = dz.T @ seen
        if needs_B:
            weighted = _weighted(z, rank_weights, ctx.scale)
            # On a CPU (z^T dy)^T: the wide operand stays in memory order, twice as fast.
            dB = dy.T @ weighted if dy.is_cuda else (weighted.T @ dy).T
        return dx, dx_adapter, grad_out if needs_y else None, None, None, dA, dB, dweights, None


def _weighted(z: Tensor, rank_weights: Tensor | None, scale: float) -> Tensor:
    return z * scale if rank_weights is None else (z * (rank_weights * scale)).to(z.dtype)


def autocast_dtype(device: str) -> torch.dtype | None:
    """What autocast computes in on this kind of device; None where it is off."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def without_autocast(device: str):
    """A context in which products keep their operands' dtype, whatever the user has switched on."""
    if autocast_dtype(device) is None:
        return nullcontext()
    return torch.autocast(device, enabled=False)


def low_rank_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    scale: float,
    rank_weights: Tensor | None = None,
    x_adapter: Tensor | None = None,
) -> Tensor:
    """Frozen linear layer plus a low-rank update: y = x W^T + b + scale ((x A^T) * rank_weights) B^T.

    Shapes: x (..., in); weight (out, in); bias (out,) or None; A (r, in); B (out, r); rank_weights
    (r,), None for ones; x_adapter (..., in) where the adapter sees another input than W (dropout);
    returns (..., out). Computes in x's dtype, or autocast's; A, B and rank_weights may be kept in a
    wider one. weight and bias get no gradient. With B zero it is the frozen layer to the bit.
    """
    dtype = x.dtype
    if dtype is not torch.float64:  # which autocast leaves alone
        dtype = autocast_dtype(x.device.type) or dtype
    tensors = (x, x_adapter, None, weight, bias, A, B)
    tensors = (None if t is None else t.to(dtype) for t in tensors)
    return _LowRank.apply(*tensors, rank_weights, scale)


def add_low_rank(
    y: Tensor, x: Tensor, A: Tensor, B: Tensor, scale: float, rank_weights: Tensor | None = None
) -> Tensor:
    """y + scale ((x A^T) * rank_weights) B^T, for y (..., out) that any layer made of its input.

    Shapes and dtypes as in `low_rank_linear`; x is what the adapter sees. Computes in y's dtype;
    y gets its gradient.
    """
    x, A, B = (t.to(y.dtype) for t in (x, A, B))
    return _LowRank.apply(x, None, y, None, None, A, B, rank_weights, scale)
