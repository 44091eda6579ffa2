"""What a rank is worth, which ranks to prune, and how to put one in the place of another.

Rank i of an adapter is the pair a_i, row i of A, and b_i, column i of B: it adds the matrix
b_i a_i^T to the update. Importances are (r,) tensors, higher is better. Masks are (r,) bool, True
for a rank that is pruned. What an optimizer remembers of a rank (Adam's moments) belongs to it and
moves with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn, optim

from .adapters import AdapterLayer, require_adapters

Importances = Mapping[str, Tensor]


class RankEvent(NamedTuple):
    """One thing that a schedule did to one rank.

    step: the optimizer step after which it happened, from 1; kind: "expand" (a copy of `source`
    took the place of `slot`), "prune", "revive", "grow" or "restart"; module: the layer's qualified
    name; slot: the rank's index, None where it is the whole layer; source: the index copied from;
    threshold: what decided (each method says); score_before and score_after: of the slot.
    """

    step: int
    kind: str
    module: str
    slot: int | None = None
    source: int | None = None
    threshold: float | None = None
    score_before: float | None = None
    score_after: float | None = None


# Importance


def score_importance(scores: Tensor, temperature: float) -> Tensor:
    """Weights that learned scores give to the ranks: w = r * softmax(scores / temperature).

    Shapes: scores (r,) -> (r,), positive, with sum r and a gradient. Equal scores give exactly 1
    each, whatever r. Source: BeamLoRA, arXiv 2502.13604.
    """
    powers = ((scores - scores.detach().max()) / temperature).exp()
    return powers / powers.mean()


def frobenius_importance(A: Tensor, B: Tensor) -> Tensor:
    """Size of what each rank adds: ||b_i a_i^T||_F = ||b_i|| * ||a_i||.

    Shapes: A (r, in), B (out, r) -> (r,).
    """
    return B.norm(dim=0) * A.norm(dim=1)


def sensitivity_importance(A: Tensor, B: Tensor, score_A: Tensor, score_B: Tensor) -> Tensor:
    """Mean score of a rank's entries: mean over its row of A plus mean over its column of B.

    Shapes: score_A as A (r, in) and score_B as B (out, r) -> (r,). The scores of the entries are
    |parameter * gradient|, or what `SmoothedSensitivity` makes of them over many steps.
    Source: AdaLoRA, arXiv 2303.10512, the triplet without its singular value.
    """
    _same_shape("score_A", score_A, A)
    _same_shape("score_B", score_B, B)
    return score_A.mean(dim=1) + score_B.mean(dim=0)


class SmoothedSensitivity:
    """Sensitivity |p * grad| of every entry of a parameter, smoothed over steps, times how
    uncertain it is: `mean` * `uncertainty`, two running averages (AdaLoRA and, before it, PLATON,
    arXiv 2206.12562). Both start at zero."""

    def __init__(self, beta1: float = 0.85, beta2: float = 0.85):
        self.beta1, self.beta2 = beta1, beta2
        self.mean: Tensor | float = 0.0
        self.uncertainty: Tensor | float = 0.0

    def update(self, sensitivity: Tensor) -> Tensor:
        """Take in this step's sensitivity, any shape; returns the score of the same shape."""
        self.mean = self.beta1 * self.mean + (1 - self.beta1) * sensitivity
        deviation = (sensitivity - self.mean).abs()
        self.uncertainty = self.beta2 * self.uncertainty + (1 - self.beta2) * deviation
        return self.mean * self.uncertainty


def gradient_importance(B: Tensor, grad_B: Tensor) -> Tensor:
    """First-order estimate of how much the loss changes when a rank is taken out: |<b_i, db_i>|.

    Shapes: B and its gradient (out, r) -> (r,). The rows of A give the same: both products are the
    derivative of the loss along the rank's own contribution. Source: arXiv 1906.10771.
    """
    _same_shape("grad_B", grad_B, B)
    return (B * grad_B).sum(dim=0).abs()


def activation_importance(A: Tensor, B: Tensor, x: Tensor) -> Tensor:
    """Size of what each rank adds to the outputs for inputs x: ||b_i|| * rms(a_i^T x).

    Shapes: A (r, in), B (out, r), x (..., in) -> (r,).
    """
    return B.norm(dim=0) * (x @ A.T).flatten(0, -2).square().mean(dim=0).sqrt()


def _same_shape(argument: str, value: Tensor, like: Tensor) -> None:
    if value.shape != like.shape:
        raise ValueError(
            f"{argument} of shape {tuple(value.shape)}: allowed is {tuple(like.shape)}"
        )


# Choosing


def top_p_threshold(step: int, end_step: int, p_start: float) -> float:
    """Share p of all importance that survives at a step: from p_start up to 1 along a cosine.

    step counts from 1; from end_step + 2 on p is 1 and nothing is pruned. Source: BeamLoRA.
    """
    if end_step < 1 or not 0 < p_start <= 1:
        raise ValueError(
            f"end_step={end_step!r}, p_start={p_start!r}: allowed are end_step of at least 1 and "
            "p_start in (0, 1]"
        )
    done = step - 1
    if done > end_step:
        return 1.0
    return 1 - (1 - p_start) * (1 + math.cos(math.pi * done / end_step)) / 2


def top_p_mask(
    importances: Importances,
    p: float,
    scope: str = "global",
    max_prune_fraction: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """Prune the ranks outside the share p of all importance: {name: (r,) bool, True = pruned}.

    Ranks are sorted from the most important on, ties by module and index; pruned is every rank from
    the first one on at which the running sum exceeds p times the total, that one included. scope
    "global" sorts the ranks of all modules together, "module" each module alone. A module loses at
    most floor(max_prune_fraction * r) ranks, its least important. The masks lie on the CPU, where
    they are computed in `dtype`.

    Raises ValueError for p outside (0, 1], an unknown scope, or an importance that is negative or
    not finite. Source: BeamLoRA.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p={p!r}: allowed is a number in (0, 1]")
    _check_fraction("max_prune_fraction", max_prune_fraction)

    def outside(pool: Tensor) -> Tensor:
        ordered, order = pool.sort(descending=True, stable=True)
        total = ordered.cumsum(0)
        return torch.zeros_like(pool, dtype=torch.bool).index_put((order,), total > p * total[-1])

    choose = outside if p < 1 else _nothing
    return _choose(importances, choose, scope, max_prune_fraction, dtype)


def top_k_mask(
    importances: Importances, k: int, scope: str = "module", max_prune_fraction: float = 1.0
) -> dict[str, Tensor]:
    """Prune all but the k most important ranks of each module, or, with scope "global", all but
    the k * (number of modules) most important of all. Otherwise as `top_p_mask`."""
    if not isinstance(k, int) or k < 0:
        raise ValueError(f"k={k!r}: allowed is an integer of at least 0")
    _check_fraction("max_prune_fraction", max_prune_fraction)
    kept = k * len(importances) if scope == "global" else k

    def outside(pool: Tensor) -> Tensor:
        order = pool.sort(descending=True, stable=True).indices
        return torch.zeros_like(pool, dtype=torch.bool).index_fill(0, order[kept:], True)

    return _choose(importances, outside, scope, max_prune_fraction, torch.float64)


def _nothing(pool: Tensor) -> Tensor:
    return torch.zeros_like(pool, dtype=torch.bool)


def _choose(
    importances: Importances,
    outside: Callable[[Tensor], Tensor],
    scope: str,
    max_prune_fraction: float,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    if scope not in ("global", "module"):
        raise ValueError(f"scope={scope!r}: allowed are 'global' and 'module'")
    if not importances:
        return {}
    sizes = [len(values) for values in importances.values()]
    pool = torch.cat([values.detach().flatten() for values in importances.values()])
    pool = pool.cpu().to(dtype)
    valid = pool.isfinite() & (pool >= 0)
    if not valid.all():
        at = int((~valid).nonzero()[0])
        names = [(name, i) for name, n in zip(importances, sizes) for i in range(n)]
        raise ValueError(
            f"importances: {names[at][0]!r} has {pool[at].item()} at rank {names[at][1]}: allowed "
            "are finite numbers of at least 0"
        )
    parts = dict(zip(importances, pool.split(sizes)))
    if scope == "global":
        masks = dict(zip(importances, outside(pool).split(sizes)))
    else:
        masks = {name: outside(values) for name, values in parts.items()}
    return {name: _cap(mask, parts[name], max_prune_fraction) for name, mask in masks.items()}


def _cap(mask: Tensor, importance: Tensor, max_prune_fraction: float) -> Tensor:
    """At most floor(max_prune_fraction * r) of the pruned ranks stay so: the least important."""
    allowed = math.floor(max_prune_fraction * len(mask))
    if int(mask.sum()) <= allowed:
        return mask
    order = importance.sort(descending=True, stable=True).indices
    return mask.index_fill(0, order[: len(mask) - allowed], False)


def _check_fraction(argument: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{argument}={value!r}: allowed is a number in [0, 1]")


def pair_ranks(
    importance: Tensor,
    mask: Tensor,
    pairing: str = "sorted",
    generator: torch.Generator | None = None,
) -> tuple[list[int], list[int]]:
    """Which rank takes the place of which: (slots, sources) of one module with k pruned ranks.

    importance and mask are (r,). slots are the pruned ranks in ascending order, sources the k most
    important ranks in descending order, or, with pairing "random", in an order drawn from
    `generator`: slots[i] is to receive a copy of sources[i].
    """
    slots = mask.nonzero().flatten().tolist()
    order = importance.detach().cpu().double().sort(descending=True, stable=True).indices
    sources = order[: len(slots)].tolist()
    if pairing == "random":
        shuffled = torch.randperm(len(slots), generator=generator).tolist()
        sources = [sources[i] for i in shuffled]
    elif pairing != "sorted":
        raise ValueError(f"pairing={pairing!r}: allowed are 'sorted' and 'random'")
    return slots, sources


# Moving


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
    `entrywise_states`; then nothing has changed. Source: BeamLoRA.
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
    for argument, indices in (("slots", slots), ("sources", sources)):
        if not all(0 <= i < layer.r for i in indices):
            raise ValueError(f"{argument}={indices!r}: allowed are indices from 0 to {layer.r - 1}")
    if len(slots) != len(sources) or len(set(slots)) != len(slots):
        raise ValueError(
            f"slots={slots!r}, sources={sources!r}: allowed are as many different slots as sources"
        )
