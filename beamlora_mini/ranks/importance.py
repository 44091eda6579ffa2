"""What a rank is worth. Importances are (r,) tensors, higher is better."""

from __future__ import annotations

import torch
from torch import Tensor


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


def effective_rank(matrix: Tensor) -> float:
    """How many directions a matrix uses: k equal singular values give k, a zero matrix 0.

    The exponential of the entropy of the singular values' shares. Shape: (out, in).
    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    values = torch.linalg.svdvals(
        matrix.detach().float() if matrix.dtype.itemsize < 4 else matrix.detach()
    )
    total = values.sum()
    return torch.special.entr(values / total).sum().exp().item() if total > 0 else 0.0


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
        state = [torch.zeros_like(sensitivity) + start for start in (self.mean, self.uncertainty)]
        self.mean, self.uncertainty = state
        (score,) = smooth_sensitivities_(
            [sensitivity], [self.mean], [self.uncertainty], self.beta1, self.beta2
        )
        return score


def smooth_sensitivities_(
    sensitivities: list[Tensor],
    means: list[Tensor],
    uncertainties: list[Tensor],
    beta1: float,
    beta2: float,
) -> list[Tensor]:
    """`SmoothedSensitivity` of many parameters at once: brings the running averages up to date, in
    place, and returns the scores."""
    torch._foreach_lerp_(means, sensitivities, 1 - beta1)
    deviations = torch._foreach_sub(sensitivities, means)
    torch._foreach_abs_(deviations)
    torch._foreach_lerp_(uncertainties, deviations, 1 - beta2)
    return list(torch._foreach_mul(means, uncertainties))


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
