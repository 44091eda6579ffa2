"""The exercises of 05_not_all_ranks_are_equal."""

import math

import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini import ranks

from .common import exercise, expect, is_close


@exercise(
    "05.1",
    solution="""
        def same_path(lr, old, new, optimizer):
            return lr * (new / old) ** (1 if optimizer == "adam" else 2)
    """,
    wrong=[
        """
        def same_path(lr, old, new, optimizer):
            return lr * new / old
        """,
        """
        def same_path(lr, old, new, optimizer):
            return lr * old / new
        """,
        """
        def same_path(lr, old, new, optimizer):  # SGD: forgets that the gradient changes as well
            return lr if optimizer == "adam" else lr * new / old
        """,
    ],
)
def same_path(answer):
    """The learning rate of the scores that keeps the path of the weights."""
    for optimizer, power in (("adam", 1), ("sgd", 2)):
        for old, new in ((0.05, 0.1), (0.5, 0.1)):
            got = answer(4e-3, old, new, optimizer)
            expect(got is not None, "same_path returned None; return a learning rate")
            wanted = 4e-3 * (new / old) ** power
            expect(
                math.isclose(got, wanted, rel_tol=1e-6),
                f"{optimizer}, from temperature {old} to {new}: with lr={got:.4g} in place of 0.004 "
                "the weights take another path",
            )


@exercise(
    "05.2",
    solution="""
        zero_for_an_idle_rank = {"activation", "gradient"}
    """,
    wrong=[
        "zero_for_an_idle_rank = {'activation'}",
        "zero_for_an_idle_rank = {'activation', 'gradient', 'sensitivity'}",
        "zero_for_an_idle_rank = set()",
    ],
)
def zero_for_an_idle_rank(answer):
    """The measures that are zero for a rank that no input excites."""
    expect(isinstance(answer, set), "answer with a set of names, such as {'Frobenius'}")
    torch.manual_seed(0)
    layer = bl.attach(nn.Sequential(nn.Linear(6, 5)), bl.LoRA(r=2))["0"]
    nn.init.normal_(layer.lora_B)
    x = torch.randint(-3, 4, (20, 3)).float().repeat(1, 2)  # whole numbers: no rounding
    layer.lora_A.data[0] = torch.tensor([1.0, 2.0, 3.0, -1.0, -2.0, -3.0])
    layer(x).square().sum().backward()
    A, B = layer.lora_A, layer.lora_B
    measures = {
        "Frobenius": ranks.frobenius_importance(A, B),
        "activation": ranks.activation_importance(A, B, x),
        "gradient": ranks.gradient_importance(B, B.grad),
        "sensitivity": ranks.sensitivity_importance(A, B, (A * A.grad).abs(), (B * B.grad).abs()),
    }
    zero = {name for name, importance in measures.items() if importance[0] == 0}
    expect(answer <= measures.keys(), f"the names are {', '.join(measures)}")
    for name in measures:
        expect((name in answer) == (name in zero), f"look at {name} again")


@exercise(
    "05.3",
    solution="""
        def norm_of_two(A, B, i, j):
            rows, columns = A[[i, j]], B[:, [i, j]]
            squared = ((rows @ rows.T) * (columns.T @ columns)).sum()
            return squared.clamp(min=0).sqrt()
    """,
    wrong=[
        """
        def norm_of_two(A, B, i, j):  # the sum of the two norms
            return B[:, i].norm() * A[i].norm() + B[:, j].norm() * A[j].norm()
        """,
        """
        def norm_of_two(A, B, i, j):  # as if they were at right angles
            squared = B.norm(dim=0).square() * A.norm(dim=1).square()
            return (squared[i] + squared[j]).sqrt()
        """,
        """
        def norm_of_two(A, B, i, j):  # adds the vectors, not the products
            return (B[:, i] + B[:, j]).norm() * (A[i] + A[j]).norm()
        """,
    ],
)
def norm_of_two(answer):
    """The size of what two ranks add together."""
    torch.manual_seed(0)
    A, B = torch.randn(4, 7), torch.randn(5, 4)
    got = answer(A, B, 1, 3)
    expect(got is not None, "norm_of_two returned None; return a number")
    both = (B[:, [1, 3]] @ A[[1, 3]]).norm()
    expect(is_close(torch.as_tensor(got), both), f"it is {both:.3f}, you said {float(got):.3f}")
    A[3], B[:, 3] = A[1], -B[:, 1]
    got = torch.as_tensor(answer(A, B, 1, 3))
    expect(bool(got.abs() < 1e-2), "a rank and its mirror image together add nothing")
