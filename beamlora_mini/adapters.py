"""How an adapter sits on a frozen linear layer: `AdapterLayer`, attach, detach, merge.

Vocabulary and shapes are PEFT's: W is (out, in), `lora_A` is (r, in), `lora_B` is (out, r). This
module knows no method: a method hands it a layer for every linear module it names.
"""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

ADAPTABLE = (nn.Linear, Conv1D)  # exact types: a subclass may compute something else


class _LowRankLinear(torch.autograd.Function):
    """y = x W^T + b + ((x' A^T) * scale * rank_weights) B^T for frozen W and b.

    Autograd on the plain formula makes a full-size copy for every sum and every factor. Here each
    product is bracketed so that it passes through the r-wide tensor, the scale rides along in a
    product, and the narrow products come first: the wide ones add to them in place.
    """

    @staticmethod
    def forward(ctx, x, x_adapter, weight, bias, A, B, rank_weights, scale):
        rows = x.reshape(-1, x.shape[-1])
        rows_adapter = rows if x_adapter is None else x_adapter.reshape(rows.shape)
        z = rows_adapter @ A.T
        y = _scaled_product(_weighted(z, rank_weights), B.T, scale)
        y.addmm_(rows, weight.T)
        if bias is not None:
            y += bias
        ctx.scale, ctx.x_shape, ctx.own_input = scale, x.shape, x_adapter is not None
        ctx.save_for_backward(rows_adapter, z, weight, A, B, rank_weights)
        # Not a view, as torch sees it: an in-place ReLU may follow, as after nn.Linear.
        return torch.ops.aten._unsafe_view(y, (*x.shape[:-1], y.shape[-1]))

    @staticmethod
    @once_differentiable  # z is saved, not recomputed: a second derivative would miss its share
    def backward(ctx, grad_y):
        rows, z, weight, A, B, rank_weights = ctx.saved_tensors
        needs_x, needs_x_adapter, _, _, needs_A, needs_B, needs_weights, _ = ctx.needs_input_grad
        dy = grad_y.reshape(-1, grad_y.shape[-1])
        dz = _scaled_product(dy, B, ctx.scale)
        dx = dx_adapter = dA = dB = dweights = None
        if needs_weights:
            dweights = (dz.to(rank_weights.dtype) * z).sum(0)
        dz = _weighted(dz, rank_weights)
        if needs_x:
            dx = dy @ weight if ctx.own_input else (dz @ A).addmm_(dy, weight)
            dx = dx.view(ctx.x_shape)
        if needs_x_adapter:
            dx_adapter = (dz @ A).view(ctx.x_shape)
        if needs_A:
            dA = dz.T @ rows
        if needs_B:
            # (z^T dy)^T and not dy^T z: the wide operand stays in memory order, twice as fast on CPU.
            dB = _scaled_product(_weighted(z, rank_weights).T, dy, ctx.scale).T
        return dx, dx_adapter, None, None, dA, dB, dweights, None


def _weighted(z: Tensor, rank_weights: Tensor | None) -> Tensor:
    return z if rank_weights is None else (z * rank_weights).to(z.dtype)


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale * (a @ b) in one pass; beta=0 leaves the first argument out."""
    return torch.addmm(a.new_empty(()), a, b, beta=0, alpha=scale)


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
    wider one. weight and bias get no gradient.
    """
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    tensors = (x, x_adapter, weight, bias, A, B)
    tensors = (None if t is None else t.to(dtype) for t in tensors)
    return _LowRankLinear.apply(*tensors, rank_weights, scale)


class AdapterLayer(nn.Module):
    """A frozen linear layer `base` with a trainable low-rank adapter beside it.

    A method subclasses it and says what the adapter computes (`forward`), what it adds to W
    (`delta_weight`) and what each of its ranks is worth (`rank_importance`). `lora_A` (r, in) and
    `lora_B` (out, r) live on W's device, in float32 or W's dtype, whichever is wider.
    """

    def __init__(self, base: nn.Module, r: int, scaling: float, lora_dropout: float = 0.0):
        super().__init__()
        if type(base) not in ADAPTABLE:
            raise TypeError(f"base={type(base).__name__}: allowed are torch.nn.Linear and Conv1D")
        self.base = base.requires_grad_(False)
        self.r = r
        self.scaling = scaling
        self.dropout = nn.Dropout(lora_dropout)
        self.out_features, self.in_features = self.weight.shape
        self.factor_dtype = torch.promote_types(self.weight.dtype, torch.float32)
        self.create_factors(r)
        self.register_buffer("merged_weight", None, persistent=False)

    def create_factors(self, r: int) -> None:
        """Make the trainable `lora_A` and `lora_B`; a method that keeps them in pieces overrides it."""
        like = {"device": self.weight.device, "dtype": self.factor_dtype}
        self.lora_A = nn.Parameter(torch.empty(r, self.in_features, **like))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, r, **like))

    @property
    def weight(self) -> Tensor:
        """W as (out, in), whichever way round `base` stores it; the frozen one, merged or not."""
        return self.base.weight.T if isinstance(self.base, Conv1D) else self.base.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def delta_weight(self) -> Tensor:
        """(out, in), in the adapter's dtype: W + delta_weight() is the merged weight."""
        raise NotImplementedError

    def rank_importance(self) -> Tensor:
        """(r,): the method's own score of each rank, without gradient."""
        raise NotImplementedError

    def base_plus_low_rank(self, x: Tensor, rank_weights: Tensor | None = None) -> Tensor:
        """W x + b + scaling * B (rank_weights * (A dropout(x))); merged: W' x + b."""
        if self.merged_weight is not None:
            return self.merged_forward(x)
        return low_rank_linear(
            x, self.weight, self.bias, self.lora_A, self.lora_B, self.scaling,
            rank_weights, x_adapter=self.adapter_input(x),
        )  # fmt: skip

    def adapter_input(self, x: Tensor) -> Tensor | None:
        """dropout(x), for `low_rank_linear`'s x_adapter; None where that is x itself."""
        return self.dropout(x) if self.training and self.dropout.p > 0 else None

    def merged_forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            raise RuntimeError("the adapter is merged and can't train: call unmerge(model) first")
        return F.linear(x, self.merged_weight, self.bias)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the adapter into one weight, kept beside `base`: unmerging is exact, to the bit,
        and a weight that other modules share is never touched."""
        self.merged_weight = (self.weight + self.delta_weight()).to(self.weight.dtype)

    def unmerge(self) -> None:
        self.merged_weight = None

    def extra_repr(self) -> str:
        return f"r={self.r}, scaling={self.scaling:g}, merged={self.merged_weight is not None}"


class Attachment(NamedTuple):
    """What `attach` leaves on a model: the method, and what was trainable before."""

    method: object
    trainable_before: tuple[str, ...]


def attach(model: nn.Module, method) -> dict[str, AdapterLayer]:
    """Put `method`'s adapter on the linear layers it names, in place, and freeze all else.

    `method.target_modules` is "all-linear" (every linear layer but the model's output head), a
    list of name endings such as ["q_proj", "v_proj"], or one regular expression that must match
    the whole module name. Returns {qualified name: layer}. A linear module that the model uses in
    two places gets one adapter; modules that merely share a weight get one each.

    Raises ValueError if the model already has adapters, or if a target matches nothing (the
    message names the closest modules), TypeError if it names a module that is not a linear layer.
    Whatever raises, the model is as it was.
    """
    present = list(adapter_layers(model))
    if present:
        raise ValueError(
            f"model already has {len(present)} adapters, the first on {present[0]!r}: "
            "use detach(model) or merge_and_unload(model) before attaching again"
        )
    targets = find_targets(model, method.target_modules)
    trainable = trainable_parameters(model)
    flags = {p: p.requires_grad for p in model.parameters()}
    try:
        layers = {name: method.wrap(module) for name, module in targets.items()}
    except BaseException:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
        raise
    model.requires_grad_(False)
    _replace(model, {targets[name]: layer.train(model.training) for name, layer in layers.items()})
    model._attachment = Attachment(method, tuple(trainable))
    return layers


def find_targets(model: nn.Module, target_modules: str | tuple[str, ...]) -> dict[str, nn.Module]:
    """{qualified name: linear module} for a `target_modules` value; errors as in `attach`."""
    modules = {name: module for name, module in model.named_modules() if name}
    inside = tuple(f"{n}." for n, m in modules.items() if isinstance(m, nn.MultiheadAttention))
    linear = {
        name: module
        for name, module in modules.items()
        # MultiheadAttention reads its projection's weight and never calls it.
        if type(module) in ADAPTABLE and not (inside and name.startswith(inside))
    }
    if isinstance(target_modules, str):
        if target_modules == "all-linear":
            head = getattr(model, "get_output_embeddings", lambda: None)()
            chosen = {name: module for name, module in linear.items() if module is not head}
        else:
            chosen = {n: m for n, m in linear.items() if re.fullmatch(target_modules, n)}
        if not chosen:
            raise ValueError(_no_match(target_modules, linear))
        return chosen
    chosen = {}
    for target in target_modules:
        named = [n for n in modules if n == target or n.endswith(f".{target}")]
        if not named:
            raise ValueError(_no_match(target, linear))
        for name in named:
            if name not in linear:
                raise TypeError(
                    f"target_modules entry {target!r} names {name!r}, a "
                    f"{type(modules[name]).__name__}: allowed are torch.nn.Linear and Conv1D "
                    "outside MultiheadAttention"
                )
            chosen[name] = linear[name]
    return {name: module for name, module in linear.items() if name in chosen}


def _no_match(target: str, linear: dict[str, nn.Module]) -> str:
    if not linear:
        return f"target_modules={target!r}: the model has no linear layer that an adapter fits on"
    endings = {name.rsplit(".", 1)[-1]: name for name in linear} | {name: name for name in linear}
    near = difflib.get_close_matches(target, endings, n=3, cutoff=0.5) or sorted(
        {name.rsplit(".", 1)[-1] for name in linear}
    )
    return (
        f"target_modules={target!r} matches no linear layer: closest are {', '.join(near)}. "
        'Allowed: "all-linear", a list of name endings, or a regular expression for whole names'
    )


def _replace(model: nn.Module, replacements: dict[nn.Module, nn.Module]) -> None:
    for parent in list(model.modules()):
        for attribute, child in list(parent._modules.items()):
            if child in replacements:
                setattr(parent, attribute, replacements[child])


def adapter_layers(model: nn.Module) -> dict[str, AdapterLayer]:
    """{qualified name: layer} of every adapter in the model, in module order; {} if none."""
    return {name: m for name, m in model.named_modules() if isinstance(m, AdapterLayer)}


def attached_method(model: nn.Module):
    """The method that `attach` put on this model; None if there is none."""
    attachment = model.__dict__.get("_attachment")
    return attachment and attachment.method


def require_adapters(model: nn.Module) -> dict[str, AdapterLayer]:
    """As `adapter_layers`, but a model without any is a ValueError."""
    layers = adapter_layers(model)
    if not layers:
        raise ValueError("model has no adapters: call attach(model, method) first")
    return layers


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """{name: parameter} of what requires a gradient now; some methods add to it in training."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, total) number of parameters, each shared one counted once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trainable in sizes if trainable), sum(n for n, _ in sizes)


def merge(model: nn.Module) -> None:
    """Fold every adapter into its layer: the same outputs at the frozen model's speed.

    Costs one more copy of the adapted weights until `unmerge`, which is exact. Computed in the
    adapter's dtype, then rounded to the weight's.
    """
    for layer in require_adapters(model).values():
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Undo `merge`, to the bit."""
    for layer in require_adapters(model).values():
        layer.unmerge()


def detach(model: nn.Module) -> dict[str, AdapterLayer]:
    """Take every adapter off, in place: the model is as before `attach`. Returns the adapters."""
    layers = require_adapters(model)
    _replace(model, {layer: layer.base for layer in layers.values()})
    for module in model.modules():  # the one that was attached to may lie inside `model`
        attachment = module.__dict__.pop("_attachment", None)
        if attachment is not None:
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(name in attachment.trainable_before)
    return layers


@torch.no_grad()
def merge_and_unload(model: nn.Module) -> nn.Module:
    """Write W + delta_weight() into the model's own layers, take the adapters off, return it.

    A weight shared with a module that has no adapter (a tied output head) is replaced, not
    overwritten; a transformers config then says `tie_word_embeddings=False`.
    """
    layers = require_adapters(model)
    merged = {}
    for layer in layers.values():
        weight = (layer.weight + layer.delta_weight()).to(layer.weight.dtype)
        merged[layer] = weight.T.contiguous() if isinstance(layer.base, Conv1D) else weight
    detach(model)
    for layer, weight in merged.items():
        layer.base.weight = nn.Parameter(weight, requires_grad=layer.base.weight.requires_grad)
    if getattr(model, "get_output_embeddings", lambda: None)() in [la.base for la in merged]:
        model.config.tie_word_embeddings = False
    return model
