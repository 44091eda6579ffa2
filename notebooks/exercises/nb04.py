"""The exercises of 04_rank_budgets."""

import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini.methods.adalora import rank_budget

from .common import exercise, expect


@exercise(
    "04.1",
    solution="""
        def kept_ranks(scores, budget):
            pool = torch.cat(list(scores.values()))
            kept = torch.zeros(len(pool), dtype=torch.bool)
            kept[pool.sort(descending=True, stable=True).indices[:budget]] = True
            parts = kept.split([len(values) for values in scores.values()])
            return {name: int(part.sum()) for name, part in zip(scores, parts)}
    """,
    wrong=[
        """
        def kept_ranks(scores, budget):  # a threshold: ties cost ranks
            values = torch.cat(list(scores.values())).sort(descending=True).values
            limit = values[budget] if budget < len(values) else -1.0
            return {name: int((s > limit).sum()) for name, s in scores.items()}
        """,
        """
        def kept_ranks(scores, budget):  # ties are all kept
            values = torch.cat(list(scores.values())).sort(descending=True).values
            return {name: int((s >= values[budget - 1]).sum()) for name, s in scores.items()}
        """,
        """
        def kept_ranks(scores, budget):  # the same for every layer
            share = budget // len(scores)
            return {name: min(share, len(s)) for name, s in scores.items()}
        """,
    ],
)
def kept_ranks(answer):
    """How many ranks each layer keeps when all share a budget."""
    cases = (
        ({"a": [3.0, 1.0, 2.0], "b": [5.0, 4.0]}, 3, {"a": 1, "b": 2}),
        ({"a": [3.0, 1.0, 2.0], "b": [5.0, 4.0]}, 1, {"a": 0, "b": 1}),
        ({"a": [0.0, 0.0, 0.0], "b": [2.0, 0.0]}, 3, {"a": 2, "b": 1}),
        ({"a": [0.5, 0.5], "b": [0.5, 0.1]}, 4, {"a": 2, "b": 2}),
    )
    for scores, budget, wanted in cases:
        got = answer({name: torch.tensor(values) for name, values in scores.items()}, budget)
        expect(got is not None, "kept_ranks returned None; return a dictionary")
        expect(set(got) == set(wanted), "every layer has an entry, also one that keeps nothing")
        got = {name: int(count) for name, count in got.items()}
        total = sum(got.values())
        expect(total == budget, f"scores {scores}: {total} ranks stay, the budget is {budget}")
        expect(got == wanted, f"scores {scores}, budget {budget}: {wanted}, you said {got}")


@exercise(
    "04.2",
    solution="""
        def half_pruned(total, tinit, tfinal, first, last):
            for t in range(total):
                fallen = first - rank_budget(t, total, tinit, tfinal, first, last)
                if fallen >= (first - last) / 2:
                    return t
    """,
    wrong=[
        """
        def half_pruned(total, tinit, tfinal, first, last):  # as if it fell along a line
            return tinit + (total - tfinal - tinit) // 2
        """,
        """
        def half_pruned(total, tinit, tfinal, first, last):  # forgets the quiet start
            for t in range(total):
                left = max(0.0, 1 - t / (total - tfinal))
                if int((first - last) * left**3 + last) <= (first + last) / 2:
                    return t
        """,
        """
        def half_pruned(total, tinit, tfinal, first, last):  # half of the ranks, not of the pruning
            for t in range(total):
                left = max(0.0, 1 - max(0, t - tinit) / (total - tfinal - tinit))
                if int((first - last) * left**3 + last) <= first / 2:
                    return t
        """,
    ],
)
def half_pruned(answer):
    """The step at which half of the pruning is done."""
    for settings in ((1000, 100, 500, 168, 84), (300, 30, 150, 168, 84), (200, 0, 0, 120, 20)):
        total, tinit, tfinal, first, last = settings
        budgets = [rank_budget(t, *settings) for t in range(total)]
        wanted = next(t for t, b in enumerate(budgets) if first - b >= (first - last) / 2)
        got = answer(*settings)
        expect(got is not None, "half_pruned returned None; return a step")
        expect(
            got == wanted,
            f"total {total}, tinit {tinit}, tfinal {tfinal}, from {first} to {last}: {wanted}, you "
            f"said {got}",
        )


@exercise(
    "04.3",
    solution="""
        def surviving_lora(layer):
            kept = layer.lora_E != 0
            return layer.lora_A[kept], layer.lora_B[:, kept] * layer.lora_E[kept]
    """,
    wrong=[
        """
        def surviving_lora(layer):  # E is lost
            kept = layer.lora_E != 0
            return layer.lora_A[kept], layer.lora_B[:, kept]
        """,
        """
        def surviving_lora(layer):  # the pruned ranks are still there
            return layer.lora_A, layer.lora_B * layer.lora_E
        """,
        """
        def surviving_lora(layer):  # only positive E survive
            kept = layer.lora_E > 0
            return layer.lora_A[kept], layer.lora_B[:, kept] * layer.lora_E[kept]
        """,
        """
        def surviving_lora(layer):  # E twice
            kept = layer.lora_E != 0
            E = layer.lora_E[kept]
            return E[:, None] * layer.lora_A[kept], layer.lora_B[:, kept] * E
        """,
    ],
)
def surviving_lora(answer):
    """A plain LoRA of the ranks that AdaLoRA kept."""
    torch.manual_seed(0)
    method = bl.AdaLoRA(r=5, target_r=3, lora_alpha=10)
    layer = bl.attach(nn.Sequential(nn.Linear(7, 9)), method)["0"]
    with torch.no_grad():
        layer.lora_E.copy_(torch.tensor([0.3, 0.0, -0.2, 0.0, 0.7]))
    got = answer(layer)
    expect(got is not None, "surviving_lora returned None; return A and B")
    A, B = got
    expect(A.shape == (3, 7) and B.shape == (9, 3), "three ranks are left: A (3, 7), B (9, 3)")
    expect(
        torch.allclose(layer.scaling * B @ A, layer.delta_weight(), rtol=1e-4, atol=1e-9),
        "scaling * B @ A is not the layer's update: E belongs into A or B, once, and scaling into neither",
    )
