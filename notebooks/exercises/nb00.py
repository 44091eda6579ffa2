"""The exercises of 00_tour."""

import torch

from .common import compare, exercise, number, several


def _importances(count: int) -> list[dict[str, torch.Tensor]]:
    """Drawn: modules of several sizes in no order of the alphabet, whole numbers, each once."""
    drawn = []
    for _ in range(count):
        sizes = torch.randint(2, 6, (4,)).tolist()
        names = [("q", "up", "v", "down")[i] for i in torch.randperm(4)]
        values = (torch.randperm(sum(sizes)) + 1).float().split(sizes)
        drawn.append(dict(zip(names, values)))
    return drawn


@exercise(
    "00.1",
    asked="a name and an index",
    solution="""
        def strongest_rank(importance):
            module = max(importance, key=lambda name: importance[name].max())
            return module, int(importance[module].argmax())
    """,
    right=[
        """
        def strongest_rank(importance):
            best = None
            for name, values in importance.items():
                for index, value in enumerate(values.tolist()):
                    if best is None or value > best[0]:
                        best = value, name, index
            return [best[1], best[2]]
        """,
        """
        def strongest_rank(importance):
            places = [(name, i) for name, values in importance.items() for i in range(len(values))]
            return places[torch.cat(list(importance.values())).argmax()]
        """,
        """
        def strongest_rank(importance):
            name = max(importance, key=lambda name: importance[name].numpy().max())
            return name, importance[name].argmax()
        """,
    ],
    wrong={
        "`max` without a key compares the names.": """
        def strongest_rank(importance):
            module = max(importance)
            return module, int(importance[module].argmax())
        """,
        "This module has the largest mean.": """
        def strongest_rank(importance):
            module = max(importance, key=lambda name: importance[name].mean())
            return module, int(importance[module].argmax())
        """,
        "This module has the largest sum.": """
        def strongest_rank(importance):
            module = max(importance, key=lambda name: importance[name].sum())
            return module, int(importance[module].argmax())
        """,
        "This is always the last module.": """
        def strongest_rank(importance):
            module = list(importance)[-1]
            return module, int(importance[module].argmax())
        """,
        "This is always the first module.": """
        def strongest_rank(importance):
            module = list(importance)[0]
            return module, int(importance[module].argmax())
        """,
        "This index is that of the module's weakest rank.": """
        def strongest_rank(importance):
            module = max(importance, key=lambda name: importance[name].max())
            return module, int(importance[module].argmin())
        """,
        "This index counts the ranks of all modules; count within the module.": """
        def strongest_rank(importance):
            module = max(importance, key=lambda name: importance[name].max())
            return module, int(torch.cat(list(importance.values())).argmax())
        """,
    },
)
def strongest_rank(answer):
    """The module and index of the strongest rank."""

    def truth(importance):
        values = {(n, i): float(v) for n, vs in importance.items() for i, v in enumerate(vs)}
        return max(values, key=values.get)

    def read(got):
        module, index = several(got, 2, "the module's name and the rank's index")
        return module, number(index)

    compare(answer, [{"importance": drawn} for drawn in _importances(12)], truth, read)


@exercise(
    "00.2",
    asked="a number",
    solution="""
        def ranks_for_share(importance, p):
            values = torch.cat(list(importance.values())).sort(descending=True).values
            held = values.cumsum(0)
            return int((held < p * held[-1]).sum()) + 1
    """,
    right=[
        """
        def ranks_for_share(importance, p):
            values = sorted((v for row in importance.values() for v in row.tolist()), reverse=True)
            total, held = sum(values), 0.0
            for count, value in enumerate(values, start=1):
                held += value
                if held >= p * total:
                    return count
        """,
        """
        def ranks_for_share(importance, p):
            values = -torch.cat(list(importance.values())).double().numpy()
            values.sort()
            held = values.cumsum()
            return (held / held[-1] >= p).argmax() + 1
        """,
    ],
    wrong={
        "This is one rank too few: the one that reaches the share counts.": """
        def ranks_for_share(importance, p):
            values = torch.cat(list(importance.values())).sort(descending=True).values
            return int((values.cumsum(0) < p * values.sum()).sum())
        """,
        "A share that is met exactly is enough.": """
        def ranks_for_share(importance, p):
            values = torch.cat(list(importance.values())).sort(descending=True).values
            return int((values.cumsum(0) <= p * values.sum()).sum()) + 1
        """,
        "This begins with the weakest.": """
        def ranks_for_share(importance, p):
            values = torch.cat(list(importance.values())).sort().values
            return int((values.cumsum(0) < p * values.sum()).sum()) + 1
        """,
        "The ranks are not sorted.": """
        def ranks_for_share(importance, p):
            values = torch.cat(list(importance.values()))
            return int((values.cumsum(0) < p * values.sum()).sum()) + 1
        """,
        "This is a share p of the ranks, not of their importance.": """
        def ranks_for_share(importance, p):
            return round(p * sum(len(values) for values in importance.values()))
        """,
        "Take the ranks of all modules together.": """
        def ranks_for_share(importance, p):
            count = 0
            for values in importance.values():
                held = values.sort(descending=True).values.cumsum(0)
                count += int((held < p * held[-1]).sum()) + 1
            return count
        """,
    },
)
def ranks_for_share(answer):
    """How many of the strongest ranks hold a share p of all importance."""
    exact = {"b": torch.tensor([2.0, 5.0]), "a": torch.tensor([1.0, 7.0, 1.0])}  # 16 in all
    met_exactly = [{"importance": exact, "p": p / 16} for p in (12, 14, 15, 16)]
    drawn = [
        {"importance": importance, "p": p}
        for importance in _importances(4)
        for p in (0.113, 0.417, 0.771, 1.0)
    ]

    def truth(importance, p):
        values = sorted((v for row in importance.values() for v in row.tolist()), reverse=True)
        return next(k for k in range(1, 99) if sum(values[:k]) >= p * sum(values))

    compare(answer, drawn + met_exactly, truth, number)
