"""Which ranks to prune, and which to copy into their places. Masks are (r,) bool, True = pruned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..checks import is_whole, require, require_choice, require_number, require_whole

Importances = Mapping[str, Tensor]


def top_p_threshold(step: int, end_step: int, p_start: float) -> float:
    """Share p of all importance that survives at a step: from p_start up to 1 along a cosine.

    step counts from 1; from end_step + 2 on p is 1 and nothing is pruned. Source: BeamLoRA.
    """
    require_number("end_step", end_step, "a number of at least 1", least=1)
    require_number("p_start", p_start, "a number in (0, 1]", above=0, most=1)
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
    require_number("p", p, "a number in (0, 1]", above=0, most=1)
    _check_fraction(max_prune_fraction)

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
    require_whole("k", k, 0)
    _check_fraction(max_prune_fraction)
    choose = _all_but(k * len(importances) if scope == "global" else k)
    return _choose(importances, choose, scope, max_prune_fraction, torch.float64)


def budget_mask(importances: Importances, budget: int) -> dict[str, Tensor]:
    """Prune all but the `budget` most important ranks of all modules together, exactly as many:
    ties go to the first module and index. Otherwise as `top_p_mask`. Source: AdaLoRA, whose
    official code compares with a threshold, so that ties with it cost ranks of the budget."""
    ranks = sum(len(values) for values in importances.values())
    allowed = f"an integer from 0 to {ranks}, all ranks"
    require(is_whole(budget, 0) and budget <= ranks, "budget", budget, allowed)
    return _choose(importances, _all_but(budget), "global", 1.0, torch.float64)


def _all_but(kept: int) -> Callable[[Tensor], Tensor]:
    def outside(pool: Tensor) -> Tensor:
        order = pool.sort(descending=True, stable=True).indices
        return torch.zeros_like(pool, dtype=torch.bool).index_fill(0, order[kept:], True)

    return outside


def _nothing(pool: Tensor) -> Tensor:
    return torch.zeros_like(pool, dtype=torch.bool)


def _choose(
    importances: Importances,
    outside: Callable[[Tensor], Tensor],
    scope: str,
    max_prune_fraction: float,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    require_choice("scope", scope, ("global", "module"))
    if not importances:
        return {}
    sizes = [len(values) for values in importances.values()]
    pool = torch.cat(to_cpu(list(importances.values()))).to(dtype)
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


def to_cpu(tensors: list[Tensor]) -> list[Tensor]:
    """Detached copies of one-dimensional tensors on the CPU: one transfer for each device."""
    moved: list[Tensor] = list(tensors)
    for device in {tensor.device for tensor in tensors}:
        places = [i for i, tensor in enumerate(tensors) if tensor.device == device]
        pool = torch.cat([tensors[i].detach() for i in places]).cpu()
        for i, part in zip(places, pool.split([len(tensors[i]) for i in places])):
            moved[i] = part
    return moved


def _cap(mask: Tensor, importance: Tensor, max_prune_fraction: float) -> Tensor:
    """At most floor(max_prune_fraction * r) of the pruned ranks stay so: the least important."""
    allowed = math.floor(max_prune_fraction * len(mask))
    if int(mask.sum()) <= allowed:
        return mask
    order = importance.sort(descending=True, stable=True).indices
    return mask.index_fill(0, order[: len(mask) - allowed], False)


def _check_fraction(value: float) -> None:
    require_number("max_prune_fraction", value, "a number in [0, 1]", least=0, most=1)


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
    require_choice("pairing", pairing, ("sorted", "random"))
    slots = mask.nonzero().flatten().tolist()
    order = importance.detach().cpu().double().sort(descending=True, stable=True).indices
    sources = order[: len(slots)].tolist()
    if pairing == "random":
        shuffled = torch.randperm(len(slots), generator=generator).tolist()
        sources = [sources[i] for i in shuffled]
    return slots, sources
