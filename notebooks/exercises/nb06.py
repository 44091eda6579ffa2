"""The exercises of 06_pruning."""

import torch
from torch import nn

import beamlora_mini as bl

from .common import compare, exercise, expect, is_close, number, several, tensor


@exercise(
    "06.1",
    asked="a number",
    solution="""
        def p_for(importance, k):
            ordered = importance.sort(descending=True).values
            return float(ordered[:k].sum() / ordered.sum())
    """,
    right=[
        """
        def p_for(importance, k):
            ordered = sorted(importance.double().tolist())
            return torch.tensor(sum(ordered[-k:]) / sum(ordered))
        """,
        """
        def p_for(importance, k):
            return importance.topk(k).values.double().sum().numpy() / importance.numpy().sum()
        """,
    ],
    wrong={
        "This is a share of the ranks, not of their importance.": """
        def p_for(importance, k):
            return k / len(importance)
        """,
        "The most important come first: sort.": """
        def p_for(importance, k):
            return float(importance[:k].sum() / importance.sum())
        """,
        "A rank is pruned if the sum with it exceeds p.": """
        def p_for(importance, k):
            ordered = importance.sort(descending=True).values
            return float(ordered[: k - 1].sum() / ordered.sum())
        """,
        "This p will do, but a smaller one as well.": """
        def p_for(importance, k):
            ordered = importance.sort(descending=True).values
            return float(ordered[:k].sum() / ordered.sum()) + 1e-3
        """,
        "These are the least important.": """
        def p_for(importance, k):
            ordered = importance.sort().values
            return float(ordered[:k].sum() / ordered.sum())
        """,
        "Divide by the sum of all.": """
        def p_for(importance, k):
            return float(importance.sort(descending=True).values[:k].sum())
        """,
    },
)
def p_for(answer):
    """The smallest share with which top-p keeps k ranks."""
    cases = []
    for values in (
        [1, 8, 2, 4, 17],
        [3, 5, 11, 20, 25],
        [2, 6, 9, 15, 32, 64],
    ):  # powers of 2 in all
        importance = torch.tensor(values).float()[torch.randperm(len(values))]
        cases += [{"importance": importance, "k": k} for k in (1, 2, 4, len(values))]

    def truth(importance, k):
        return sum(sorted(importance.tolist())[-k:]) / sum(importance.tolist())

    compare(answer, cases, truth, number)


@exercise(
    "06.2",
    asked="A, B and lora_alpha",
    solution="""
        def shrink(layer, mask):
            A, B = layer.lora_A[~mask], layer.lora_B[:, ~mask]
            return A, B, layer.scaling * len(A)
    """,
    right=[
        """
        def shrink(layer, mask):
            kept = [k for k, pruned in enumerate(mask) if not pruned]
            A, B = layer.lora_A.double()[kept], layer.lora_B.detach()[:, kept].numpy()
            return [A.tolist(), B, torch.tensor(layer.scaling * len(kept))]
        """,
        """
        def shrink(layer, mask):  # the scaling moves into B
            kept = (~mask).nonzero().flatten()
            return layer.lora_A[kept], layer.scaling * layer.lora_B[:, kept], len(kept)
        """,
    ],
    wrong={
        "This lora_alpha is the old one.": """
        def shrink(layer, mask):
            A = layer.lora_A[~mask]
            return A, layer.lora_B[:, ~mask], layer.scaling * len(layer.lora_A)
        """,
        "This lora_alpha is half of the old one, however many ranks are left.": """
        def shrink(layer, mask):
            alpha = layer.scaling * len(layer.lora_A)
            return layer.lora_A[~mask], layer.lora_B[:, ~mask], alpha / 2
        """,
        "This lora_alpha is always 4.": """
        def shrink(layer, mask):
            return layer.lora_A[~mask], layer.lora_B[:, ~mask], 4.0
        """,
        "This is the scaling, lora_alpha / r, not lora_alpha.": """
        def shrink(layer, mask):
            return layer.lora_A[~mask], layer.lora_B[:, ~mask], layer.scaling
        """,
        "These are the ranks in the mask, which are to go.": """
        def shrink(layer, mask):
            A, B = layer.lora_A[mask], layer.lora_B[:, mask]
            return A, B, layer.scaling * len(A)
        """,
        "The pruned ranks are zero, but still there.": """
        def shrink(layer, mask):
            A, B = layer.lora_A * ~mask[:, None], layer.lora_B * ~mask
            return A, B, layer.scaling * len(A)
        """,
        "you changed the input `layer`": """
        def shrink(layer, mask):
            A, B = layer.lora_A[~mask], layer.lora_B[:, ~mask]
            layer.lora_B.data[:, mask] = 0
            return A, B, layer.scaling * len(A)
        """,
        "you changed the input `mask`": """
        def shrink(layer, mask):
            mask.logical_not_()
            A, B = layer.lora_A[mask], layer.lora_B[:, mask]
            return A, B, layer.scaling * len(A)
        """,
    },
)
def shrink(answer):
    """The A, B and lora_alpha of a layer without the pruned ranks."""

    def read(got):
        A, B, lora_alpha = several(got, 3, "A, B and lora_alpha")
        return tensor(A, "A"), tensor(B, "B"), number(lora_alpha)

    answer.read = read
    for inputs, outputs, alpha, pruned in (
        (6, 5, 9, "1001000"),
        (4, 7, 8, "0110"),
        (5, 6, 7, "00100"),
    ):
        method = bl.LoRA(r=len(pruned), lora_alpha=alpha)
        layer = bl.attach(nn.Sequential(nn.Linear(inputs, outputs)), method)["0"]
        nn.init.normal_(layer.lora_B)
        mask = torch.tensor([digit == "1" for digit in pruned])
        A, B, lora_alpha = read(answer(layer=layer, mask=mask))
        k = int((~mask).sum())
        shapes, wanted = (tuple(A.shape), tuple(B.shape)), ((k, inputs), (outputs, k))
        given = f"mask={mask.int().tolist()}, lora_alpha={alpha}"
        expect(shapes == wanted, f"{given}: A and B should be of shapes {wanted}, not {shapes}")
        update = layer.scaling * layer.lora_B[:, ~mask] @ layer.lora_A[~mask]
        expect(
            is_close(lora_alpha / k * B @ A, update),
            f"{given}: with your lora_alpha of {lora_alpha:.4g}, lora_alpha / {k} * B @ A is not what "
            "the other ranks added",
        )


@exercise(
    "06.3",
    asked="a dict of masks, one for each layer",
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
    right=[
        """
        def top_k_with_a_floor(importances, total):
            ranks = [(name, i) for name, values in importances.items() for i in range(len(values))]
            ranks.sort(key=lambda rank: -float(importances[rank[0]][rank[1]]))
            kept = {(name, int(values.argmax())) for name, values in importances.items()}
            for rank in ranks:
                if len(kept) < total:
                    kept.add(rank)
            return {n: [int((n, i) not in kept) for i in range(len(v))] for n, v in importances.items()}
        """,
        """
        def top_k_with_a_floor(importances, total):
            rest = torch.cat([v.sort().values[:-1] for v in importances.values()])
            rest = rest.sort(descending=True).values.tolist() + [0.0]
            limit = rest[total - len(importances)]
            return {
                name: ((v <= limit) & (v < v.max())).numpy() for name, v in importances.items()
            }
        """,
    ],
    wrong={
        "This leaves a layer empty.": """
        def top_k_with_a_floor(importances, total):
            pool = torch.cat(list(importances.values())).sort(descending=True).values
            return {name: values < pool[total - 1] for name, values in importances.items()}
        """,
        "The strongest of each layer are part of the total, not on top of it.": """
        def top_k_with_a_floor(importances, total):
            pool = torch.cat(list(importances.values())).sort(descending=True).values
            masks = {name: values < pool[total - 1] for name, values in importances.items()}
            for name, values in importances.items():
                masks[name][values.argmax()] = False
            return masks
        """,
        "True means pruned.": """
        def top_k_with_a_floor(importances, total):
            raised = {name: values.clone() for name, values in importances.items()}
            for values in raised.values():
                values[values.argmax()] = float("inf")
            pool = torch.cat(list(raised.values())).sort(descending=True).values
            return {name: values >= pool[total - 1] for name, values in raised.items()}
        """,
        "This keeps one rank fewer.": """
        def top_k_with_a_floor(importances, total):
            raised = {name: values.clone() for name, values in importances.items()}
            for values in raised.values():
                values[values.argmax()] = float("inf")
            pool = torch.cat(list(raised.values())).sort(descending=True).values
            return {name: values <= pool[total - 1] for name, values in raised.items()}
        """,
        "This keeps the strongest of each layer and nothing else.": """
        def top_k_with_a_floor(importances, total):
            return {name: values < values.max() for name, values in importances.items()}
        """,
        "you changed the input `importances`": """
        def top_k_with_a_floor(importances, total):
            for values in importances.values():
                values[values.argmax()] = float("inf")
            pool = torch.cat(list(importances.values())).sort(descending=True).values
            return {name: values < pool[total - 1] for name, values in importances.items()}
        """,
    },
)
def top_k_with_a_floor(answer):
    """Global top-k that leaves each layer its strongest rank."""
    cases = []
    for sizes in ((3, 2, 4), (2, 5, 3), (4, 3, 1)):
        order = torch.arange(sum(sizes)).float() + 1  # the first layer is weakest throughout
        parts = [part[torch.randperm(len(part))] for part in order.split(sizes)]
        mixed = torch.cat(parts[1:])[torch.randperm(sum(sizes[1:]))].split(sizes[1:])
        importances = dict(zip(("v", "up", "q"), (parts[0], *mixed)))
        cases += [{"importances": importances, "total": t} for t in (4, 3, 5, sum(sizes) - 1)]

    def truth(importances, total):
        best = {name: float(values.max()) for name, values in importances.items()}
        rest = [v for n, row in importances.items() for v in row.tolist() if v != best[n]]
        kept = {*best.values(), *sorted(rest, reverse=True)[: total - len(best)]}
        return {n: [v not in kept for v in row.tolist()] for n, row in importances.items()}

    def read(got):
        expect(isinstance(got, dict), "return a dict of masks, one for each layer")
        every = set(got) == {"v", "up", "q"}
        expect(every, f"there should be a mask for each of v, up and q, you gave {list(got)}")
        return {name: [bool(pruned) for pruned in got[name]] for name in ("v", "up", "q")}

    compare(answer, cases, truth, read)
