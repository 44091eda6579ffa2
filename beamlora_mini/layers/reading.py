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
ASKED = ("size", "dim", "numel", "nelement", "is_floating_point", "is_complex", "__len__")
KNOWN = (
    "dtype",
    "device",
    "shape",
    "ndim",
    "layout",
    "requires_grad",
    "is_cpu",
    "is_cuda",
    "is_meta",
)
FACTS = {getattr(Tensor, name) for name in ASKED} | {getattr(Tensor, n).__get__ for n in KNOWN}


class WeightToRead(Tensor):
    """W + delta_weight() of an adapter `layer`, made when somebody computes with it; its shape, dtype
    and device are had for nothing. It has no memory of its own: code that goes round torch's
    functions to the bare numbers fails, and does not get the frozen ones."""

    layer: Any

    @classmethod
    def of(cls, layer: Any) -> WeightToRead:
        stored = next(layer.base.parameters())
        shape = layer.out_features, layer.in_features
        like = {"dtype": stored.dtype, "device": stored.device}
        read = Tensor._make_wrapper_subclass(cls, shape, **like)  # type: ignore[attr-defined]
        read.layer = layer
        return read

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in FACTS:
            return super().__torch_function__(func, types, args, kwargs or {})
        return cls.__torch_dispatch__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(
            cls, lambda read: read.layer.read_weight(), (args, kwargs or {})
        )
        return func(*args, **kwargs)

    def __repr__(self) -> str:
        return f"WeightToRead({self.layer.read_weight()!r})"
