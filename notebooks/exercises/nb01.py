"""The exercises of 01_lora_from_scratch."""

import torch
from torch import nn

import beamlora_mini as bl

from .common import compare, exercise, expect, number, tensor


@exercise(
    "01.1",
    asked="a number",
    solution="""
        def rank_for_budget(inputs, outputs, budget):
            return budget // (inputs + outputs)
    """,
    right=[
        """
        def rank_for_budget(inputs, outputs, budget):
            r = 0
            while (r + 1) * inputs + (r + 1) * outputs <= budget:
                r += 1
            return r
        """,
        """
        def rank_for_budget(inputs, outputs, budget):
            return torch.tensor(budget / (inputs + outputs)).floor()
        """,
    ],
    wrong={
        "A rank costs a row and a column, not the whole weight.": """
        def rank_for_budget(inputs, outputs, budget):
            return budget // (inputs * outputs)
        """,
        "A rank is a whole number.": """
        def rank_for_budget(inputs, outputs, budget):
            return budget / (inputs + outputs)
        """,
        "It is 0 if even rank 1 is too much.": """
        def rank_for_budget(inputs, outputs, budget):
            return max(1, budget // (inputs + outputs))
        """,
        "This is rounded up: it costs more than the budget.": """
        def rank_for_budget(inputs, outputs, budget):
            return -(-budget // (inputs + outputs))
        """,
        "A budget that is met exactly is enough.": """
        def rank_for_budget(inputs, outputs, budget):
            return max(0, (budget - 1) // (inputs + outputs))
        """,
        "This counts the row of A only.": """
        def rank_for_budget(inputs, outputs, budget):
            return budget // inputs
        """,
    },
)
def rank_for_budget(answer):
    """The largest rank whose adapter has at most `budget` parameters."""
    cases = [(128, 352, 10_000), (128, 352, 9_600), (128, 352, 479), (96, 32, 0)]
    for inputs, outputs, budget in torch.randint(20, 2000, (8, 3)).tolist():
        cases += [(inputs, outputs, 10 * budget), (inputs, outputs, 7 * (inputs + outputs))]
    names = ("inputs", "outputs", "budget")
    compare(
        answer,
        [dict(zip(names, case)) for case in cases],
        lambda inputs, outputs, budget: budget // (inputs + outputs),
        number,
    )


@exercise(
    "01.2",
    solution="""
        gradients_at_the_start = {
            "A random, B zero": {"B"},
            "A zero, B random": {"A"},
            "both zero": set(),
        }
    """,
    right=[
        """
        gradients_at_the_start = {
            "both zero": {},
            "A random, B zero": ["B"],
            "A zero, B random": frozenset("A"),
        }
        """,
        """
        gradients_at_the_start = {
            "A random, B zero": "B",
            "A zero, B random": (name for name in "A"),
            "both zero": (),
        }
        """,
    ],
    wrong={
        "'A random, B zero': does A get one?": """
        gradients_at_the_start = {
            "A random, B zero": {"A", "B"},
            "A zero, B random": {"A", "B"},
            "both zero": set(),
        }
        """,
        "'A random, B zero': does B get one?": """
        gradients_at_the_start = {
            "A random, B zero": set(),
            "A zero, B random": set(),
            "both zero": set(),
        }
        """,
        "'A zero, B random': does A get one?": """
        gradients_at_the_start = {
            "A random, B zero": {"B"},
            "A zero, B random": {"B"},
            "both zero": set(),
        }
        """,
        "'both zero': does A get one?": """
        gradients_at_the_start = {
            "A random, B zero": {"B"},
            "A zero, B random": {"A"},
            "both zero": {"A", "B"},
        }
        """,
        "the line 'both zero' is still open": """
        gradients_at_the_start = {"A random, B zero": {"B"}, "A zero, B random": {"A"}}
        """,
        "the names are 'A' and 'B'": """
        gradients_at_the_start = {
            "A random, B zero": {"lora_B"},
            "A zero, B random": {"lora_A"},
            "both zero": set(),
        }
        """,
    },
)
def gradients_at_the_start(answer):
    """Which of A and B get a gradient in the first step, for each of three starts."""
    starts = ("A random, B zero", "A zero, B random", "both zero")
    open_lines = [s for s in starts if not isinstance(answer, dict) or answer.get(s) in (None, ...)]
    expect(len(open_lines) < 3, "fill in all three lines")
    for start in starts:
        expect(start not in open_lines, f"the line {start!r} is still open")
        named = set(answer[start])
        expect(named <= {"A", "B"}, f"{start!r}: the names are 'A' and 'B', not {named}")
        layer = bl.attach(nn.Sequential(nn.Linear(4, 3)), bl.LoRA(r=2))["0"]
        (nn.init.normal_ if "A random" in start else nn.init.zeros_)(layer.lora_A)
        (nn.init.normal_ if "B random" in start else nn.init.zeros_)(layer.lora_B)
        layer(torch.randn(5, 4)).square().sum().backward()
        formulas = {
            "A": "dA = s (dY B)^T x, with B in it",
            "B": "dB = s dY^T (x A^T), with A in it",
        }
        for name, p in (("A", layer.lora_A), ("B", layer.lora_B)):
            gets_one = bool(p.grad.abs().sum() > 0)
            expect(
                (name in named) == gets_one,
                f"{start!r}: does {name} get one? Look at {formulas[name]}",
            )


@exercise(
    "01.3",
    asked="a weight",
    solution="""
        def merge_two(weight, first, second):
            for layer in (first, second):
                weight = weight + layer.scaling * layer.lora_B @ layer.lora_A
            return weight
    """,
    right=[
        """
        def merge_two(weight, first, second):
            merged = weight.double()
            for layer in (first, second):
                merged += layer.scaling * layer.lora_B.double() @ layer.lora_A.double()
            return merged
        """,
        """
        def merge_two(weight, first, second):
            merged = weight.tolist()
            for layer in (first, second):
                A, B = layer.lora_A.tolist(), layer.lora_B.tolist()
                for i in range(len(merged)):
                    for j in range(len(merged[0])):
                        added = sum(B[i][k] * A[k][j] for k in range(len(A)))
                        merged[i][j] += layer.scaling * added
            return merged
        """,
        """
        def merge_two(weight, first, second):
            B = torch.cat([first.scaling * first.lora_B, second.scaling * second.lora_B], dim=1)
            return weight.numpy() + (B @ torch.cat([first.lora_A, second.lora_A])).detach().numpy()
        """,
    ],
    wrong={
        "you changed the input `weight`": """
        def merge_two(weight, first, second):
            for layer in (first, second):
                weight += (layer.scaling * layer.lora_B @ layer.lora_A).detach()
            return weight
        """,
        "The scaling is missing.": """
        def merge_two(weight, first, second):
            return weight + first.lora_B @ first.lora_A + second.lora_B @ second.lora_A
        """,
        "Each adapter has a scaling of its own.": """
        def merge_two(weight, first, second):
            scaling = first.scaling
            return weight + scaling * (first.lora_B @ first.lora_A + second.lora_B @ second.lora_A)
        """,
        "The second adapter is missing.": """
        def merge_two(weight, first, second):
            return weight + first.scaling * first.lora_B @ first.lora_A
        """,
        "The frozen weight itself is missing.": """
        def merge_two(weight, first, second):
            update = first.scaling * first.lora_B @ first.lora_A
            return update + second.scaling * second.lora_B @ second.lora_A
        """,
        "Updates add up, they are not averaged.": """
        def merge_two(weight, first, second):
            update = first.scaling * first.lora_B @ first.lora_A
            return weight + (update + second.scaling * second.lora_B @ second.lora_A) / 2
        """,
    },
)
def merge_two(answer):
    """One weight that does the work of two adapters on the same layer."""
    cases = []
    for outputs, inputs in ((6, 5), (4, 7)):
        first, second = (
            bl.attach(nn.Sequential(nn.Linear(inputs, outputs)), bl.LoRA(r=r, lora_alpha=8))["0"]
            for r in (2, 3)
        )
        for layer in (first, second):
            nn.init.normal_(layer.lora_B)
        cases.append({"weight": torch.randn(outputs, inputs), "first": first, "second": second})
    compare(
        answer,
        cases,
        lambda weight, first, second: weight + first.delta_weight() + second.delta_weight(),
        lambda got: tensor(got, "the new weight"),
    )
