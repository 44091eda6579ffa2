"""The exercises of 06_pruning."""

import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini import ranks

from .common import exercise, expect, is_close


@exercise(
    "06.1",
    solution="""
        def p_for(importance, k):
            ordered = importance.sort(descending=True).values
            return float(ordered[:k].sum() / ordered.sum())
    """,
    wrong=[
        """
        def p_for(importance, k):
            return k / len(importance)
        """,
        """
        def p_for(importance, k):  # forgets to sort
            return float(importance[:k].sum() / importance.sum())
        """,
        """
        def p_for(importance, k):  # as if the rank that exceeds p were kept
            ordered = importance.sort(descending=True).values
            return float(ordered[: k - 1].sum() / ordered.sum()) + 1e-6
        """,
        """
        def p_for(importance, k):  # enough, but not the smallest
            ordered = importance.sort(descending=True).values
            return float(ordered[:k].sum() / ordered.sum()) + 1e-3
        """,
    ],
)
def p_for(answer):
    """The smallest share with which top-p keeps k ranks."""
    importance = torch.tensor([1.0, 8.0, 2.0, 4.0, 17.0])  # sums that floats hold exactly
    for k, wanted in ((1, 17 / 32), (2, 25 / 32), (4, 31 / 32)):
        got = answer(importance, k)
        expect(got is not None, "p_for returned None; return a number")
        mask = ranks.top_p_mask({"layer": importance}, got)["layer"]
        kept = int((~mask).sum())
        expect(kept == k, f"k={k}: with p={got:.4f}, {kept} ranks are kept")
        expect(abs(got - wanted) < 1e-6, f"k={k}: p={got:.4f} will do, but a smaller one as well")


@exercise(
    "06.2",
    solution="""
        def shrink(layer, mask):
            A, B = layer.lora_A[~mask], layer.lora_B[:, ~mask]
            return A, B, layer.scaling * len(A)
    """,
    wrong=[
        """
        def shrink(layer, mask):  # the old lora_alpha over the new r
            return layer.lora_A[~mask], layer.lora_B[:, ~mask], 8
        """,
        """
        def shrink(layer, mask):  # keeps the pruned ones
            A, B = layer.lora_A[mask], layer.lora_B[:, mask]
            return A, B, layer.scaling * len(A)
        """,
        """
        def shrink(layer, mask):  # zeros take part as before
            return layer.lora_A * ~mask[:, None], layer.lora_B * ~mask, 8
        """,
    ],
)
def shrink(answer):
    """The A, B and lora_alpha of a layer without the pruned ranks."""
    torch.manual_seed(0)
    layer = bl.attach(nn.Sequential(nn.Linear(6, 5)), bl.LoRA(r=4, lora_alpha=8))["0"]
    nn.init.normal_(layer.lora_B)
    mask = torch.tensor([True, False, False, True])
    got = answer(layer, mask)
    expect(got is not None, "shrink returned None; return A, B and lora_alpha")
    A, B, lora_alpha = got
    expect(A.shape == (2, 6) and B.shape == (5, 2), "A should be (2, 6) and B (5, 2) here")
    expect(layer.lora_A.shape == (4, 6), "the layer that was handed in has changed")
    wanted = layer.scaling * layer.lora_B[:, ~mask] @ layer.lora_A[~mask]
    expect(is_close(lora_alpha / 2 * B @ A, wanted), "the update has another size than before")


@exercise(
    "06.3",
    solution="""
        def top_k_with_a_floor(importances, total):
            raised = {}
            for name, values in importances.items():
                raised[name] = values.clone()
                raised[name][values.argmax()] = float("inf")
            pool = torch.cat(list(raised.values()))
            threshold = pool.sort(descending=True).values[total - 1]
            return {name: values < threshold for name, values in raised.items()}
    """,
    wrong=[
        """
        def top_k_with_a_floor(importances, total):  # no floor
            pool = torch.cat(list(importances.values())).sort(descending=True).values
            return {name: values < pool[total - 1] for name, values in importances.items()}
        """,
        """
        def top_k_with_a_floor(importances, total):  # a floor on top: one too many
            pool = torch.cat(list(importances.values())).sort(descending=True).values
            masks = {name: values < pool[total - 1] for name, values in importances.items()}
            for name, values in importances.items():
                masks[name][values.argmax()] = False
            return masks
        """,
        """
        def top_k_with_a_floor(importances, total):  # overwrites what it was given
            for values in importances.values():
                values[values.argmax()] = float("inf")
            pool = torch.cat(list(importances.values())).sort(descending=True).values
            return {name: values < pool[total - 1] for name, values in importances.items()}
        """,
    ],
)
def top_k_with_a_floor(answer):
    """Global top-k that leaves each layer its strongest rank."""
    importances = {
        "a": torch.tensor([9.0, 3.0, 8.0]),
        "b": torch.tensor([0.1, 0.2, 0.3]),
        "c": torch.tensor([5.0, 7.0, 4.0]),
    }
    given = {name: values.clone() for name, values in importances.items()}
    for total, kept in ((3, "a0 b2 c1"), (5, "a0 a2 b2 c0 c1"), (7, "a0 a1 a2 b2 c0 c1 c2")):
        got = answer(importances, total)
        expect(isinstance(got, dict), "return a dict of masks, one for each layer")
        left = " ".join(f"{n}{i}" for n, m in got.items() for i in range(len(m)) if not m[i])
        expect(left == kept, f"total={total}: kept should be {kept}, with you it is {left}")
    same = all(torch.equal(importances[name], given[name]) for name in given)
    expect(same, "the importances that were handed in have changed")
