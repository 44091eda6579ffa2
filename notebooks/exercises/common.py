"""What the exercises share: how one is put together, and what its checker needs.

Each file nbNN.py holds the exercises of notebook NN, which imports it as `check`. Solution, right
and wrong answers are code to put in place of the notebook's stub, and may use what its first cell
imports. The notebook shows the same solution; tests try it, the stub and every other answer.
"""

from __future__ import annotations

import copy
import math
import tracemalloc
from collections.abc import Callable, Iterable
from functools import update_wrapper
from inspect import cleandoc

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from beamlora_mini.methods.adalora import rank_budget


class Exercise:
    """A checker that knows the official solution, others as right, and plausible wrong answers.

    Called with the reader's answer, it prints what it found and returns whether the answer is
    right. One that is still a stub, or that raises, is wrong like any other: the notebook goes on.
    An answer that returns what one of the wrong answers returns is told what is wrong with that one.
    """

    def __init__(
        self,
        examine: Callable[[object], None],
        number: str,
        asked: str,
        solution: str,
        right: list[str],
        wrong: dict[str, str],
    ):
        update_wrapper(self, examine)
        self.examine = examine
        self.number = number
        self.asked = asked
        self.solution = cleandoc(solution) + "\n"
        self.right = [cleandoc(answer) + "\n" for answer in right]
        self.wrong = {words: cleandoc(answer) + "\n" for words, answer in wrong.items()}

    def __call__(self, answer: object) -> bool:
        attempt = Attempt(answer, self.__name__, self.asked) if callable(answer) else answer
        try:
            wants_function = f"def {self.__name__}(" in self.solution
            expect(
                callable(answer) or not wants_function,
                f"{self.__name__} is {answer}, no function; fill in the `def`",
            )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.examine(attempt)
        except _Wrong as wrong:
            hint = self._mistake(attempt) if wrong.by_value else None
            print(f"not yet: {wrong}" + (f". {hint}" if hint and hint not in str(wrong) else ""))
            return False
        except Exception as error:
            print(f"not yet: your code raised {type(error).__name__}: {error}")
            return False
        print("right!")
        return True

    def _mistake(self, attempt: object) -> str | None:
        """What is wrong with the wrong answer that returns what this attempt returned, if one does."""
        if not isinstance(attempt, Attempt) or not attempt.tried:
            return None
        for words, code in self.wrong.items():
            names = {"torch": torch, "math": math, "rank_budget": rank_budget}
            exec(code, names)  # noqa: S102
            try:
                for inputs, got in attempt.tried:
                    theirs = names[self.__name__](*copy.deepcopy(inputs).values())
                    if not is_same(attempt.read(got), attempt.read(theirs)):
                        break
                else:
                    return words
            except Exception:  # noqa: S112, this one does not know such an input
                continue
        return None


def exercise(
    number: str,
    *,
    solution: str,
    wrong: dict[str, str],
    right: Iterable[str] = (),
    asked: str = "",
) -> Callable[[Callable[[object], None]], Exercise]:
    """Makes an Exercise of the function below, which examines an answer with `expect` and `compare`.

    number: as in the notebook's heading, such as "00.1". solution: the official one. right: answers
    in another style that must pass. wrong: answers that a reader might well give and that must not,
    each under words of the message that is its own. asked: what a function must return; empty if
    None is a right answer too. An answer that is a function comes as an `Attempt`. Code may be
    indented.
    """
    return lambda examine: Exercise(examine, number, asked, solution, list(right), wrong)


class _Wrong(Exception):
    """What is wrong with an answer, in words that help. by_value: it lies in what was returned."""

    def __init__(self, words: str, by_value: bool = True):
        super().__init__(words)
        self.by_value = by_value


def expect(condition: bool, otherwise: str) -> None:
    """The answer is wrong unless `condition` holds; `otherwise` tells the reader why."""
    if not condition:
        raise _Wrong(otherwise)


class Attempt:
    """A reader's function at work: notes what it returned, and notices what it changed.

    It is called by position, with copies, so the inputs are the checker's own. tried: the pairs of
    inputs and result so far. read: see `compare`.
    """

    def __init__(self, function: Callable, name: str, asked: str):
        self.function, self.name, self.asked = function, name, asked
        self.tried = []
        self.read = lambda got: got

    def __call__(self, **inputs):
        given = copy.deepcopy(inputs)
        got = self.function(*given.values())
        if isinstance(got, Iterable) and not hasattr(got, "__len__"):
            got = list(got)  # a generator can be read once
        self.tried.append((inputs, got))
        if got is ...:
            asked = self.asked or "what the text asks for"
            raise _Wrong(f"{self.name} still returns `...`; return {asked}", by_value=False)
        if got is None and self.asked:
            raise _Wrong(f"{self.name} returned None; return {self.asked}", by_value=False)
        for name, value in inputs.items():
            if not _is_unchanged(given[name], value):
                raise _Wrong(f"you changed the input `{name}`; work on a copy", by_value=False)
        return got


def compare(
    attempt: Attempt,
    cases: list[dict],
    truth: Callable,
    read: Callable[[object], object],
) -> None:
    """Compares an answer with `truth` on all cases, dictionaries from an input's name to its value.

    read: makes something comparable of what was returned, or says with `expect` why it cannot.
    """
    attempt.read = read
    first = None
    for inputs in cases:
        got = read(attempt(**inputs))
        wanted = read(truth(*copy.deepcopy(inputs).values()))
        if first is None and not is_same(got, wanted):
            given = ", ".join(f"{name}={show(value)}" for name, value in inputs.items())
            first = f"for {given} " + _difference(got, wanted)
    expect(first is None, first or "")


def _difference(got: object, wanted: object) -> str:
    """What was expected and what came: of two tensors of one shape, where they differ most."""
    what = "it"
    if isinstance(wanted, torch.Tensor) and got.shape == wanted.shape:
        place = tuple(map(int, torch.unravel_index((got - wanted).abs().argmax(), wanted.shape)))
        what = f"entry {list(place)}"
        got, wanted = float(got[place]), float(wanted[place])
    return f"{what} should be {show(wanted)}, you said {show(got)}"


def number(got: object) -> float:
    """A number of any kind, a tensor or array of one entry included."""
    try:
        return float(got.detach() if isinstance(got, torch.Tensor) else got)
    except (TypeError, ValueError):
        raise _Wrong(f"return a number, not {type(got).__name__}") from None


def tensor(got: object, words: str) -> torch.Tensor:
    """Numbers of any kind, as double precision: a tensor, an array, nested lists."""
    try:
        if isinstance(got, (list, tuple)) and any(isinstance(g, torch.Tensor) for g in got):
            got = torch.stack([torch.as_tensor(g) for g in got])
        return torch.as_tensor(np.asarray(got) if isinstance(got, list) else got).detach().double()
    except (TypeError, ValueError, RuntimeError):
        raise _Wrong(f"{words} should be a tensor, not {type(got).__name__}") from None


def several(got: object, count: int, words: str) -> list:
    """The parts of a result of `count` parts."""
    sized = hasattr(got, "__len__") and not isinstance(got, (str, dict))
    expect(
        sized and len(got) == count,
        f"return {count} things: {words}; you returned {type(got).__name__}"
        + (f" of {len(got)}" if sized else ""),
    )
    return list(got)


def is_close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether a has b's shape and values, up to rounding, whatever the precision."""
    a, b = a.detach().double(), b.detach().double()
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def is_same(a: object, b: object) -> bool:
    """Whether two results are the same, up to rounding; containers entry by entry."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return is_close(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(is_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(is_same, a, b))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-7)
    return type(a) is type(b) and a == b


def _is_unchanged(now: object, before: object) -> bool:
    if isinstance(before, nn.Module):
        entries = [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (now, before)]
        scalings = [getattr(m, "scaling", None) for m in (now, before)]
        return scalings[0] == scalings[1] and _is_unchanged(*entries)
    if isinstance(before, torch.Tensor):
        return now.dtype == before.dtype and torch.equal(now, before)
    if isinstance(before, dict):
        return list(now) == list(before) and all(_is_unchanged(now[k], before[k]) for k in before)
    if isinstance(before, (list, tuple)):
        return len(now) == len(before) and all(map(_is_unchanged, now, before))
    return now == before


def show(value: object) -> str:
    """A value as a message names it: short, numbers with four digits."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name!r}: {show(part)}" for name, part in value.items()) + "}"
    if isinstance(value, torch.Tensor):
        few = value.numel() <= 16
        return show(value.tolist()) if few else f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        left, right = "[]" if isinstance(value, list) else "()"
        return left + ", ".join(map(show, value)) + right
    if isinstance(value, nn.Module):
        return "a layer"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


class watch_products(TorchDispatchMode):
    """Notices when small tensors are multiplied or spread out into one of `size` entries or more.

    how: empty until that has happened, then how it was seen: a tensor, or the memory that NumPy and
    Python take if `of_memory`. Tensors that large may be handed in, and worked on entry by entry.
    """

    def __init__(self, size: int, of_memory: bool = True):
        super().__init__()
        self.size, self.of_memory, self.how = size, of_memory, ""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        got = operator(*args, **(kwargs or {}))
        large = isinstance(got, torch.Tensor) and got.numel() >= self.size
        parts = [part for a in args for part in (a if isinstance(a, (list, tuple)) else [a])]
        given = [part.numel() for part in parts if isinstance(part, torch.Tensor)]
        added = operator.overloadpacket.__name__ in ("addmm", "addmm_", "addr", "baddbmm")
        if large and (added or max(given, default=0) < self.size):
            self.how = f"a product of shape {tuple(got.shape)}"
        return got

    def __enter__(self):
        if self.of_memory:
            tracemalloc.start()
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        if self.of_memory:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if peak >= 4 * self.size:  # as many float32
                self.how = self.how or f"its memory, {peak / 1e6:.0f} MB, gives it away"
