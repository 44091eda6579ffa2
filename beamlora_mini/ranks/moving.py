"""How to put one rank in the place of another. What an optimizer remembers of a rank (Adam's
moments) belongs to it and moves with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim

from ..adapters import AdapterLayer, require_adapters


@dataclass
class Snapshot:
    """A, B and what the optimizer remembers of them, of every adapter at one moment.

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
    """Copy every adapter's A and B and their entry-wise optimizer states, three times the adapter's
    memory with Adam; to `device`, or beside the originals if None.

    Raises TypeError for an optimizer whose states can't be split into ranks (`entrywise_states`).
    """
    layers = require_adapters(model)
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, layer in layers.items():
        kept = {}
        for part in ("lora_A", "lora_B"):
            parameter = getattr(layer, part)
            kept[part] = parameter.detach()
            for key, state in entrywise_states(optimizer, parameter).items():
                kept[f"{part}.{key}"] = state
        tensors[name] = {key: t.to(device or t.device, copy=True) for key, t in kept.items()}
    return Snapshot(tensors, {layer: name for name, layer in layers.items()})


def entrywise_states(optimizer: optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
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
    source then. If the layer has `scores`, slot and source both get the mean of their two scores.

    Raises ValueError for indices out of range or lists of different lengths, TypeError as
    `entrywise_states` or for a layer with `lora_E`; then nothing has changed. Source: BeamLoRA.
    """
    _check_indices(layer, slots, sources)
    old = snapshot.of(layer)
    states = {part: entrywise_states(optimizer, getattr(layer, part)) for part in _RANK_DIM}
    for part, dim in _RANK_DIM.items():
        targets = {part: getattr(layer, part)}
        if copy_moments:
            targets |= {f"{part}.{key}": state for key, state in states[part].items()}
        for key, target in targets.items():
            then = old.get(key, torch.zeros_like(target))  # before step 1 Adam knew nothing
            _ranks(target, dim)[slots] = _ranks(then, dim)[sources].to(target)
    if hasattr(layer, "scores"):
        mean = (layer.scores[slots] + layer.scores[sources]) / 2
        layer.scores[slots] = mean
        layer.scores[sources] = mean  # last: where a slot is also a source, the source wins


@torch.no_grad()
def split_ranks_(
    layer: AdapterLayer, optimizer: optim.Optimizer, slots: list[int], sources: list[int]
) -> None:
    """Put an exact copy of each source, as it is now, in its slot, and halve the B of both: the
    two together add what the source did. The slot gets the source's optimizer states. If the layer
    has `scores`, they stay, and the slot's B makes up for the two weights.

    Raises ValueError also for a source that is named twice or is a slot; then nothing has changed.
    """
    _check_indices(layer, slots, sources)
    if len({*slots, *sources}) != 2 * len(slots):
        raise ValueError(
            f"slots={slots!r}, sources={sources!r}: allowed are different ranks in all places"
        )
    for part, dim in _RANK_DIM.items():
        parameter = getattr(layer, part)
        for tensor in (parameter, *entrywise_states(optimizer, parameter).values()):
            _ranks(tensor, dim)[slots] = _ranks(tensor, dim)[sources]
    layer.lora_B[:, slots + sources] *= 0.5
    if hasattr(layer, "scores"):
        weights = layer.rank_weights()
        layer.lora_B[:, slots] *= weights[sources] / weights[slots]


@torch.no_grad()
def reset_ranks_(
    layer: AdapterLayer, optimizer: optim.Optimizer, slots: list[int], init: str = "kaiming",
    generator: torch.Generator | None = None,
) -> None:  # fmt: skip
    """Start ranks anew: B and the moments zero, A as LoRA starts ("kaiming") or zero as well
    ("zero", which takes the rank out for good: neither A nor B then has a gradient)."""
    _check_indices(layer, slots, slots)
    if init not in ("kaiming", "zero"):
        raise ValueError(f"init={init!r}: allowed are 'kaiming' and 'zero'")
    for part, dim in _RANK_DIM.items():
        parameter = getattr(layer, part)
        for tensor in (parameter, *entrywise_states(optimizer, parameter).values()):
            _ranks(tensor, dim)[slots] = 0
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
    for part, dim in _RANK_DIM.items():
        ranks = _ranks(getattr(layer, part), dim)
        chosen = ranks[slots]
        noise = torch.randn(chosen.shape, generator=generator).to(chosen)
        ranks[slots] = chosen + scale * chosen.square().mean(1, keepdim=True).sqrt() * noise


_RANK_DIM = {"lora_A": 0, "lora_B": 1}  # the dimension along which the ranks lie


def _ranks(tensor: Tensor, dim: int) -> Tensor:
    """A view of (r, n), one row for each rank."""
    return tensor.T if dim else tensor


def _check_indices(layer: AdapterLayer, slots: list[int], sources: list[int]) -> None:
    if hasattr(layer, "lora_E"):
        raise TypeError(
            f"layer={type(layer).__name__}: allowed is one whose ranks are a row of lora_A and a "
            "column of lora_B each, without a lora_E"
        )
    for argument, indices in (("slots", slots), ("sources", sources)):
        if not all(0 <= i < layer.r for i in indices):
            raise ValueError(f"{argument}={indices!r}: allowed are indices from 0 to {layer.r - 1}")
    if len(slots) != len(sources) or len(set(slots)) != len(slots):
        raise ValueError(
            f"slots={slots!r}, sources={sources!r}: allowed are as many different slots as sources"
        )
