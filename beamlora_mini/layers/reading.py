"""An adapted weight for code that reads a layer's weight instead of calling the layer.

torch's MultiheadAttention and TransformerEncoderLayer do so, and state-space models such as Mamba.
Many more ask a weight for nothing but its dtype or its device, in every forward pass and for every
token that they generate.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only

# What can be answered without the numbers.
SIZES = (Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.__len__)
FACTS = {
    *SIZES,
    *(getattr(Tensor, fact).__get__ for fact in ("dtype", "device", "shape", "ndim", "layout")),
    *(getattr(Tensor, fact).__get__ for fact in ("is_cuda", "is_meta", "is_sparse", "is_nested")),
}


class WeightToRead(Tensor):
    """W + delta_weight() of an adapter `layer`, made when somebody computes with it; its shape, dtype
    and device are had for nothing. It has no memory of its own: code that goes round torch's
    functions to the bare numbers fails, and does not get the frozen ones."""

    layer: Any

    @classmethod
    def of(cls, layer: Any) -> WeightToRead:
        weight = layer.frozen_weight
        like = {"dtype": weight.dtype, "device": weight.device}
        read = Tensor._make_wrapper_subclass(cls, weight.shape, **like)  # type: ignore[attr-defined]
        read.layer = layer
        return read

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in FACTS:
            return super().__torch_function__(func, types, args, kwargs or {})
        args, kwargs = tree_map_only(
            cls, lambda read: read.layer.read_weight(), (args, kwargs or {})
        )
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(
            cls, lambda read: read.layer.read_weight(), (args, kwargs or {})
        )
        return func(*args, **kwargs)

    def __repr__(self) -> str:
        return f"WeightToRead({self.layer.read_weight()!r})"
