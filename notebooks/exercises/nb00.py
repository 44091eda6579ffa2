"""The exercises of 00_tour."""

import torch

from .common import exercise, expect


@exercise(
    "00.1",
    solution="""
        def strongest_rank(importance):
            module = max(importance, key=lambda name: importance[name].max())
            return module, int(importance[module].argmax())
    """,
    wrong=[
        """
        def strongest_rank(importance):
            return 'b'
        """,
        """
        def strongest_rank(importance):
            return 'a', 1
        """,
        """
        def strongest_rank(importance):  # the strongest module in all
            module = max(importance, key=lambda name: importance[name].mean())
            return module, int(importance[module].argmax())
        """,
        """
        def strongest_rank(importance):
            module = max(importance, key=lambda name: importance[name].max())
            return module, int(importance[module].argmin())
        """,
    ],
)
def strongest_rank(answer):
    """The module and index of the strongest rank."""
    importance = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([0.5, 2.0, 4.0, 1.0])}
    got = answer(importance)
    expect(got is not None, "strongest_rank returned None; return a name and an index")
    expect(len(got) == 2, "return two things: the module's name and the rank's index")
    expect(got[0] == "b", f"the strongest rank has importance 4.0; you said it is in {got[0]!r}")
    expect(int(got[1]) == 2, f"in module 'b' it is the rank of index 2, you said {got[1]}")


@exercise(
    "00.2",
    solution="""
        def ranks_for_share(importance, p):
            values = torch.cat(list(importance.values())).sort(descending=True).values
            return int((values.cumsum(0) < p * values.sum()).sum()) + 1
    """,
    wrong=[
        """
        def ranks_for_share(importance, p):  # one too few
            values = torch.cat(list(importance.values())).sort(descending=True).values
            return int((values.cumsum(0) < p * values.sum()).sum())
        """,
        """
        def ranks_for_share(importance, p):  # the weakest first
            values = torch.cat(list(importance.values())).sort().values
            return int((values.cumsum(0) < p * values.sum()).sum()) + 1
        """,
        """
        def ranks_for_share(importance, p):
            return round(p * 4)
        """,
    ],
)
def ranks_for_share(answer):
    """How many of the strongest ranks hold a share p of all importance."""
    importance = {"a": torch.tensor([1.0, 4.0]), "b": torch.tensor([2.0, 1.0])}
    for p, wanted in ((0.4, 1), (0.6, 2), (0.8, 3), (0.99, 4)):
        got = answer(importance, p)
        expect(got is not None, "ranks_for_share returned None; return a number")
        expect(got == wanted, f"importances 4, 2, 1, 1 and p={p}: {wanted} ranks, you said {got}")
