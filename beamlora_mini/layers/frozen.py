"""The frozen layer under an adapter: the one place that knows what kinds there are.

A frozen layer is called, never read: what it computes is its own affair, with its hooks, a weight
kept elsewhere or a pruned one. What needs W itself (a start from its singular values, the norms of
its rows, merging) gets it here as a matrix.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils import prune, remove_weight_norm
from torch.nn.utils.weight_norm import WeightNorm

KINDS = "torch.nn.Linear and Conv1D"


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is transformers' Conv1D, whose weight lies the other way round. (Where its module
    was never imported there is none.)"""
    conv1d = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)
    return conv1d is not None and type(module) is conv1d


def is_adaptable(module: nn.Module) -> bool:
    """Exact types: a subclass may compute something else. (MultiheadAttention's last projection has
    a type of its own, and computes the same.)"""
    return type(module) in (nn.Linear, NonDynamicallyQuantizableLinear) or is_conv1d(module)


def is_readable(base: Any) -> bool:
    """Whether its weight is a parameter, or made by a hook that is known: pruning's, weight_norm's."""
    return "weight" in base._parameters or _is_pruned(base) or "weight_g" in base._parameters


def _is_pruned(base: Any) -> bool:
    return "weight_mask" in base._buffers


def dense(base: Any) -> Tensor:
    """W as (out, in), whichever way round `base` stores it, and whole where it is sharded.
    ValueError where it is not in memory."""
    if "weight" not in base._parameters:  # a hook makes it before each call: have it up to date
        for hook in base._forward_pre_hooks.values():
            if isinstance(hook, prune.BasePruningMethod | WeightNorm):
                hook(base, None)
    weight = base.weight
    if weight.is_meta:
        raise ValueError(
            "base: its weight is not in memory (on the meta device, as where accelerate keeps it on "
            "the CPU or on disk): allowed is a loaded layer; attach first, then offload"
        )
    if hasattr(weight, "full_tensor"):
        weight = weight.full_tensor()
    return weight.T if is_conv1d(base) else weight


def assign(base: Any, weight: Tensor) -> None:
    """Make `weight` (out, in) the layer's own, in a parameter that nothing else shares."""
    if _is_pruned(base):
        prune.remove(base, "weight")
    elif "weight" not in base._parameters:
        remove_weight_norm(base)
    trainable = base.weight.requires_grad
    stored = weight.T.contiguous() if is_conv1d(base) else weight
    base.weight = nn.Parameter(stored, requires_grad=trainable)


def apply(base: Any, x: Tensor, weight: Tensor) -> Tensor:
    """What `base` would compute with another weight (out, in): (..., in) -> (..., out)."""
    if is_plain_linear(base) or "weight" not in base._parameters:
        return F.linear(x, weight, base.bias)
    stored = weight.T if is_conv1d(base) else weight
    return functional_call(base, {"weight": stored}, (x,))


def is_plain_linear(base: Any) -> bool:
    """Whether calling `base` is x W^T + b and nothing else: no hooks, no forward of its own, an
    ordinary weight in its place, no gradient for weight or bias."""
    weight, bias = base._parameters.get("weight"), base._parameters.get("bias")
    return (
        type(base) is nn.Linear
        and type(weight) is nn.Parameter
        and not weight.requires_grad
        and (bias is None or (type(bias) is nn.Parameter and not bias.requires_grad))
        and "forward" not in base.__dict__
        and not base._forward_hooks
        and not base._forward_pre_hooks
        and not base._backward_hooks
        and not base._backward_pre_hooks
        and not _has_any_global_hook()
    )


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """What is trained beside a weight of this dtype: float32, or its own if wider."""
    narrow = not dtype.is_floating_point or dtype.itemsize < 4
    return torch.float32 if narrow else dtype
