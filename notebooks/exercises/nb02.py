"""The exercises of 02_better_starts."""

import torch
from torch import nn

import beamlora_mini as bl

from .common import compare, exercise, expect, is_close, number, several, tensor


@exercise(
    "02.1",
    asked="a number",
    solution="""
        def rank_for_share(weight, p):
            held = torch.linalg.svdvals(weight).square().cumsum(0)
            return int((held < p * held[-1]).sum()) + 1
    """,
    right=[
        """
        def rank_for_share(weight, p):
            squares = [float(s) ** 2 for s in torch.linalg.svd(weight.double()).S]
            for r in range(1, len(squares) + 1):
                if sum(squares[:r]) >= p * sum(squares):
                    return torch.tensor(r)
        """,
        """
        def rank_for_share(weight, p):
            import numpy as np
            squares = np.linalg.svd(weight.numpy(), compute_uv=False).astype(float) ** 2
            return np.searchsorted(squares.cumsum(), p * squares.cumsum()[-1]) + 1
        """,
    ],
    wrong={
        "This is one rank too few: the one that reaches the share counts.": """
        def rank_for_share(weight, p):
            squares = torch.linalg.svdvals(weight).square()
            return int((squares.cumsum(0) < p * squares.sum()).sum())
        """,
        "A share that is met exactly is enough.": """
        def rank_for_share(weight, p):
            squares = torch.linalg.svdvals(weight).square()
            return int((squares.cumsum(0) <= p * squares.sum()).sum()) + 1
        """,
        "This adds up the singular values, not their squares.": """
        def rank_for_share(weight, p):
            held = torch.linalg.svdvals(weight).cumsum(0)
            return int((held < p * held[-1]).sum()) + 1
        """,
        "This is a share p of the ranks, not of the squares.": """
        def rank_for_share(weight, p):
            return round(p * min(weight.shape))
        """,
        "This begins with the smallest.": """
        def rank_for_share(weight, p):
            held = torch.linalg.svdvals(weight).square().flip(0).cumsum(0)
            return int((held < p * held[-1]).sum()) + 1
        """,
    },
)
def rank_for_share(answer):
    """The least rank whose best approximation keeps a share p of a weight, in squares."""
    shares = [
        (s, p) for s in ([3.0, 2.0, 1.5, 0.5], [5.0, 4.0, 1.0]) for p in (0.3, 0.62, 0.8, 0.9)
    ]
    cases = []
    for values, p in shares:
        U, V = (torch.linalg.qr(torch.randn(n, len(values)))[0] for n in (9, 6))
        cases.append({"weight": U @ torch.diag(torch.tensor(values)) @ V.T, "p": p})
    exact = torch.zeros(5, 6)  # squares 49, 9, 4, 1, 1: 64 in all
    exact[[0, 1, 2, 3, 4], [3, 1, 0, 4, 2]] = torch.tensor([1.0, 3.0, 7.0, 1.0, 2.0])
    cases += [{"weight": exact, "p": p / 64} for p in (49, 58, 64)]

    def truth(weight, p):
        held = torch.linalg.svdvals(weight.double()).square().cumsum(0)
        return 1 + sum(bool(h < (p - 1e-9) * held[-1]) for h in held)

    compare(answer, cases, truth, number)


@exercise(
    "02.2",
    asked="(A, B)",
    solution="""
        def middle_start(weight, first, r, scaling):
            U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
            part = slice(first, first + r)
            root = (S[part] / scaling).sqrt()
            return root[:, None] * Vh[part], U[:, part] * root
    """,
    right=[
        """
        def middle_start(weight, first, r, scaling):  # all of it in B
            U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
            part = slice(first, first + r)
            return Vh[part], U[:, part] * S[part] / scaling
        """,
        """
        def middle_start(weight, first, r, scaling):  # all of it in A
            U, S, Vh = torch.linalg.svd(weight.double())
            A = [(S[k] * Vh[k] / scaling).tolist() for k in range(first, first + r)]
            return [A, U[:, first : first + r].numpy()]
        """,
    ],
    wrong={
        "This is B @ A without the scaling in it.": """
        def middle_start(weight, first, r, scaling):
            U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
            part = slice(first, first + r)
            root = S[part].sqrt()
            return root[:, None] * Vh[part], U[:, part] * root
        """,
        "Here both factors are divided by the whole scaling.": """
        def middle_start(weight, first, r, scaling):
            U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
            part = slice(first, first + r)
            root = S[part].sqrt() / scaling
            return root[:, None] * Vh[part], U[:, part] * root
        """,
        "These are the first r directions.": """
        def middle_start(weight, first, r, scaling):
            U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
            root = (S[:r] / scaling).sqrt()
            return root[:, None] * Vh[:r], U[:, :r] * root
        """,
        "These are the last r directions.": """
        def middle_start(weight, first, r, scaling):
            U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
            root = (S[-r:] / scaling).sqrt()
            return root[:, None] * Vh[-r:], U[:, -r:] * root
        """,
        "This has the singular values twice.": """
        def middle_start(weight, first, r, scaling):
            U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
            part = slice(first, first + r)
            return S[part, None] * Vh[part], U[:, part] * S[part] / scaling
        """,
        "A and B should be": """
        def middle_start(weight, first, r, scaling):
            U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
            part = slice(first, first + r)
            return U[:, part] * S[part] / scaling, Vh[part]
        """,
    },
)
def middle_start(answer):
    """An adapter for r singular directions in the middle of a weight."""

    def read(got):
        A, B = several(got, 2, "A and B")
        return tensor(A, "A"), tensor(B, "B")

    answer.read = read
    cases = ((9, 6, 1, 3, 2.0), (5, 8, 2, 2, 0.5), (9, 6, 0, 2, 3.0), (7, 6, 4, 1, 1.0))
    for outputs, inputs, first, r, scaling in cases:
        weight = torch.randn(outputs, inputs)
        A, B = read(answer(weight=weight, first=first, r=r, scaling=scaling))
        shapes = (tuple(A.shape), tuple(B.shape))
        wanted = ((r, inputs), (outputs, r))
        expect(shapes == wanted, f"A and B should be of shapes {wanted}, not {shapes}")
        U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
        part = slice(first, first + r)
        expect(
            is_close(scaling * B @ A, U[:, part] * S[part] @ Vh[part]),
            f"first={first}, r={r}, scaling={scaling}: scaling * B @ A is not that part of the weight",
        )


@exercise(
    "02.3",
    asked="a dictionary",
    solution="""
        def plain_lora(layer, r, lora_alpha):
            return {
                "lora_A": torch.cat([layer.lora_A, layer.initial_A]),
                "lora_B": torch.cat([layer.lora_B, -layer.initial_B], dim=1),
                "r": 2 * r,
                "lora_alpha": 2 * lora_alpha,
            }
    """,
    right=[
        """
        def plain_lora(layer, r, lora_alpha):  # the sign and the scaling in A
            scaling = lora_alpha / r
            A = torch.cat([scaling * layer.lora_A, -scaling * layer.initial_A]).double()
            B = torch.cat([layer.lora_B, layer.initial_B], dim=1).double()
            return dict(lora_A=A.detach().numpy(), lora_B=B.tolist(), r=2 * r, lora_alpha=2.0 * r)
        """,
        """
        def plain_lora(layer, r, lora_alpha):
            U, S, Vh = torch.linalg.svd(layer.delta_weight(), full_matrices=False)
            return {"lora_A": Vh, "lora_B": U * S, "r": len(S), "lora_alpha": len(S)}
        """,
    ],
    wrong={
        "With 2 r ranks and the old lora_alpha, lora_alpha / r is half of what it was.": """
        def plain_lora(layer, r, lora_alpha):
            A = torch.cat([layer.lora_A, layer.initial_A])
            B = torch.cat([layer.lora_B, -layer.initial_B], dim=1)
            return {"lora_A": A, "lora_B": B, "r": 2 * r, "lora_alpha": lora_alpha}
        """,
        "In the product, two minus signs make a plus.": """
        def plain_lora(layer, r, lora_alpha):
            A = torch.cat([layer.lora_A, -layer.initial_A])
            B = torch.cat([layer.lora_B, -layer.initial_B], dim=1)
            return {"lora_A": A, "lora_B": B, "r": 2 * r, "lora_alpha": 2 * lora_alpha}
        """,
        "Here the start is added; it is to be taken off.": """
        def plain_lora(layer, r, lora_alpha):
            A = torch.cat([layer.lora_A, layer.initial_A])
            B = torch.cat([layer.lora_B, layer.initial_B], dim=1)
            return {"lora_A": A, "lora_B": B, "r": 2 * r, "lora_alpha": 2 * lora_alpha}
        """,
        "This is the product of the differences, not the difference of the products.": """
        def plain_lora(layer, r, lora_alpha):
            A, B = layer.lora_A - layer.initial_A, layer.lora_B - layer.initial_B
            return {"lora_A": A, "lora_B": B, "r": r, "lora_alpha": lora_alpha}
        """,
        "Here the start is left in.": """
        def plain_lora(layer, r, lora_alpha):
            return {"lora_A": layer.lora_A, "lora_B": layer.lora_B, "r": r, "lora_alpha": lora_alpha}
        """,
        "r should be lora_A's number of rows": """
        def plain_lora(layer, r, lora_alpha):
            A = torch.cat([layer.lora_A, layer.initial_A])
            B = torch.cat([layer.lora_B, -layer.initial_B], dim=1)
            return {"lora_A": A, "lora_B": B, "r": r, "lora_alpha": lora_alpha}
        """,
        "has no lora_alpha": """
        def plain_lora(layer, r, lora_alpha):
            A = torch.cat([layer.lora_A, layer.initial_A])
            return {"lora_A": A, "lora_B": torch.cat([layer.lora_B, -layer.initial_B], 1), "r": 2 * r}
        """,
    },
)
def plain_lora(answer):
    """A plain LoRA, relative to the original weight, of a trained PiSSA layer."""
    for inputs, outputs, r, alpha in ((7, 9, 3, 12), (8, 6, 2, 5)):
        method = bl.PiSSA(r=r, lora_alpha=alpha)
        layer = bl.attach(nn.Sequential(nn.Linear(inputs, outputs, bias=False)), method)["0"]
        with torch.no_grad():
            layer.lora_A += torch.randn(r, inputs)
            layer.lora_B += torch.randn(outputs, r)
        got = answer(layer=layer, r=r, lora_alpha=alpha)
        expect(isinstance(got, dict), f"return a dictionary, not {type(got).__name__}")
        missing = {"lora_A", "lora_B", "r", "lora_alpha"} - set(got)
        expect(not missing, f"the dictionary has no {', '.join(sorted(missing))}")
        A, B = tensor(got["lora_A"], "lora_A"), tensor(got["lora_B"], "lora_B")
        new_r, new_alpha = number(got["r"]), number(got["lora_alpha"])
        rows = A.shape[0]
        expect(
            rows == B.shape[1] == new_r,
            f"r should be lora_A's number of rows, {rows}, not {new_r:g}",
        )
        expect(
            is_close(new_alpha / new_r * B @ A, layer.delta_weight()),
            f"with r={r}, lora_alpha={alpha}: lora_alpha / r * lora_B @ lora_A is not what the layer "
            "adds to W",
        )
