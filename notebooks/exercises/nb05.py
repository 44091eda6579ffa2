"""The exercises of 05_not_all_ranks_are_equal."""

import math

import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini import ranks

from .common import compare, exercise, expect, number, watch_products


@exercise(
    "05.1",
    asked="a learning rate",
    solution="""
        def same_path(lr, old, new, optimizer):
            return lr * (new / old) ** (1 if optimizer == "adam" else 2)
    """,
    right=[
        """
        def same_path(lr, old, new, optimizer):
            for _ in range({"adam": 1, "sgd": 2}[optimizer]):
                lr = lr / old * new
            return torch.tensor(lr)
        """,
    ],
    wrong={
        "With SGD the gradient changes with the temperature too.": """
        def same_path(lr, old, new, optimizer):
            return lr * new / old
        """,
        "This is the inverse.": """
        def same_path(lr, old, new, optimizer):
            return lr * (old / new) ** (1 if optimizer == "adam" else 2)
        """,
        "Adam divides the gradient by its size, so only the step counts.": """
        def same_path(lr, old, new, optimizer):
            return lr * (new / old) ** 2
        """,
        "SGD's steps must change too.": """
        def same_path(lr, old, new, optimizer):
            return lr if optimizer == "sgd" else lr * new / old
        """,
        "Adam's steps must change too.": """
        def same_path(lr, old, new, optimizer):
            return lr if optimizer == "adam" else lr * (new / old) ** 2
        """,
        "It is the other way round.": """
        def same_path(lr, old, new, optimizer):
            return lr * (new / old) ** (2 if optimizer == "adam" else 1)
        """,
    },
)
def same_path(answer):
    """The learning rate of the scores that keeps the path of the weights."""
    cases = [
        {"lr": lr, "old": old, "new": new, "optimizer": optimizer}
        for lr, old, new in [
            (4e-3, 0.05, 0.1),
            (0.02, 0.5, 0.1),
            *(torch.rand(4, 3) + 0.1).tolist(),
        ]
        for optimizer in ("adam", "sgd")
    ]

    def truth(lr, old, new, optimizer):
        return lr * new / old * (new / old if optimizer == "sgd" else 1)

    compare(answer, cases, truth, number)


@exercise(
    "05.2",
    solution="""
        zero_for_an_idle_rank = {"activation", "gradient"}
    """,
    right=[
        "zero_for_an_idle_rank = frozenset({'activation', 'gradient'})",
        "zero_for_an_idle_rank = ['gradient', 'activation']",
        "zero_for_an_idle_rank = ('activation', 'gradient')",
        "zero_for_an_idle_rank = (name for name in ('activation', 'gradient'))",
        "zero_for_an_idle_rank = {'activation': 0, 'gradient': 0}.keys()",
    ],
    wrong={
        "look at gradient again": "zero_for_an_idle_rank = {'activation'}",
        "look at activation again": "zero_for_an_idle_rank = {'gradient'}",
        "look at sensitivity again": (
            "zero_for_an_idle_rank = {'activation', 'gradient', 'sensitivity'}"
        ),
        "look at Frobenius again": "zero_for_an_idle_rank = {'Frobenius', 'activation', 'gradient'}",
        "the names are": "zero_for_an_idle_rank = {'activations', 'gradient'}",
        "answer with a set": "zero_for_an_idle_rank = 'activation, gradient'",
    },
)
def zero_for_an_idle_rank(answer):
    """The measures that are zero for a rank that no input excites."""
    some = not isinstance(answer, str) and hasattr(answer, "__iter__")
    expect(some, "answer with a set of names, such as {'Frobenius'}")
    named = set(answer)
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
    reasons = {
        "Frobenius": "it reads the lengths of a and b, and no input",
        "activation": "it reads a x",
        "gradient": "it reads db = g (a x)",
        "sensitivity": "it reads da = (g · b) x as well",
    }
    expect(named <= measures.keys(), f"the names are {', '.join(measures)}; you named {named}")
    for name, importance in measures.items():
        zero = bool(importance[0] == 0)
        expect((name in named) == zero, f"look at {name} again: {reasons[name]}")


@exercise(
    "05.3",
    asked="a number",
    solution="""
        def norm_of_two(A, B, i, j):
            rows, columns = A[[i, j]], B[:, [i, j]]
            squared = ((rows @ rows.T) * (columns.T @ columns)).sum()
            return squared.clamp(min=0).sqrt()
    """,
    right=[
        """
        def norm_of_two(A, B, i, j):
            def product(k, l):
                return float(A[k] @ A[l]) * float(B[:, k] @ B[:, l])
            return max(0.0, product(i, i) + product(j, j) + 2 * product(i, j)) ** 0.5
        """,
        """
        def norm_of_two(A, B, i, j):
            A, B = A.double().numpy(), B.double().numpy()
            squared = sum(
                sum(a * b for a, b in zip(A[k], A[l])) * sum(a * b for a, b in zip(B[:, k], B[:, l]))
                for k in (i, j)
                for l in (i, j)
            )
            return abs(squared) ** 0.5
        """,
        """
        def norm_of_two(A, B, i, j):  # a QR, then a product of size 2
            R1, R2 = torch.linalg.qr(A[[i, j]].T)[1], torch.linalg.qr(B[:, [i, j]])[1]
            return (R2 @ R1.T).norm().item()
        """,
    ],
    wrong={
        "the weight's size (a product": """
        def norm_of_two(A, B, i, j):
            return (B[:, [i, j]] @ A[[i, j]]).norm()
        """,
        "the weight's size (its memory": """
        def norm_of_two(A, B, i, j):
            B, A = B.numpy(), A.numpy()
            return float((((B[:, [i, j]] @ A[[i, j]]) ** 2).sum()) ** 0.5)
        """,
        "This is the sum of the two norms.": """
        def norm_of_two(A, B, i, j):
            return B[:, i].norm() * A[i].norm() + B[:, j].norm() * A[j].norm()
        """,
        "This is right for ranks at right angles only.": """
        def norm_of_two(A, B, i, j):
            squared = B.norm(dim=0).square() * A.norm(dim=1).square()
            return (squared[i] + squared[j]).sqrt()
        """,
        "This adds the vectors, not the products.": """
        def norm_of_two(A, B, i, j):
            return (B[:, i] + B[:, j]).norm() * (A[i] + A[j]).norm()
        """,
        "This is the square of the norm.": """
        def norm_of_two(A, B, i, j):
            rows, columns = A[[i, j]], B[:, [i, j]]
            return ((rows @ rows.T) * (columns.T @ columns)).sum().clamp(min=0)
        """,
        "The inner product counts twice.": """
        def norm_of_two(A, B, i, j):
            squared = B.norm(dim=0).square() * A.norm(dim=1).square()
            inner = (B[:, i] @ B[:, j]) * (A[i] @ A[j])
            return (squared[i] + squared[j] + inner).clamp(min=0).sqrt()
        """,
    },
)
def norm_of_two(answer):
    """The size of what two ranks add together."""
    cases = []
    for inputs, outputs, i, j in ((7, 5, 1, 3), (6, 8, 2, 0)):
        A, B = torch.randn(4, inputs), torch.randn(outputs, 4)
        cases.append({"A": A, "B": B, "i": i, "j": j})

    def truth(A, B, i, j):
        return (B[:, [i, j]] @ A[[i, j]]).norm()

    compare(answer, cases, truth, number)
    for _ in range(8):
        A, B = torch.randn(4, 7), torch.randn(5, 4)
        A[3], B[:, 3] = A[1], -B[:, 1]
        got = number(answer(A=A, B=B, i=1, j=3))
        expect(
            not math.isnan(got),
            "a rank and its mirror image give NaN: rounding made the square negative",
        )
        expect(
            abs(got) < 1e-2, f"a rank and its mirror image together add nothing, you said {got:.3f}"
        )
    large = {"A": torch.randn(4, 800), "B": torch.randn(900, 4), "i": 3, "j": 1}
    answer(**large)  # whatever is imported or built once is not counted
    with watch_products(800 * 900) as watch:
        answer(**large)
    expect(
        not watch.how,
        f"the norm is right, but find it without forming a matrix of the weight's size ({watch.how})",
    )
