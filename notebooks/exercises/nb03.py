"""The exercises of 03_direction_and_restarts."""

import torch

from .common import exercise, expect, is_close


@exercise(
    "03.1",
    solution="""
        def stretch(weight, A, B, scaling, magnitude):
            squares = weight.square().sum(1) + 2 * scaling * ((weight @ A.T) * B).sum(1)
            squares = squares + scaling**2 * ((B @ (A @ A.T)) * B).sum(1)
            norm = squares.clamp(min=0).sqrt()
            return torch.where(norm > 0, magnitude / norm, torch.ones_like(norm))
    """,
    wrong=[
        """
        def stretch(weight, A, B, scaling, magnitude):  # NaN for a row of zeros
            return magnitude / (weight + scaling * B @ A).norm(dim=1)
        """,
        """
        def stretch(weight, A, B, scaling, magnitude):  # columns
            return magnitude / (weight + scaling * B @ A).norm(dim=0).mean()
        """,
        """
        def stretch(weight, A, B, scaling, magnitude):  # the square of the scaling is missing
            squares = weight.square().sum(1) + 2 * scaling * ((weight @ A.T) * B).sum(1)
            norm = (squares + ((B @ (A @ A.T)) * B).sum(1)).clamp(min=0).sqrt()
            return torch.where(norm > 0, magnitude / norm, torch.ones_like(norm))
        """,
    ],
)
def stretch(answer):
    """DoRA's factor m / ||V|| for each row."""
    torch.manual_seed(0)
    weight, A, B = torch.randn(6, 5), torch.randn(2, 5), torch.randn(6, 2)
    magnitude = torch.rand(6) + 0.5
    got = answer(weight, A, B, 1.5, magnitude)
    expect(got is not None, "stretch returned None; return a tensor")
    wanted = magnitude / (weight + 1.5 * B @ A).norm(dim=1)
    expect(is_close(got, wanted), "it is not magnitude / ||weight + scaling * B @ A||, row by row")
    weight[2], B[2], magnitude[2] = 0, 0, 0
    got = answer(weight, A, B, 1.5, magnitude)
    expect(not got.isnan().any(), "a row of zeros gives NaN")
    expect(got[2] == 1, f"the factor of a row of zeros should be 1, not {got[2]:.3g}")


@exercise(
    "03.2",
    solution="""
        def highest_rank(total, every, r, outputs, inputs):
            rounds = -(-total // every)
            return min(rounds * r, outputs, inputs)
    """,
    wrong=[
        """
        def highest_rank(total, every, r, outputs, inputs):
            return total // every * r
        """,
        """
        def highest_rank(total, every, r, outputs, inputs):
            return -(-total // every) * r
        """,
        """
        def highest_rank(total, every, r, outputs, inputs):  # a round too many after the last step
            return min((total // every + 1) * r, outputs, inputs)
        """,
    ],
)
def highest_rank(answer):
    """The rank that restarts can reach."""
    cases = ((90, 30, 2, 128, 128, 6), (100, 30, 2, 128, 64, 8), (20, 50, 4, 64, 64, 4))
    for *settings, wanted in (*cases, (1000, 10, 8, 300, 200, 200)):
        got = answer(*settings)
        expect(got is not None, "highest_rank returned None; return a number")
        total, every, r, outputs, inputs = settings
        expect(
            got == wanted,
            f"total={total}, every={every}, r={r}, weight ({outputs}, {inputs}): {wanted}, you said {got}",
        )


@exercise(
    "03.3",
    solution="""
        def reset_moments(exp_avg, exp_avg_sq, keep):
            size = exp_avg.abs().flatten()
            mask = torch.zeros_like(size)
            mask[size.topk(round(keep * size.numel())).indices] = 1
            mask = mask.view_as(exp_avg)
            return exp_avg * mask, exp_avg_sq * mask
    """,
    wrong=[
        """
        def reset_moments(exp_avg, exp_avg_sq, keep):
            return exp_avg * 0, exp_avg_sq * 0
        """,
        """
        def reset_moments(exp_avg, exp_avg_sq, keep):  # each moment by its own size
            def largest(values):
                size = values.abs().flatten()
                mask = torch.zeros_like(size)
                mask[size.topk(round(keep * size.numel())).indices] = 1
                return values * mask.view_as(values)
            return largest(exp_avg), largest(exp_avg_sq)
        """,
        """
        def reset_moments(exp_avg, exp_avg_sq, keep):  # the smallest stay
            size = exp_avg.abs().flatten()
            mask = torch.zeros_like(size)
            mask[(-size).topk(round(keep * size.numel())).indices] = 1
            mask = mask.view_as(exp_avg)
            return exp_avg * mask, exp_avg_sq * mask
        """,
    ],
)
def reset_moments(answer):
    """A reset of Adam's moments that keeps the largest."""
    torch.manual_seed(0)
    first, second = torch.randn(4, 5), torch.rand(4, 5) + 0.1
    kept = first.clone(), second.clone()
    for keep, count in ((0.25, 5), (0.0, 0), (1.0, 20)):
        got = answer(first, second, keep)
        expect(got is not None, "reset_moments returned None; return both moments")
        expect(
            torch.equal(first, kept[0]) and torch.equal(second, kept[1]), "what was given changed"
        )
        mask = first.abs() >= first.abs().flatten().sort(descending=True).values[max(count - 1, 0)]
        mask = mask if count else torch.zeros_like(mask)
        left = int((got[0] != 0).sum())
        expect(left == count, f"keep={keep} of 20 entries: {count} should stay, {left} did")
        expect(is_close(got[0], first * mask), "the largest in absolute value should stay")
        expect(is_close(got[1], second * mask), "both moments of an entry stay or go together")
