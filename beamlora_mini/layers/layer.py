"""`AdapterLayer`: a frozen layer with a low-rank update beside it.

Vocabulary and shapes are PEFT's: W is (out, in), `lora_A` is (r, in), `lora_B` is (out, r). What is
here is LoRA's layer; a method that differs says so in one or two of the hooks.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from . import frozen
from .kernel import add_low_rank, low_rank_linear, without_autocast
from .reading import WeightToRead


class AdapterLayer(nn.Module):
    """y = base(x) + s B (w * (A dropout(x))): a frozen linear layer `base` and its adapter.

    Three hooks make a method's layer: `start` fills A and B and adds what else is trained,
    `rank_weights` gives w (r,), or None for ones, and `rank_importance` is the method's own score
    of each rank. Where that is not enough, `factors` says which matrices the update is made of.
    `lora_A` (r, in) and `lora_B` (out, r) lie on W's device, in float32 or W's dtype if wider.

    rank_axes: what a rank is made of, {name: the dimension that the ranks lie along}, parameters
    and buffers; whatever moves, copies or resets a rank reads it. shared_by_twins: those of them
    that a copy does not take over: copy and source both get the mean of the two. What a layer
    remembers from step to step it registers (a buffer, or `remember`), so that saving the layer
    saves it; grows: the remembered tensors whose size changes.
    """

    rank_axes: ClassVar[dict[str, int]] = {"lora_A": 0, "lora_B": 1}
    shared_by_twins: ClassVar[tuple[str, ...]] = ()
    grows: ClassVar[tuple[str, ...]] = ()

    base: Any  # a module whose weight and bias are read only in `frozen`
    lora_A: Tensor
    lora_B: Tensor
    merged_weight: Tensor | None

    def __init__(self, base: nn.Module, method: Any):
        super().__init__()
        if not frozen.is_adaptable(base):
            raise TypeError(f"base={type(base).__name__}: allowed are {frozen.KINDS}")
        if not frozen.is_readable(base):
            raise TypeError(
                f"base={type(base).__name__}: a hook makes its weight: allowed are those of pruning "
                "and weight_norm; take others off first"
            )
        weight = frozen.dense(base)
        self.out_features, self.in_features = weight.shape
        self.base = base.requires_grad_(False)
        self.method: Any = method
        self.r: int = method.r
        self.scaling: float = method.scaling
        self.dropout = nn.Dropout(method.lora_dropout)
        self.factor_dtype = frozen.wide_dtype(weight.dtype)
        self.register_buffer("merged_weight", None, persistent=False)
        self.start()

    # --- hooks ---

    def start(self) -> None:
        """LoRA's: A from U(-1/sqrt(in), 1/sqrt(in)), the start of nn.Linear, and B zero."""
        A = torch.empty(self.r, self.in_features, dtype=self.factor_dtype)
        self.lora_A = self.trained(nn.init.kaiming_uniform_(A, a=math.sqrt(5)))
        self.lora_B = self.trained(torch.zeros(self.out_features, self.r))

    def rank_weights(self) -> Tensor | None:
        """w (r,), with its gradient; None for ones."""
        return None

    @torch.no_grad()
    def rank_importance(self) -> Tensor:
        """(r,), without gradient: here the size of what each rank adds, w ||b|| ||a||."""
        A, B = self.lora_A, self.lora_B
        weights = self.rank_weights()
        size = B.norm(dim=0) * A.norm(dim=1)
        return size if weights is None else weights.abs() * size

    def factors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """(A, B, w): the update is s B diag(w) A."""
        return self.lora_A, self.lora_B, self.rank_weights()

    def observe(self, y: Tensor, x: Tensor) -> Tensor:
        """y, the layer's output, after a look at it and at what the adapter saw."""
        return y

    def observe_weight(self, weight: Tensor) -> Tensor:
        """As `observe`, where the adapted weight is read and the layer not called."""
        return weight

    # --- what follows from them ---

    def plain(self) -> tuple[Tensor, Tensor]:
        """The update as one pair of factors, A (k, in) and B (out, k): it is s B A. With gradient."""
        A, B, weights = self.factors()
        return A, B if weights is None else B * weights

    def delta_weight(self) -> Tensor:
        """(out, in), in the adapter's dtype: W + delta_weight() is the merged weight."""
        with without_autocast(self.device.type):
            A, B = self.plain()
            return self.scaling * (B @ A)

    def forward(self, x: Tensor) -> Tensor:
        if self.merged_weight is not None:
            return self.merged_forward(x, self.merged_weight)
        seen = self.adapter_input(x)
        A, B, weights = self.factors()
        if self.base_is_plain():
            dropped = None if seen is x else seen
            y = low_rank_linear(
                x, self.base.weight, self.base.bias, A, B, self.scaling, weights, dropped
            )
        else:
            y = add_low_rank(self.base_forward(x), seen, A, B, self.scaling, weights)
        return self.observe(y, seen)

    def base_is_plain(self) -> bool:
        """Whether `low_rank_linear` may stand for the call of `base`."""
        return frozen.is_plain_linear(self.base)

    def base_forward(self, x: Tensor) -> Tensor:
        """What the adapter adds to."""
        return self.base(x)

    def adapter_input(self, x: Tensor) -> Tensor:
        """What the adapter sees of x: in training with dropout a part, else x itself."""
        return self.dropout(x) if self.drops else x

    @property
    def drops(self) -> bool:
        """Whether the adapter's input is being dropped out."""
        return self.training and self.dropout.p > 0

    # --- W, merging, remembering ---

    @property
    def frozen_weight(self) -> Tensor:
        """W as (out, in), whichever way round `base` stores it; the frozen one, merged or not."""
        return frozen.dense(self.base)

    @property
    def weight(self) -> Tensor:
        """(out, in): the weight of a plain linear layer that does what this one does, W plus the
        update, in W's dtype, for code that reads it instead of calling the layer. Its gradient
        reaches the adapter; dropout is for calls alone. It is made anew at each reading: to change
        W, write to `base.weight`."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.read_weight()
        return WeightToRead.of(self)

    def read_weight(self) -> Tensor:
        """What `weight` stands for."""
        if self.merged_weight is not None:
            self._require_no_training()
            return self.merged_weight
        return self.observe_weight(self._with_update())

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    @property
    def device(self) -> torch.device:
        return next(self.base.parameters()).device

    def merged_forward(self, x: Tensor, weight: Tensor) -> Tensor:
        self._require_no_training()
        return frozen.apply(self.base, x, weight)

    def _require_no_training(self) -> None:
        if self.training and torch.is_grad_enabled():
            raise RuntimeError("the adapter is merged and can't train: call unmerge(model) first")

    @torch.no_grad()
    def merged(self) -> Tensor:
        """W + delta_weight() in W's dtype."""
        return self._with_update()

    def _with_update(self) -> Tensor:
        weight = self.frozen_weight
        return (weight + self.delta_weight()).to(weight.dtype)

    def merge(self) -> None:
        """Fold the adapter into one weight, kept beside `base`: unmerging is exact, to the bit,
        and a weight that other modules share is never touched."""
        self.merged_weight = self.merged()

    def unmerge(self) -> None:
        self.merged_weight = None

    def trained(self, values: Tensor) -> nn.Parameter:
        """A parameter of these values in the adapter's dtype, on W's device."""
        return nn.Parameter(values.to(device=self.device, dtype=self.factor_dtype))

    def remember(self, name: str, values: Tensor) -> None:
        """Keep a tensor that is saved with the layer and moves with it, and is not trained: a frozen
        parameter and no buffer, since DistributedDataParallel sends buffers before every forward."""
        kept = nn.Parameter(values.to(self.device), requires_grad=False)
        self.register_parameter(name, kept)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest) -> None:
        self.unmerge()  # what was merged is no longer what the adapter says
        for name in self.grows:
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape != getattr(self, name).shape:
                self.remember(name, torch.empty_like(saved, dtype=getattr(self, name).dtype))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def __setattr__(self, name: str, value: Any) -> None:
        """A weight that is given to the layer is the base's: so transformers ties heads."""
        if name in ("weight", "bias"):
            setattr(self.base, name, value)
        else:
            super().__setattr__(name, value)

    def extra_repr(self) -> str:
        return f"r={self.r}, scaling={self.scaling:g}, merged={self.merged_weight is not None}"
