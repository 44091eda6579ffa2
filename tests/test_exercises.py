"""Beside each checker: right answers in another style, wrong ones, and mutants of its solution."""

import re

import pytest
import torch

from tests.mutants import mutants
from tests.test_notebooks import SHOWN, every_exercise

# Mutants that are right as well: {(number, change): reason}.
EQUIVALENT = {
    ("00.2", "0 -> -1"): "the only axis of a vector is its last",
    ("02.1", "0 -> -1"): "the only axis of a vector is its last",
    ("02.2", "False -> True"): "the slice leaves out what full matrices have more",
    (
        "02.2",
        "torch.linalg.svd(weight, full_matrices=False) -> torch.linalg.svd(weight)",
    ): "the slice leaves out what full matrices have more",
    ("03.1", "0 -> -1"): "a row's square falls below 0 by rounding only, never in a row of zeros",
    (
        "03.2",
        "min(rounds * r, outputs, inputs) -> min(rounds * r, inputs, outputs)",
    ): "min knows no order",
    (
        "03.2",
        "min(rounds * r, outputs, inputs) -> min(outputs, rounds * r, inputs)",
    ): "min knows no order",
    ("04.1", "True -> False"): "on a CPU torch's other sort is stable as well",
    (
        "04.1",
        "pool.sort(descending=True, stable=True) -> pool.sort(descending=True)",
    ): "on a CPU torch's other sort is stable as well",
    (
        "04.1",
        "torch.zeros(len(pool), dtype=torch.bool) -> torch.zeros(len(pool))",
    ): "ones and zeros count like True and False",
    ("05.3", "0 -> -1"): "the square of an exact mirror image is 0 without rounding",
    (
        "07.3",
        "g.bincount(minlength=len(A)) -> g.bincount()",
    ): "g picks counts of its own entries only",
    ("09.1", "min(step - 1, end_step) -> min(end_step, step - 1)"): "min knows no order",
}


def verdict(exercise, answer: str, capfd) -> tuple[bool, str]:
    capfd.readouterr()
    right = exercise.verdict(answer)
    out, err = capfd.readouterr()
    assert err == ""
    return right, out


@every_exercise
def test_right_answers_pass_and_nothing_else_is_printed(exercise, capfd):
    for answer in [exercise.held.solution, *exercise.held.right]:
        assert verdict(exercise, answer, capfd) == (True, "right!\n"), answer


@every_exercise
def test_wrong_answers_fail_each_with_words_of_its_own(exercise, capfd):
    assert len(exercise.held.wrong) >= 3
    for words, answer in exercise.held.wrong.items():
        right, said = verdict(exercise, answer, capfd)
        assert not right, answer
        assert re.fullmatch(r"not yet: [^\n]+\n", said), said
        found = [other for other in exercise.held.wrong if other in said]
        assert found == [words], said


@every_exercise
def test_mutants_of_the_solution_fail(exercise, capfd):
    passed = [change for change, code in mutants(exercise.held.solution) if exercise.verdict(code)]
    known = [change for number, change in EQUIVALENT if number == exercise.number]
    assert sorted(passed) == sorted(known)
    assert all(EQUIVALENT.values()), "each says why it is right"


@every_exercise
def test_what_is_still_open_gets_a_friendly_line(exercise, capfd):
    name = exercise.held.__name__
    for value in ("None", "..."):
        for stub in (f"{name} = {value}", f"def {name}(*inputs, **more): return {value}"):
            right, said = verdict(exercise, stub, capfd)
            assert not right
            assert re.fullmatch(r"not yet: [^\n]+\n", said) and "raised" not in said, said


@every_exercise
def test_checker_leaves_the_readers_random_numbers_alone(exercise):
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    exercise.verdict(exercise.held.solution)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("seed", range(200))
def test_all_importance_is_held_by_no_more_than_all_ranks(seed):
    (exercise,) = [e.held for e in SHOWN if e.number == "00.2"]
    names = {"torch": torch}
    exec(exercise.solution, names)
    generator = torch.Generator().manual_seed(seed)
    importance = {n: torch.rand(8, generator=generator) + 0.01 for n in ("q", "v", "up", "down")}
    assert names["ranks_for_share"](importance, 1.0) <= 32
