"""The shipped files are what `tools/build_data.py` makes, and their answers are right."""

import hashlib
import re
import subprocess
import sys

import pytest
from tiny_tasks import FINE_TUNING_TASKS
from transformers import AutoTokenizer
from word_problems import load_templates

from tests.shipped import (
    BUILD_DATA,
    DATA,
    LETTERS,
    SPLITS,
    problem_rows,
    read_rows,
    shift,
    task_rows,
)


def test_rebuilding_gives_the_same_bytes(tmp_path):
    command = [sys.executable, BUILD_DATA, "tasks", "word_problems", "--folder", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    for part in ("tasks", "word_problems"):
        rebuilt = {path.name: path.read_bytes() for path in (tmp_path / part).iterdir()}
        shipped = {path.name: path.read_bytes() for path in (DATA / part).glob("*.jsonl")}
        assert rebuilt.keys() == shipped.keys()
        assert [name for name in shipped if rebuilt[name] != shipped[name]] == []


def test_build_names_an_unknown_part():
    command = [sys.executable, BUILD_DATA, "taks"]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 2
    assert "'taks'" in run.stderr and "word_problems" in run.stderr


def test_checksums_match_and_name_every_file():
    lines = (DATA / "checksums.sha256").read_text(encoding="utf-8").splitlines()
    stated = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = [
        path for part in ("tasks", "tiny", "word_problems") for path in (DATA / part).iterdir()
    ]
    made = {path.relative_to(DATA).as_posix(): path for path in files if path.suffix != ".txt"}
    assert stated.keys() == made.keys()
    for name, path in made.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == stated[name], name


def test_sizes():
    assert (DATA / "tiny" / "model.safetensors").stat().st_size < 4_000_000
    assert sum(path.stat().st_size for path in (DATA / "tasks").iterdir()) < 2_000_000
    assert len(FINE_TUNING_TASKS) >= 6
    for task in FINE_TUNING_TASKS:
        assert len(task_rows(task, "test")) == 500
    assert len(read_rows(DATA / "word_problems" / "train.jsonl")) == 4000
    assert len(read_rows(DATA / "word_problems" / "test.jsonl")) == 500


def cipher_tables() -> dict[str, dict[str, str]]:
    """What the training rows say about each cipher: letter by letter, and without contradiction."""
    tables = {}
    for row in task_rows("ciphers", "train"):
        _, number, text = row["prompt"].rstrip("=").split()
        table = tables.setdefault(number, {})
        for letter, substitute in zip(text, row["answer"], strict=True):
            assert table.setdefault(letter, substitute) == substitute
    return tables


def in_base_seven(number: int) -> str:
    digits = [str(number // 7**power % 7) for power in (2, 1, 0)]
    return "".join(digits).lstrip("0") or "0"


def solve(task: str, prompt: str) -> str:
    """The answer to a fine-tuning prompt, computed from its text alone."""
    argument = re.fullmatch(r"(?:[A-Z] )?(.*)=", prompt).group(1)
    if task == "subtraction":
        first, second = argument.split("-")
        return str(int(first) - int(second))
    if task == "base7_addition":
        first, second = argument.split("+")
        return in_base_seven(int(first, 7) + int(second, 7))
    if task == "sort_descending":
        return "".join(sorted(argument))[::-1]
    first, second = argument.split()
    if task == "shifted_alphabet":
        return shift(second, int(first))
    if task == "lookup":
        return dict(re.findall(r"(\w)(\d)", first))[second]
    if task == "interleave":
        return "".join(map("".join, zip(first, second, strict=True)))
    assert task == "count"
    return str(len([letter for letter in second if letter == first]))


@pytest.mark.parametrize("task", sorted(FINE_TUNING_TASKS))
def test_fine_tuning_answers_are_right(task):
    tables = cipher_tables() if task == "ciphers" else None
    for split in SPLITS:
        for row in task_rows(task, split):
            if tables:
                _, number, text = row["prompt"].rstrip("=").split()
                expected = "".join(tables[number][letter] for letter in text)
            else:
                expected = solve(task, row["prompt"])
            assert row["answer"] == expected, row


def test_there_are_four_ciphers_and_each_can_be_read_back():
    tables = cipher_tables()
    assert sorted(tables) == list("0123")
    for table in tables.values():
        assert sorted(table) == sorted(table.values()) == list(LETTERS)
    for one in tables:
        for other in tables:
            agreements = sum(tables[one][letter] == tables[other][letter] for letter in LETTERS)
            assert one == other or agreements <= 4


@pytest.mark.parametrize("task", sorted(FINE_TUNING_TASKS))
def test_no_prompt_occurs_twice_in_a_task(task):
    prompts = [row["prompt"] for split in SPLITS for row in task_rows(task, split)]
    assert len(prompts) == len(set(prompts))


def test_fine_tuning_files_use_known_characters_only():
    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny")
    known = set(tokenizer.get_vocab())
    for task in FINE_TUNING_TASKS:
        for split in SPLITS:
            for row in task_rows(task, split):
                assert set(row["prompt"] + row["answer"]) <= known, row


STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
SAID_IN_WORDS = {2, 3, 4, 7, 12}  # twice, half; three games; legs; a week; a dozen


@pytest.mark.parametrize("split", SPLITS)
def test_worked_solutions_are_right(split):
    for row in problem_rows(split):
        *steps, last = row["answer"].split("\n")
        given = {int(number) for number in re.findall(r"\d+", row["prompt"])}
        known, used = given | SAID_IN_WORDS, set()
        for step in steps:
            left, symbol, right, result = STEP.fullmatch(step).groups()
            left, right, result = int(left), int(right), int(result)
            right_side = {"+": left + right, "-": left - right, "*": left * right}
            assert right_side.get(symbol, left / right) == result, row
            assert {left, right} <= known, row
            known.add(result)
            used |= {left, right}
        assert last == f"#### {result}"
        assert given <= used, row
        assert len(steps) == row["steps"] and 1 <= len(steps) <= 3


def pattern(text: str) -> re.Pattern:
    """A template's text as an expression that matches the problems made from it."""
    literals = re.split(r"\{\w+\}", text)
    return re.compile(r"[^.?]+?".join(map(re.escape, literals)))


def test_no_template_with_its_numbers_occurs_twice():
    patterns = {template.name: pattern(template.text) for template in load_templates()}
    assert len(patterns) >= 60
    keys = {}
    for split in SPLITS:
        rows = problem_rows(split)
        assert {row["template"] for row in rows} == set(patterns)
        for row in rows:
            assert patterns[row["template"]].fullmatch(row["prompt"]), row
            key = (row["template"], *re.findall(r"\d+", row["prompt"]))
            assert key not in keys, f"{row} repeats {keys[key]}"
            keys[key] = row["prompt"]


def test_problems_are_short_and_their_grammar_holds():
    for split in SPLITS:
        for row in problem_rows(split):
            prompt = row["prompt"]
            assert len(prompt.split()) <= 45 and len(row["answer"]) <= 60
            assert len(re.findall(r"[.?]", prompt)) <= 4 and prompt.endswith("?")
            assert prompt[0].isupper() and not re.search(r"[{}|]|  |[.?] [^A-Z]", prompt), prompt
            assert not re.search(r"\b([Aa] [aeiou]|[Aa]n (?!hour)[^aeiou])", prompt), prompt
            assert all(int(number) >= 2 for number in re.findall(r"\d+", prompt)), prompt
