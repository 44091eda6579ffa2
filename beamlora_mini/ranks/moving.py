"""How to put one rank in the place of another. What an optimizer remembers of a rank (Adam's
moments) belongs to it and moves with it.

What a rank is made of, each layer says: `AdapterLayer.rank_axes`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim

from ..checks import require_choice
from ..layers import AdapterLayer, require_adapters


@dataclass
class Snapshot:
    """What the ranks of every adapter were made of at one moment, and what the optimizer remembered.

    tensors: {module: {"lora_A": (r, in), "lora_A.exp_avg": (r, in), ...}}, copies.
    """

    tensors: dict[str, dict[str, Tensor]]
    names: dict[AdapterLayer, str]

    def of(self, layer: AdapterLayer) -> dict[str, Tensor]:
        if layer not in self.names:
            raise ValueError("layer: the snapshot was taken of a model that does not hold it")
        return self.tensors[self.names[layer]]


@torch.no_grad()
def take_snapshot(
    model: nn.Module, optimizer: optim.Optimizer, device: torch.device | str | None = None
) -> Snapshot:
    """Copy what every adapter's ranks are made of and its entry-wise optimizer states, three times
    the adapter's memory with Adam; to `device`, or beside the originals if None.

    Raises TypeError for an optimizer whose states can't be split into ranks (`entrywise_states`).
    """
    layers = require_adapters(model)
    tensors = {
        name: {
            key: tensor.detach().to(device or tensor.device, copy=True)
            for part in layer.rank_axes
            for key, tensor in _with_states(layer, part, optimizer).items()
        }
        for name, layer in layers.items()
    }
    return Snapshot(tensors, {layer: name for name, layer in layers.items()})


def entrywise_states(optimizer: optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """The states that hold one number for each entry of a parameter (Adam's moments, a momentum
    buffer), so that a rank's share of them can be cut out. Step counters are left out.

    Raises TypeError for any other state, such as Adafactor's factored or 8-bit ones.
    """
    entrywise = {}
    for key, state in optimizer.state.get(parameter, {}).items():
        if not isinstance(state, Tensor) or state.ndim == 0:
            continue
        if state.shape != parameter.shape or not state.is_floating_point():
            raise TypeError(
                f"optimizer={type(optimizer).__name__}: its state {key!r} ({state.dtype}, shape "
                f"{tuple(state.shape)}) can't be split into ranks: allowed are optimizers with one "
                "number for each entry, such as AdamW, Adam, RMSprop or SGD with momentum"
            )
        entrywise[key] = state
    return entrywise


@torch.no_grad()
def expand_ranks_(
    layer: AdapterLayer,
    optimizer: optim.Optimizer,
    slots: list[int],
    sources: list[int],
    snapshot: Snapshot,
    copy_moments: bool = True,
) -> None:
    """Put the snapshot's version of rank sources[i] in the place of rank slots[i], in place.

    The source itself stays as it is, so a pair differs by what was learned since the snapshot; one
    taken just now gives plain copies. copy_moments also copies what the optimizer knew of the
    source then. Of what twins share (BeamLoRA's scores) both get the mean of the two, as they are
    now, and the moments stay.

    Raises ValueError for indices out of range or lists of different lengths, TypeError as
    `entrywise_states` or for a layer whose ranks can't be moved; then nothing has changed.
    Source: BeamLoRA.
    """
    _check_indices(layer, slots, sources)
    old = snapshot.of(layer)
    parts = {part: _with_states(layer, part, optimizer) for part in layer.rank_axes}
    for part, axis in layer.rank_axes.items():
        own = _ranks(getattr(layer, part), axis)
        if part in layer.shared_by_twins:
            mean = (own[slots] + own[sources]) / 2
            own[slots] = mean
            own[sources] = mean  # last: where a slot is also a source, the source wins
            continue
        for key, target in parts[part].items():
            if key == part or copy_moments:
                then = old.get(key, torch.zeros_like(target))  # before step 1 Adam knew nothing
                _ranks(target, axis)[slots] = _ranks(then, axis)[sources].to(target)


@torch.no_grad()
def split_ranks_(
    layer: AdapterLayer, optimizer: optim.Optimizer, slots: list[int], sources: list[int]
) -> None:
    """Put an exact copy of each source, as it is now, in its slot, and halve the B of both: the
    two together add what the source did. The slot gets the source's optimizer states. What twins
    would share (BeamLoRA's scores) stays, and the slot's B makes up for the two weights.

    Raises ValueError also for a source that is named twice or is a slot; then nothing has changed.
    """
    _check_indices(layer, slots, sources)
    if len({*slots, *sources}) != 2 * len(slots):
        raise ValueError(
            f"slots={slots!r}, sources={sources!r}: allowed are different ranks in all places"
        )
    own = [part for part in layer.rank_axes if part not in layer.shared_by_twins]
    for part, tensors in {p: _with_states(layer, p, optimizer) for p in own}.items():
        for tensor in tensors.values():
            ranks = _ranks(tensor, layer.rank_axes[part])
            ranks[slots] = ranks[sources]
    layer.lora_B[:, slots + sources] *= 0.5
    weights = layer.rank_weights()
    if weights is not None:
        equal = weights[slots] == weights[sources]  # zero perhaps
        layer.lora_B[:, slots] *= torch.where(equal, 1.0, weights[sources] / weights[slots])


@torch.no_grad()
def reset_ranks_(
    layer: AdapterLayer, optimizer: optim.Optimizer, slots: list[int], init: str = "kaiming",
    generator: torch.Generator | None = None,
) -> None:  # fmt: skip
    """Start ranks anew: B and all moments zero, A as LoRA starts ("kaiming") or zero as well
    ("zero", which takes the rank out for good: neither A nor B then has a gradient). What weighs
    the rank stays as it is; ValueError for "kaiming" where that is zero, since such a rank can't
    learn."""
    _check_indices(layer, slots, slots)
    require_choice("init", init, ("kaiming", "zero"))
    weights = layer.rank_weights()
    if init == "kaiming" and weights is not None and not weights[slots].all():
        raise ValueError(
            f"slots={slots!r}: allowed are ranks whose weight is not zero, to learn anew"
        )
    parts = {part: _with_states(layer, part, optimizer) for part in layer.rank_axes}
    for part, tensors in parts.items():
        for key, tensor in tensors.items():
            if key != part or part in ("lora_A", "lora_B"):
                _ranks(tensor, layer.rank_axes[part])[slots] = 0
    if init == "kaiming":
        bound = layer.in_features**-0.5
        fresh = torch.rand(len(slots), layer.in_features, generator=generator) * 2 * bound - bound
        layer.lora_A[slots] = fresh.to(layer.lora_A)


@torch.no_grad()
def add_noise_(
    layer: AdapterLayer, slots: list[int], scale: float, generator: torch.Generator | None = None
) -> None:
    """Add Gaussian noise to ranks' A and B, `scale` times the root mean square of each vector."""
    _check_indices(layer, slots, slots)
    for part in ("lora_A", "lora_B"):
        ranks = _ranks(getattr(layer, part), layer.rank_axes[part])
        chosen = ranks[slots]
        noise = torch.randn(chosen.shape, generator=generator).to(chosen)
        ranks[slots] = chosen + scale * chosen.square().mean(1, keepdim=True).sqrt() * noise


def _with_states(layer: AdapterLayer, part: str, optimizer: optim.Optimizer) -> dict[str, Tensor]:
    """{part: tensor, "part.exp_avg": ...}: a part of the layer and what the optimizer knows of it."""
    tensor = getattr(layer, part)
    states = entrywise_states(optimizer, tensor)
    return {part: tensor} | {f"{part}.{key}": state for key, state in states.items()}


def _ranks(tensor: Tensor, axis: int) -> Tensor:
    """A view with one row for each rank."""
    return tensor.movedim(axis, 0)


def _check_indices(layer: AdapterLayer, slots: list[int], sources: list[int]) -> None:
    if not layer.rank_axes:
        raise TypeError(
            f"layer={type(layer).__name__}: allowed is one that says in rank_axes what a rank of "
            "it is made of"
        )
    for argument, indices in (("slots", slots), ("sources", sources)):
        if not all(0 <= i < layer.r for i in indices):
            raise ValueError(f"{argument}={indices!r}: allowed are indices from 0 to {layer.r - 1}")
    if len(slots) != len(sources) or len(set(slots)) != len(slots):
        raise ValueError(
            f"slots={slots!r}, sources={sources!r}: allowed are as many different slots as sources"
        )
