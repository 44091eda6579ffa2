"""The tiny model does what the data's card says, and the card tells the truth."""

import json
import re

import pandas as pd
import pytest
import torch
from tiny_tasks import FINE_TUNING_TASKS, PRETRAINING_TASKS, make_pretraining_problems
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.shipped import DATA, problem_rows, shift, task_rows

METRICS = DATA / "tiny" / "metrics.json"
CARD = DATA / "README.md"
GOAL = 0.95
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


@pytest.mark.parametrize("task", sorted(PRETRAINING_TASKS))
def test_tiny_does_its_pretraining_tasks(tiny, held_out, task):
    for prompt, answer in held_out[task]:
        assert PRETRAINED[task](prompt.split()[-1].rstrip("=")) == answer, prompt
    assert exact_match(tiny, held_out[task]) >= GOAL


@pytest.mark.parametrize("task", sorted(FINE_TUNING_TASKS))
def test_tiny_cannot_do_the_fine_tuning_tasks(tiny, task):
    problems = [(row["prompt"], row["answer"]) for row in task_rows(task, "test")[:100]]
    assert exact_match(tiny, problems) <= 0.2


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
