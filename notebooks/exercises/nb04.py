"""The exercises of 04_rank_budgets."""

import torch
from torch import nn

import beamlora_mini as bl
from beamlora_mini.methods.adalora import rank_budget

from .common import compare, exercise, expect, is_close, number, several, tensor


@exercise(
    "04.1",
    asked="a dictionary",
    solution="""
        def kept_ranks(scores, budget):
            pool = torch.cat(list(scores.values()))
            kept = torch.zeros(len(pool), dtype=torch.bool)
            kept[pool.sort(descending=True, stable=True).indices[:budget]] = True
            parts = kept.split([len(values) for values in scores.values()])
            return {name: int(part.sum()) for name, part in zip(scores, parts)}
    """,
    right=[
        """
        def kept_ranks(scores, budget):
            ranks = [(name, float(s)) for name, values in scores.items() for s in values]
            ranks.sort(key=lambda rank: -rank[1])
            kept = dict.fromkeys(scores, 0.0)
            for name, _ in ranks[:budget]:
                kept[name] += 1
            return kept
        """,
        """
        def kept_ranks(scores, budget):
            values = torch.cat(list(scores.values())).double().numpy()
            best = (-values).argsort(kind="stable")[:budget]
            counts, start = {}, 0
            for name, row in scores.items():
                counts[name] = ((best >= start) & (best < start + len(row))).sum()
                start += len(row)
            return counts
        """,
    ],
    wrong={
        "A threshold that must be exceeded drops ranks that tie.": """
        def kept_ranks(scores, budget):
            values = torch.cat(list(scores.values())).sort(descending=True).values
            limit = values[budget] if budget < len(values) else -1.0
            return {name: int((s > limit).sum()) for name, s in scores.items()}
        """,
        "A threshold that may be met keeps all ranks that tie.": """
        def kept_ranks(scores, budget):
            values = torch.cat(list(scores.values())).sort(descending=True).values
            return {name: int((s >= values[budget - 1]).sum()) for name, s in scores.items()}
        """,
        "The best of all layers stay, not as many in every layer.": """
        def kept_ranks(scores, budget):
            share = budget // len(scores)
            return {name: min(share, len(s)) for name, s in scores.items()}
        """,
        "Ties go to the layer that comes first, not last.": """
        def kept_ranks(scores, budget):
            ranks = [(-float(s), -i, n) for i, (n, row) in enumerate(scores.items()) for s in row]
            best = [name for _, _, name in sorted(ranks)[:budget]]
            return {name: best.count(name) for name in scores}
        """,
        "First means first in the dictionary, not in the alphabet.": """
        def kept_ranks(scores, budget):
            ranks = sorted((-float(s), name) for name, row in scores.items() for s in row)
            best = [name for _, name in ranks[:budget]]
            return {name: best.count(name) for name in scores}
        """,
        "These are the ranks with the lowest scores.": """
        def kept_ranks(scores, budget):
            ranks = [(name, float(s)) for name, values in scores.items() for s in values]
            best = [name for name, _ in sorted(ranks, key=lambda rank: rank[1])[:budget]]
            return {name: best.count(name) for name in scores}
        """,
        "also one that keeps nothing": """
        def kept_ranks(scores, budget):
            ranks = [(name, float(s)) for name, values in scores.items() for s in values]
            best = [name for name, _ in sorted(ranks, key=lambda rank: -rank[1])[:budget]]
            return {name: best.count(name) for name in best}
        """,
    },
)
def kept_ranks(answer):
    """How many ranks each layer keeps when all share a budget."""
    cases = []
    for high in (3, 3, 5, 5, 50, 50):  # low: many ties
        names = [("up", "q", "down")[i] for i in torch.randperm(3)]
        scores = {n: torch.randint(0, high, (int(torch.randint(1, 6, ())),)).float() for n in names}
        total = sum(map(len, scores.values()))
        cases += [{"scores": scores, "budget": b} for b in (total // 2, 1, total)]

    def truth(scores, budget):
        ranks = [(-float(s), i) for i, values in enumerate(scores.values()) for s in values]
        best = [i for _, i in sorted(ranks)[:budget]]
        return {name: best.count(i) for i, name in enumerate(scores)}

    def read(got):
        expect(isinstance(got, dict), f"return a dictionary, not {type(got).__name__}")
        every = set(got) >= {"up", "q", "down"}
        expect(every, "every layer has an entry, also one that keeps nothing")
        return {name: number(count) for name, count in got.items()}

    compare(answer, cases, truth, read)


@exercise(
    "04.2",
    asked="a step",
    solution="""
        def half_pruned(total, tinit, tfinal, first, last):
            for t in range(total):
                fallen = first - rank_budget(t, total, tinit, tfinal, first, last)
                if fallen >= (first - last) / 2:
                    return t
    """,
    right=[
        """
        def half_pruned(total, tinit, tfinal, first, last):
            budgets = [rank_budget(t, total, tinit, tfinal, first, last) for t in range(total)]
            return torch.tensor(sum(2 * b > first + last for b in budgets))
        """,
        """
        def half_pruned(total, tinit, tfinal, first, last):
            for t in range(total):
                left = 1 - min(max(t - tinit, 0) / (total - tinit - tfinal), 1)
                if 2 * math.floor(last + (first - last) * left**3) <= first + last:
                    return float(t)
        """,
    ],
    wrong={
        "It does not fall along a line.": """
        def half_pruned(total, tinit, tfinal, first, last):
            return tinit + (total - tfinal - tinit) // 2
        """,
        "Until `tinit` nothing is pruned.": """
        def half_pruned(total, tinit, tfinal, first, last):
            for t in range(total):
                left = max(0.0, 1 - t / (total - tfinal))
                if int((first - last) * left**3 + last) <= (first + last) / 2:
                    return t
        """,
        "Half of the pruning is not half of the ranks.": """
        def half_pruned(total, tinit, tfinal, first, last):
            for t in range(total):
                if rank_budget(t, total, tinit, tfinal, first, last) <= first / 2:
                    return t
            return total
        """,
        "Exactly half is enough.": """
        def half_pruned(total, tinit, tfinal, first, last):
            for t in range(total):
                fallen = first - rank_budget(t, total, tinit, tfinal, first, last)
                if fallen > (first - last) / 2:
                    return t
        """,
        "This is the last step before.": """
        def half_pruned(total, tinit, tfinal, first, last):
            for t in range(total):
                if first - rank_budget(t + 1, total, tinit, tfinal, first, last) >= (first - last) / 2:
                    return t
        """,
        "At `total - tfinal` the pruning ends.": """
        def half_pruned(total, tinit, tfinal, first, last):
            for t in range(total):
                if first - rank_budget(t, total, tinit, 0, first, last) >= (first - last) / 2:
                    return t
        """,
    },
)
def half_pruned(answer):
    """The step at which half of the pruning is done."""
    cases = [(1000, 100, 500, 168, 84), (300, 30, 150, 168, 84), (200, 0, 0, 120, 20)]
    for tinit, span, tfinal, last, fall in torch.randint(5, 90, (12, 5)).tolist():
        cases.append((tinit + 3 * span + tfinal + 30, tinit, tfinal, last + fall, last))
    names = ("total", "tinit", "tfinal", "first", "last")

    def truth(total, tinit, tfinal, first, last):
        budgets = (rank_budget(t, total, tinit, tfinal, first, last) for t in range(total))
        return next(t for t, b in enumerate(budgets) if 2 * (first - b) >= first - last)

    compare(answer, [dict(zip(names, case)) for case in cases], truth, number)


@exercise(
    "04.3",
    asked="A and B",
    solution="""
        def surviving_lora(layer):
            kept = layer.lora_E != 0
            return layer.lora_A[kept], layer.lora_B[:, kept] * layer.lora_E[kept]
    """,
    right=[
        """
        def surviving_lora(layer):  # E in A, double precision, lists
            kept = [k for k, e in enumerate(layer.lora_E.tolist()) if e]
            A = [(layer.lora_E[k] * layer.lora_A[k]).tolist() for k in kept]
            return [A, layer.lora_B[:, kept].double()]
        """,
        """
        def surviving_lora(layer):  # half of E in each
            kept = layer.lora_E.detach().nonzero().flatten().numpy()
            A, B, E = (p.detach().numpy() for p in (layer.lora_A, layer.lora_B, layer.lora_E))
            root = abs(E[kept]) ** 0.5
            signs = (E[kept] > 0) * 2 - 1
            return A[kept] * root[:, None], B[:, kept] * (signs * root)
        """,
    ],
    wrong={
        "E is missing.": """
        def surviving_lora(layer):
            kept = layer.lora_E != 0
            return layer.lora_A[kept], layer.lora_B[:, kept]
        """,
        "the pruned ranks are still there": """
        def surviving_lora(layer):
            return layer.lora_A, layer.lora_B * layer.lora_E
        """,
        "a negative E survives": """
        def surviving_lora(layer):
            kept = layer.lora_E > 0
            return layer.lora_A[kept], layer.lora_B[:, kept] * layer.lora_E[kept]
        """,
        "E is in both factors.": """
        def surviving_lora(layer):
            kept = layer.lora_E != 0
            E = layer.lora_E[kept]
            return E[:, None] * layer.lora_A[kept], layer.lora_B[:, kept] * E
        """,
        "The scaling belongs into neither.": """
        def surviving_lora(layer):
            kept = layer.lora_E != 0
            E = layer.scaling * layer.lora_E[kept]
            return layer.lora_A[kept], layer.lora_B[:, kept] * E
        """,
        "E's sign is lost.": """
        def surviving_lora(layer):
            kept = layer.lora_E != 0
            return layer.lora_A[kept], layer.lora_B[:, kept] * layer.lora_E[kept].abs()
        """,
    },
)
def surviving_lora(answer):
    """A plain LoRA of the ranks that AdaLoRA kept."""

    def read(got):
        A, B = several(got, 2, "A and B")
        return tensor(A, "A"), tensor(B, "B")

    answer.read = read
    for inputs, outputs, E in ((7, 9, [0.3, 0.0, -0.2, 0.0, 0.7]), (8, 6, [0.0, -1.5, 1e-3, 0.0])):
        method = bl.AdaLoRA(r=len(E), target_r=1, lora_alpha=10)
        layer = bl.attach(nn.Sequential(nn.Linear(inputs, outputs)), method)["0"]
        for p in (layer.lora_A, layer.lora_B):
            nn.init.normal_(p)
        layer.lora_E.data = torch.tensor(E)
        A, B = read(answer(layer=layer))
        k, positive = sum(e != 0 for e in E), sum(e > 0 for e in E)
        shapes, wanted = (tuple(A.shape), tuple(B.shape)), ((k, inputs), (outputs, k))
        reasons = {
            len(E): "; the pruned ranks are still there",
            positive: "; a negative E survives too",
        }
        expect(
            shapes == wanted,
            f"E = {E}: A and B should be of shapes {wanted}, not {shapes}"
            + reasons.get(len(A), ""),
        )
        expect(
            is_close(layer.scaling * B @ A, layer.delta_weight()),
            f"E = {E}: layer.scaling * B @ A is not the layer's update",
        )
