"""The shipped data is what `tools/build_data.py` makes, it is right, and its card tells the truth."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
DATA, BUILD = ROOT / "data", ROOT / "tools" / "build_data.py"
sys.path.insert(0, str(BUILD.parent))

from tiny_tasks import FINE_TUNING_TASKS, PRETRAINING_TASKS, make_pretraining_problems
from word_problems import load_templates

SPLITS = ("train", "test")
LETTERS = "abcdefghijklmnop"
METRICS = DATA / "tiny" / "metrics.json"
CARD = DATA / "README.md"


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def task_rows(task: str, split: str) -> list[dict]:
    return read_rows(DATA / "tasks" / f"{task}.{split}.jsonl")


# --- files ----------------------------------------------------------------------------------------


def test_rebuilding_gives_the_same_bytes(tmp_path):
    command = [sys.executable, BUILD, "tasks", "word_problems", "--folder", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    for part in ("tasks", "word_problems"):
        rebuilt = {path.name: path.read_bytes() for path in (tmp_path / part).iterdir()}
        shipped = {path.name: path.read_bytes() for path in (DATA / part).glob("*.jsonl")}
        assert rebuilt.keys() == shipped.keys()
        assert [name for name in shipped if rebuilt[name] != shipped[name]] == []


def test_build_names_an_unknown_part():
    command = [sys.executable, BUILD, "taks"]
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


# --- the fine-tuning tasks ------------------------------------------------------------------------


def cipher_tables() -> dict[str, dict[str, str]]:
    """What the training rows say about each cipher: letter by letter, and without contradiction."""
    tables = {}
    for row in task_rows("ciphers", "train"):
        _, number, text = row["prompt"].rstrip("=").split()
        table = tables.setdefault(number, {})
        for letter, substitute in zip(text, row["answer"], strict=True):
            assert table.setdefault(letter, substitute) == substitute
    return tables


def shift(text: str, places: int) -> str:
    return text.translate(str.maketrans(LETTERS, LETTERS[places:] + LETTERS[:places]))


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


# --- the word problems ----------------------------------------------------------------------------

STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
SAID_IN_WORDS = {2, 3, 4, 7, 12}  # twice, half; three games; legs; a week; a dozen


def problem_rows(split: str) -> list[dict]:
    return read_rows(DATA / "word_problems" / f"{split}.jsonl")


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


# --- the tiny model -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    model = AutoModelForCausalLM.from_pretrained(DATA / "tiny", dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(DATA / "tiny")


def exact_match(tiny, problems: list[tuple[str, str]]) -> float:
    model, tokenizer = tiny
    prompts, answers = zip(*problems, strict=True)
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
    batch.pop("token_type_ids", None)
    generated = model.generate(**batch, max_new_tokens=9, do_sample=False)
    texts = tokenizer.batch_decode(generated[:, batch.input_ids.shape[1] :], True)
    return sum(map(str.__eq__, texts, answers)) / len(answers)


def test_tokenizer_reads_one_character_at_a_time(tiny):
    _, tokenizer = tiny
    text = "X 0 abba=46-12=/B*+,:?"
    ids = tokenizer(text).input_ids
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer("zé\n").input_ids == [tokenizer.unk_token_id] * 3
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 3


def test_tiny_is_the_model_the_card_describes(tiny):
    model, tokenizer = tiny
    stated = json.loads(METRICS.read_text(encoding="utf-8"))
    assert model.num_parameters() == stated["parameters"]
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


def test_held_out_prompts_are_held_out():
    train, held_out = make_pretraining_problems(train_count=50_000, test_count=500)
    trained = {prompt for prompt, _ in train}
    for problems in held_out.values():
        assert len({prompt for prompt, _ in problems} - trained) == 500


PRETRAINED = {
    "addition": lambda text: str(sum(map(int, text.split("+")))),
    "copy": lambda text: text,
    "reverse": lambda text: "".join(reversed(text)),
    "sort": lambda text: "".join(sorted(text)),
    "successor": lambda text: shift(text, 1),
    "maximum": max,
}


@pytest.fixture(scope="module")
def held_out():
    return make_pretraining_problems(train_count=0, test_count=500)[1]


GOAL = 0.95


@pytest.mark.parametrize("task", sorted(PRETRAINING_TASKS))
def test_tiny_does_its_pretraining_tasks(tiny, held_out, task):
    for prompt, answer in held_out[task]:
        assert PRETRAINED[task](prompt.split()[-1].rstrip("=")) == answer, prompt
    assert exact_match(tiny, held_out[task]) >= GOAL


@pytest.mark.parametrize("task", sorted(FINE_TUNING_TASKS))
def test_tiny_cannot_do_the_fine_tuning_tasks(tiny, task):
    problems = [(row["prompt"], row["answer"]) for row in task_rows(task, "test")[:100]]
    assert exact_match(tiny, problems) <= 0.2


# --- the card -------------------------------------------------------------------------------------


def table_rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of the data card."""
    section = CARD.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_card_states_the_measured_exact_match():
    stated = json.loads(METRICS.read_text(encoding="utf-8"))
    card = {cells[0]: cells[-1] for cells in table_rows("The tiny model")}
    assert card == {f"`{k}`": f"{v:.1%}" for k, v in stated["pretraining_tasks"].items()}
    assert all(value >= GOAL for value in stated["pretraining_tasks"].values())
    card = {cells[0]: cells[-1] for cells in table_rows("Fine-tuning tasks")}
    assert card == {f"`{k}`": f"{v:.1%}" for k, v in stated["fine_tuning_tasks"].items()}
    text = CARD.read_text(encoding="utf-8")
    assert f"{stated['parameters']:,} parameters" in text
    assert f"{stated['pretraining_minutes']} minutes" in text


def test_card_examples_are_in_the_files(held_out):
    for name, _, example, *_ in table_rows("The tiny model"):
        prompt, answer = re.findall(r"`([^`]+)`", example)
        task = name.strip("`")
        assert PRETRAINED[task](prompt.split()[-1].rstrip("=")) == answer
        prefixes = {held_prompt[:2] for held_prompt, _ in held_out[task]}
        assert task == "addition" or prompt[:2] in prefixes
    for name, _, example, train, _ in table_rows("Fine-tuning tasks"):
        prompt, answer = re.findall(r"`([^`]+)`", example)
        rows = task_rows(name.strip("`"), "train")
        assert {"prompt": prompt, "answer": answer} in rows
        assert int(train.replace(",", "")) == len(rows)
    line = CARD.read_text(encoding="utf-8").split("```json\n")[1].split("\n```")[0]
    assert json.loads(line) in problem_rows("train")


def test_card_describes_the_studies():
    tables = {p.name: pd.read_parquet(p) for p in (DATA / "results").iterdir()}
    stated = {cells[0].strip("`"): int(cells[1]) for cells in table_rows("The studies")}
    assert stated == {name: len(table) for name, table in tables.items()}
    columns = {column for table in tables.values() for column in table.columns}
    described = " ".join(cells[0] for cells in table_rows("Columns of the studies"))
    assert sorted(re.findall(r"`(\w+)`", described)) == sorted(columns)
    assert all(set(table.attrs) == set(table.setting) for table in tables.values())
