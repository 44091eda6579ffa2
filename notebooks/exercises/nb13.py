"""The exercises of 13_settings."""

import random

from .common import compare, exercise, number


@exercise(
    "13.1",
    asked="a number",
    solution="""
        def same_step(r, alpha, lr, new_alpha):
            return lr * alpha / new_alpha
    """,
    right=[
        """
        def same_step(r, alpha, lr, new_alpha):
            return torch.tensor(alpha / r * lr, dtype=torch.double) / (new_alpha / r)
        """,
    ],
    wrong={
        "A larger alpha makes longer steps, so it wants a smaller rate.": """
        def same_step(r, alpha, lr, new_alpha):
            return lr * new_alpha / alpha
        """,
        "The rank stays as it is, and so divides both.": """
        def same_step(r, alpha, lr, new_alpha):
            return lr * alpha / new_alpha / r
        """,
        "This is the old rate.": """
        def same_step(r, alpha, lr, new_alpha):
            return lr
        """,
        "The step is as long as alpha, not as its root.": """
        def same_step(r, alpha, lr, new_alpha):
            return lr * (alpha / new_alpha) ** 0.5
        """,
    },
)
def same_step(answer):
    """The rate that makes up for another alpha."""
    draw = random.Random(0)
    cases = [
        {
            "r": draw.choice((2, 4, 8, 16)),
            "alpha": draw.choice((3, 8, 12, 20)),
            "lr": draw.uniform(1e-4, 1e-2),
            "new_alpha": draw.choice((1, 6, 32, 50)),
        }
        for _ in range(8)
    ]
    compare(answer, cases, lambda r, alpha, lr, new_alpha: lr * alpha / new_alpha, number)


@exercise(
    "13.2",
    asked="a number",
    solution="""
        def trained_bytes(shapes, r, size):
            numbers = sum(r * (rows + columns) for rows, columns in shapes)
            return 4 * size * numbers
    """,
    right=[
        """
        def trained_bytes(shapes, r, size):
            total = 0
            for rows, columns in shapes:
                A, B = torch.zeros(r, columns), torch.zeros(rows, r)
                total += A.numel() + B.numel()
            return float(total * size + total * size + 2 * total * size)
        """,
    ],
    wrong={
        "The gradients and the two moments are missing.": """
        def trained_bytes(shapes, r, size):
            return size * sum(r * (rows + columns) for rows, columns in shapes)
        """,
        "Adam keeps two moments.": """
        def trained_bytes(shapes, r, size):
            return 3 * size * sum(r * (rows + columns) for rows, columns in shapes)
        """,
        "This counts the frozen weight's numbers, not those of A and B.": """
        def trained_bytes(shapes, r, size):
            return 4 * size * sum(rows * columns for rows, columns in shapes)
        """,
        "Each number takes `size` bytes.": """
        def trained_bytes(shapes, r, size):
            return 4 * sum(r * (rows + columns) for rows, columns in shapes)
        """,
        "This is A alone.": """
        def trained_bytes(shapes, r, size):
            return 4 * size * sum(r * columns for rows, columns in shapes)
        """,
        "There are several layers.": """
        def trained_bytes(shapes, r, size):
            rows, columns = shapes[0]
            return 4 * size * r * (rows + columns)
        """,
    },
)
def trained_bytes(answer):
    """Memory of what LoRA trains."""
    draw = random.Random(0)
    cases = [
        {
            "shapes": [(draw.randrange(3, 40), draw.randrange(3, 40)) for _ in range(layers)],
            "r": draw.randrange(2, 9),
            "size": size,
        }
        for layers, size in ((1, 4), (2, 2), (3, 4), (5, 8))
    ]

    def truth(shapes, r, size):
        return 4 * size * sum(r * (rows + columns) for rows, columns in shapes)

    compare(answer, cases, truth, number)
