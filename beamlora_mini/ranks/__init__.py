"""What a rank is worth, which ranks to prune, and how to put one in the place of another.

Rank i of an adapter is the pair a_i, row i of A, and b_i, column i of B: it adds the matrix
b_i a_i^T to the update.
"""

from .choosing import (
    budget_mask,
    pair_ranks,
    top_k_mask,
    top_p_mask,
    top_p_threshold,
)
from .importance import (
    SmoothedSensitivity,
    activation_importance,
    effective_rank,
    frobenius_importance,
    gradient_importance,
    score_importance,
    sensitivity_importance,
    smooth_sensitivities_,
)
from .moving import (
    Snapshot,
    add_noise_,
    entrywise_states,
    expand_ranks_,
    reset_ranks_,
    split_ranks_,
    take_snapshot,
)

__all__ = [
    "SmoothedSensitivity",
    "Snapshot",
    "activation_importance",
    "add_noise_",
    "budget_mask",
    "effective_rank",
    "entrywise_states",
    "expand_ranks_",
    "frobenius_importance",
    "gradient_importance",
    "pair_ranks",
    "reset_ranks_",
    "score_importance",
    "sensitivity_importance",
    "smooth_sensitivities_",
    "split_ranks_",
    "take_snapshot",
    "top_k_mask",
    "top_p_mask",
    "top_p_threshold",
]
