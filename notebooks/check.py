"""The checkers of the exercises: `import check`, then call the one that the exercise names.

Each takes the reader's answer, prints what it found, and returns whether the answer is right. An
answer that is still a stub, or that raises, is wrong like any other: the notebook goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch


class _Wrong(Exception):
    """What is wrong with an answer, in words that help."""


def _checker(examine: Callable[[object], None]) -> Callable[[object], bool]:
    @wraps(examine)
    def check(answer: object) -> bool:
        try:
            examine(answer)
        except _Wrong as wrong:
            print(f"not yet: {wrong}")
            return False
        except Exception as error:
            print(f"not yet: your code raised {type(error).__name__}: {error}")
            return False
        print("right!")
        return True

    return check


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _Wrong(otherwise)


@_checker
def strongest_rank(answer):
    """00.1: the module and index of the strongest rank."""
    importance = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([0.5, 2.0, 4.0, 1.0])}
    got = answer(importance)
    _expect(got is not None, "strongest_rank returned None; return a name and an index")
    _expect(len(got) == 2, "return two things: the module's name and the rank's index")
    _expect(got[0] == "b", f"the strongest rank has importance 4.0; you said it is in {got[0]!r}")
    _expect(int(got[1]) == 2, f"in module 'b' it is the rank of index 2, you said {got[1]}")


@_checker
def ranks_for_share(answer):
    """00.2: how many of the strongest ranks hold a share p of all importance."""
    importance = {"a": torch.tensor([1.0, 4.0]), "b": torch.tensor([2.0, 1.0])}
    for p, wanted in ((0.4, 1), (0.6, 2), (0.8, 3), (0.99, 4)):
        got = answer(importance, p)
        _expect(got is not None, "ranks_for_share returned None; return a number")
        _expect(got == wanted, f"importances 4, 2, 1, 1 and p={p}: {wanted} ranks, you said {got}")
