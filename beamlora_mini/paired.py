"""Comparing two methods on the same seeds."""

from __future__ import annotations

import torch
from torch import Tensor


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
