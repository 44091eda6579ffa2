"""What the exercises share: how one is put together, and what its checker needs.

Each file nbNN.py holds the exercises of notebook NN, which imports it as `check`. Solution and
wrong answers are code to put in place of the notebook's stub, and may use what its first cell
imports. The notebook shows the same solution; tests try it, the stub and every wrong answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from inspect import cleandoc

import torch


class Exercise:
    """A checker that knows the official solution and plausible wrong answers.

    Called with the reader's answer, it prints what it found and returns whether the answer is
    right. One that is still a stub, or that raises, is wrong like any other: the notebook goes on.
    """

    def __init__(
        self, examine: Callable[[object], None], number: str, solution: str, wrong: list[str]
    ):
        update_wrapper(self, examine)
        self.examine = examine
        self.number = number
        self.solution = cleandoc(solution) + "\n"
        self.wrong = [cleandoc(answer) + "\n" for answer in wrong]

    def __call__(self, answer: object) -> bool:
        try:
            self.examine(answer)
        except _Wrong as wrong:
            print(f"not yet: {wrong}")
            return False
        except Exception as error:
            print(f"not yet: your code raised {type(error).__name__}: {error}")
            return False
        print("right!")
        return True


def exercise(
    number: str, *, solution: str, wrong: list[str]
) -> Callable[[Callable[[object], None]], Exercise]:
    """Makes an Exercise of the function below, which examines an answer with `expect`.

    number: as in the notebook's heading, such as "00.1". solution: the official one. wrong: answers
    that a reader might well give and that the checker must turn down. Code may be indented.
    """
    return lambda examine: Exercise(examine, number, solution, wrong)


class _Wrong(Exception):
    """What is wrong with an answer, in words that help."""


def expect(condition: bool, otherwise: str) -> None:
    """The answer is wrong unless `condition` holds; `otherwise` tells the reader why."""
    if not condition:
        raise _Wrong(otherwise)


def is_close(a: object, b: torch.Tensor) -> bool:
    """Whether a is a tensor of b's shape with b's values, up to rounding."""
    return isinstance(a, torch.Tensor) and a.shape == b.shape and torch.allclose(a, b, atol=1e-5)
