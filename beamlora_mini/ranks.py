"""What a rank is worth, and what can happen to it.

Rank i of an adapter is the pair a_i, row i of A, and b_i, column i of B: it adds the matrix
b_i a_i^T to the update.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


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


def frobenius_importance(A: Tensor, B: Tensor) -> Tensor:
    """Size of what each rank adds: ||b_i a_i^T||_F = ||b_i|| * ||a_i||.

    Shapes: A (r, in), B (out, r) -> (r,).
    """
    return B.norm(dim=0) * A.norm(dim=1)
