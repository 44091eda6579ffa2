"""Comparing two methods on the same seeds, and many pairs of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd


def sign_flip_p(differences: Tensor) -> float:
    """Exact p-value of paired differences (n,), one for each seed: if the methods were alike, each
    difference could as well have had the other sign. The share of all 2^n choices of signs whose
    mean is at least as far from zero (to 1e-6); never below 2 / 2^n."""
    differences = differences.double()
    n = len(differences)
    if not 1 <= n <= 20:
        raise ValueError(f"differences of length {n}: allowed is 1 to 20, all signs are tried")
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * n).view(-1, n)
    means = (signs * differences).mean(1).abs()
    return (means >= differences.mean().abs() - 1e-6).double().mean().item()


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests that stand together, after Holm: the smallest times their number n,
    the next times n - 1, ..., never below an earlier one, never above 1. Who calls a difference real
    below .05 is then wrong about any of them in at most 5 % of such tables."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, k in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[k]))
        adjusted[k] = highest
    return adjusted


def compare(differences: Mapping[str, Tensor | Sequence[float]]) -> pd.DataFrame:
    """A row for each label of {label: paired differences, one for each seed}: mean, low and high (the
    extreme seeds), above (seeds above zero, "7 of 8"), p (exact, by sign flips) and holm (p after Holm over
    the rows)."""
    import pandas as pd

    tensors = {
        label: torch.tensor([float(v) for v in of]).double() for label, of in differences.items()
    }
    rows = {
        label: {
            "mean": of.mean().item(),
            "low": of.min().item(),
            "high": of.max().item(),
            "above": f"{int((of > 0).sum())} of {len(of)}",
            "p": sign_flip_p(of),
        }
        for label, of in tensors.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table["holm"] = holm(table.p.tolist()) if rows else []
    return table
