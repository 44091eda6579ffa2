"""Net2Net (Chen, Goodfellow, Shlens, arXiv 1511.05641): a wider or deeper network that starts as
the one you have.

Wider: copy units and share their outgoing weights out (`units.py`). Deeper: insert a layer that
does nothing yet. Random maps and noise come from torch's global generator.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..checks import require
from . import units

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
OUTPUT_PROJECTIONS = ("self_attn.o_proj", "mlp.down_proj")


@torch.no_grad()
def net2wider(
    fc1: nn.Linear | nn.Conv2d,
    fc2: nn.Linear | nn.Conv2d,
    new_width: int,
    mapping: Sequence[int] | Tensor | None = None,
    noise: float = 0.0,
    norm: BatchNorm | None = None,
) -> tuple[nn.Module, ...]:
    """Copies of `fc1` and the layer `fc2` that reads it, with `new_width` units between them.

    Returns (fc1, fc2), or (fc1, norm, fc2) with a BatchNorm between them; the arguments stay as
    they are. The function stays the same if all else in between treats every unit alike and alone:
    activations, pooling, flattening. Allowed are Linear to Linear, Conv2d to Conv2d, and Conv2d to
    Linear, which reads the flattened feature maps channel by channel. mapping: (new_width,), the
    old unit that each unit copies; None keeps the old ones and draws the rest. noise: how far the
    added copies' incoming weights are moved, in standard deviations of the weights; above zero,
    copies can learn different things, and the function is kept only roughly.

    Raises TypeError for other layers, ValueError for sizes or a map that do not fit.
    """
    old = _check_pair(fc1, fc2, norm)
    whole = isinstance(new_width, int) and new_width >= old
    require(whole, "new_width", new_width, f"an integer of at least {old}, the present width")
    require(noise >= 0, "noise", noise, "a number of at least 0")
    mapping = units.draw_map(old, new_width) if mapping is None else mapping
    mapping = units.check_map(mapping, old, new_width, "mapping")

    wide1, wide2 = copy.deepcopy(fc1), copy.deepcopy(fc2)
    weight = units.copy_units(fc1.weight, mapping, 0)
    if noise:
        copies = units.added(mapping).to(weight.device)
        weight[copies] += noise * fc1.weight.std() * torch.randn_like(weight[copies])
    wide1.weight.data = weight
    if fc1.bias is not None:
        wide1.bias.data = units.copy_units(fc1.bias, mapping, 0)
    # A channel has as many copies as each of its flattened pixels, so the counts are the same.
    inputs = units.in_blocks(mapping, fc2.weight.shape[1] // old)
    wide2.weight.data = units.copy_units(fc2.weight, inputs, 1, share=True)
    setattr(wide1, f"out_{_unit(fc1)}", new_width)
    setattr(wide2, f"in_{_unit(fc2)}", len(inputs))
    if norm is None:
        return wide1, wide2
    return wide1, _wider_norm(norm, mapping), wide2


def _unit(layer: nn.Module) -> str:
    return "features" if isinstance(layer, nn.Linear) else "channels"


def _check_pair(fc1: nn.Module, fc2: nn.Module, norm: BatchNorm | None) -> int:
    """The width between two layers; an error that says which pairs fit."""
    kinds = (type(fc1), type(fc2))
    if kinds not in ((nn.Linear, nn.Linear), (nn.Conv2d, nn.Conv2d), (nn.Conv2d, nn.Linear)):
        raise TypeError(
            f"fc1={kinds[0].__name__}, fc2={kinds[1].__name__}: allowed are Linear to Linear, "
            "Conv2d to Conv2d and Conv2d to Linear"
        )
    groups = [getattr(layer, "groups", 1) for layer in (fc1, fc2)]
    require(groups == [1, 1], "groups", groups, "1 in both layers")
    old, inputs = fc1.weight.shape[0], fc2.weight.shape[1]
    several = kinds == (nn.Conv2d, nn.Linear)
    require(
        inputs % old == 0 if several else inputs == old,
        "fc2", inputs, f"{'a multiple of ' * several}{old} inputs: what fc1 puts out",
    )  # fmt: skip
    if norm is not None:
        if not isinstance(norm, BatchNorm):
            raise TypeError(f"norm={type(norm).__name__}: allowed are BatchNorm1d and BatchNorm2d")
        require(norm.num_features == old, "norm", norm.num_features, f"{old} features, as fc1")
    return old


def _wider_norm(norm: BatchNorm, mapping: Tensor) -> BatchNorm:
    wide = copy.deepcopy(norm)
    wide.num_features = len(mapping)
    for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
        if tensor.dim() == 1:  # all but the counter of batches
            getattr(wide, name).data = units.copy_units(tensor, mapping, 0)
    return wide


@torch.no_grad()
def net2deeper(layer: nn.Module, activation: Callable[[Tensor], Tensor] | None = None) -> nn.Module:
    """A new layer that can be put behind `layer` and changes nothing until it is trained.

    For Linear and Conv2d (odd kernels): an identity layer, as wide; put it behind the activation
    and follow it by the same one. That is exact where activation(activation(x)) = activation(x),
    as for ReLU. For a Llama-style block: a copy whose two output projections are zero, so that it
    adds nothing to the residual stream; `insert_block` puts it into a model.

    Raises ValueError for another activation, TypeError for another layer.
    """
    if all(hasattr(layer, name.partition(".")[0]) for name in OUTPUT_PROJECTIONS):
        return _silence_(copy.deepcopy(layer))
    if type(layer) not in (nn.Linear, nn.Conv2d):
        raise TypeError(
            f"layer={type(layer).__name__}: allowed are Linear, Conv2d and a Llama-style block"
        )
    require(
        activation is not None and _is_idempotent(activation, layer.weight),
        "activation", activation, "one with f(f(x)) = f(x), such as nn.ReLU() or nn.Identity()",
    )  # fmt: skip
    width, like = len(layer.weight), {"device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(layer, nn.Linear):
        identity = nn.Linear(width, width, **like)
        nn.init.eye_(identity.weight)
    else:
        kernel = layer.kernel_size
        require(all(size % 2 for size in kernel), "layer.kernel_size", kernel, "odd sizes")
        identity = nn.Conv2d(width, width, kernel, padding="same", **like)
        nn.init.dirac_(identity.weight)
    nn.init.zeros_(identity.bias)
    return identity


def _is_idempotent(activation: Callable[[Tensor], Tensor], weight: Tensor) -> bool:
    generator = torch.Generator().manual_seed(0)
    once = activation(5 * torch.randn(256, len(weight), generator=generator).to(weight))
    return torch.allclose(activation(once), once)


def _silence_(block: nn.Module) -> nn.Module:
    for name in OUTPUT_PROJECTIONS:
        for parameter in block.get_submodule(name).parameters():
            nn.init.zeros_(parameter)
    return block


@torch.no_grad()
def insert_block(model: PreTrainedModel, index: int) -> PreTrainedModel:
    """A new Llama-style model with one more block: behind block `index`, `net2deeper` of it.

    The same logits until it is trained; numbering, cache and config are those of the deeper model.
    """
    units.weight_axes(model, units.LLAMA_LIKE)
    depth = model.config.num_hidden_layers
    whole = isinstance(index, int) and 0 <= index < depth
    require(whole, "index", index, f"a block's number, 0 to {depth - 1}")
    layers = [*range(index + 1), *range(index, depth)]
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    deeper = units.rebuild(model, state, layers)
    _silence_(deeper.base_model.layers[index + 1])
    return deeper
