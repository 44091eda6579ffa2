"""The exercises of 02_better_starts."""

import torch
from torch import nn

import beamlora_mini as bl

from .common import exercise, expect, is_close


@exercise(
    "02.1",
    solution="""
        def rank_for_share(weight, p):
            squares = torch.linalg.svdvals(weight).square()
            return int((squares.cumsum(0) < p * squares.sum()).sum()) + 1
    """,
    wrong=[
        """
        def rank_for_share(weight, p):  # one too few
            squares = torch.linalg.svdvals(weight).square()
            return int((squares.cumsum(0) < p * squares.sum()).sum())
        """,
        """
        def rank_for_share(weight, p):  # the values, not their squares
            values = torch.linalg.svdvals(weight)
            return int((values.cumsum(0) < p * values.sum()).sum()) + 1
        """,
        """
        def rank_for_share(weight, p):
            return round(p * min(weight.shape))
        """,
    ],
)
def rank_for_share(answer):
    """The least rank whose best approximation keeps a share p of a weight, in squares."""
    torch.manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(n, 4))[0] for n in (9, 6))
    weight = U @ torch.diag(torch.tensor([3.0, 2.0, 1.5, 0.5])) @ V.T  # squares 9, 4, 2.25, 0.25
    for p, wanted in ((0.5, 1), (0.62, 2), (0.8, 2), (0.9, 3), (0.995, 4)):
        got = answer(weight, p)
        expect(got is not None, "rank_for_share returned None; return a number")
        expect(got == wanted, f"singular values 3, 2, 1.5, 0.5 and p={p}: {wanted}, you said {got}")


@exercise(
    "02.2",
    solution="""
        def middle_start(weight, first, r, scaling):
            U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
            part = slice(first, first + r)
            root = (S[part] / scaling).sqrt()
            return root[:, None] * Vh[part], U[:, part] * root
    """,
    wrong=[
        """
        def middle_start(weight, first, r, scaling):  # the scaling is missing
            U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
            part = slice(first, first + r)
            root = S[part].sqrt()
            return root[:, None] * Vh[part], U[:, part] * root
        """,
        """
        def middle_start(weight, first, r, scaling):  # always the first
            U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
            root = (S[:r] / scaling).sqrt()
            return root[:, None] * Vh[:r], U[:, :r] * root
        """,
        """
        def middle_start(weight, first, r, scaling):  # all of it in B
            U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
            part = slice(first, first + r)
            return Vh[part], U[:, part] * S[part] / scaling
        """,
    ],
)
def middle_start(answer):
    """An adapter for r singular directions in the middle of a weight."""
    torch.manual_seed(0)
    weight = torch.randn(9, 6)
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    for first, r, scaling in ((0, 2, 1.0), (1, 3, 2.0), (4, 2, 0.5)):
        got = answer(weight, first, r, scaling)
        expect(got is not None, "middle_start returned None; return (A, B)")
        A, B = got
        shapes = (tuple(A.shape), tuple(B.shape))
        expect(shapes == ((r, 6), (9, r)), f"A and B should be {(r, 6)} and {(9, r)}, not {shapes}")
        part = slice(first, first + r)
        expect(
            is_close(scaling * B @ A, U[:, part] * S[part] @ Vh[part]),
            f"first={first}, r={r}, scaling={scaling}: scaling * B @ A is not that part of the weight",
        )
        expect(is_close(B.norm(dim=0), A.norm(dim=1)), "share the singular values evenly")


@exercise(
    "02.3",
    solution="""
        def plain_lora(layer, r, lora_alpha):
            return {
                "lora_A": torch.cat([layer.lora_A, layer.initial_A]),
                "lora_B": torch.cat([layer.lora_B, -layer.initial_B], dim=1),
                "r": 2 * r,
                "lora_alpha": 2 * lora_alpha,
            }
    """,
    wrong=[
        """
        def plain_lora(layer, r, lora_alpha):  # alpha not doubled
            A = torch.cat([layer.lora_A, layer.initial_A])
            B = torch.cat([layer.lora_B, -layer.initial_B], dim=1)
            return {"lora_A": A, "lora_B": B, "r": 2 * r, "lora_alpha": lora_alpha}
        """,
        """
        def plain_lora(layer, r, lora_alpha):  # both signs turned: the product's is lost
            A = torch.cat([layer.lora_A, -layer.initial_A])
            B = torch.cat([layer.lora_B, -layer.initial_B], dim=1)
            return {"lora_A": A, "lora_B": B, "r": 2 * r, "lora_alpha": 2 * lora_alpha}
        """,
        """
        def plain_lora(layer, r, lora_alpha):  # the difference of the factors
            A, B = layer.lora_A - layer.initial_A, layer.lora_B - layer.initial_B
            return {"lora_A": A, "lora_B": B, "r": r, "lora_alpha": lora_alpha}
        """,
    ],
)
def plain_lora(answer):
    """A plain LoRA, relative to the original weight, of a trained PiSSA layer."""
    torch.manual_seed(0)
    base = nn.Linear(7, 9, bias=False)
    layer = bl.attach(nn.Sequential(base), bl.PiSSA(r=3, lora_alpha=12))["0"]
    with torch.no_grad():
        layer.lora_A += torch.randn(3, 7)
        layer.lora_B += torch.randn(9, 3)
    got = answer(layer, 3, 12)
    expect(got is not None, "plain_lora returned None; return a dictionary")
    missing = {"lora_A", "lora_B", "r", "lora_alpha"} - set(got)
    expect(not missing, f"the dictionary has no {', '.join(sorted(missing))}")
    expect(got["lora_A"].shape[0] == got["lora_B"].shape[1] == got["r"], "r is A's number of rows")
    update = got["lora_alpha"] / got["r"] * got["lora_B"] @ got["lora_A"]
    expect(
        is_close(update, layer.delta_weight()), "it does not turn W into what the layer computes"
    )
