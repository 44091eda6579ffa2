"""What a rank is worth.

Rank i of an adapter is the pair a_i, row i of A, and b_i, column i of B: it adds the matrix
b_i a_i^T to the update.
"""

from __future__ import annotations

from torch import Tensor


def frobenius_importance(A: Tensor, B: Tensor) -> Tensor:
    """Size of what each rank adds: ||b_i a_i^T||_F = ||b_i|| * ||a_i||.

    Shapes: A (r, in), B (out, r) -> (r,).
    """
    return B.norm(dim=0) * A.norm(dim=1)
