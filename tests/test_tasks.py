"""load_task: what it loads, and what it says when it can't."""

import json

import pytest
from datasets import DatasetDict

import beamlora_mini as bl
from beamlora_mini import models, tasks
from beamlora_mini.tasks import KNOWN_TASKS


@pytest.mark.parametrize("name", KNOWN_TASKS)
def test_what_the_tiny_model_knows_has_a_test_split_alone(name, tiny):
    task = bl.load_task(name)
    assert list(task) == ["test"] and len(task["test"]) == 500
    assert bl.evaluate(tiny[0], name, limit=40, progress=False)["exact_match"] >= 0.9
    with pytest.raises(ValueError, match="split 'train'"):
        bl.fit(tiny[0], name, method=bl.LoRA(r=2), steps=1, lr=1e-3)


@pytest.mark.parametrize("name", bl.TASKS)
def test_every_task_loads(name):
    task = bl.load_task(name)
    assert isinstance(task, DatasetDict) and set(task) == {"train", "test"}
    assert all({"prompt", "answer"} <= set(split.column_names) for split in task.values())
    assert len(task["test"]) == 500


def test_every_shipped_task_is_listed():
    files = (models.data_folder() / "tasks").glob("*.train.jsonl")
    assert {f.name.removesuffix(".train.jsonl") for f in files} | {"word_problems"} == set(bl.TASKS)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_json_lines(tmp_path):
    rows = [{"prompt": f"p{i}", "answer": f"ä{i}", "extra": i} for i in range(20)]
    write(tmp_path / "all.jsonl", rows)
    task = bl.load_task(tmp_path / "all.jsonl")
    assert task["test"]["answer"] == ["ä9", "ä19"] and len(task["train"]) == 18
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", rows[:3])
    assert len(bl.load_task(str(tmp_path))["test"]) == 3


@pytest.mark.parametrize(
    "line", ['{"prompt": "p"}', "not json", '{"prompt": 1, "answer": "a"}', "[1]", '"text"']
)
def test_bad_rows_name_their_line(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "answer": "a"}\n' * 10 + line + "\n")
    with pytest.raises(ValueError, match="line 11"):
        bl.load_task(path)


def test_task_errors(tmp_path):
    with pytest.raises(ValueError, match="subtraction.*gsm8k"):
        bl.load_task("no such task")
    with pytest.raises(ValueError, match="folder="):
        bl.load_task("subtraction", folder=tmp_path)
    with pytest.raises(FileNotFoundError):
        bl.load_task(tmp_path / "nothing.jsonl")
    with pytest.raises(FileNotFoundError, match=r"train\.jsonl"):
        bl.load_task(tmp_path)
    write(tmp_path / "few.jsonl", [{"prompt": "p", "answer": "a"}] * 9)
    with pytest.raises(ValueError, match="9 rows"):
        bl.load_task(tmp_path / "few.jsonl")


def test_gsm8k_from_a_folder_and_without_a_network(tmp_path):
    rows = [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(3)]
    write(tmp_path / "gsm8k_train.jsonl", rows)
    write(tmp_path / "gsm8k_test.jsonl", rows[:1])
    task = bl.load_task("gsm8k", folder=tmp_path)
    assert task["train"][2] == {"prompt": "q2", "answer": "#### 2"} and len(task["test"]) == 1
    with pytest.raises(OSError, match="name a folder"):
        tasks.load_task("gsm8k")


FILES = {
    "a byte-order mark": ("utf-8-sig", "\n", "all.jsonl"),
    "CRLF": ("utf-8", "\r\n", "all.jsonl"),
    "an old Mac's": ("utf-8", "\r", "all.jsonl"),
    "upper case": ("utf-8", "\n", "ALL.JSONL"),
    "all at once": ("utf-8-sig", "\r\n", "All.JsonL"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "ä"])
def test_json_lines_as_people_have_them(tmp_path, kind, inside):
    encoding, end, name = FILES[kind]
    rows = [{"prompt": f"p{inside}{i}", "answer": f"a{i}{inside}"} for i in range(20)]
    lines = [json.dumps(row, ensure_ascii=False) + end for row in rows]
    (tmp_path / name).write_bytes("".join(lines).encode(encoding))
    task = bl.load_task(tmp_path / name)
    read = [*task["train"], *task["test"]]
    assert sorted(read, key=str) == sorted(rows, key=str)


def test_line_numbers_count_lines_and_other_encodings_are_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = json.dumps({"prompt": "a\u2028b", "answer": "c"}, ensure_ascii=False)
    path.write_text(f"{row}\n\n{row}\nnot json\n", encoding="utf-8-sig")
    with pytest.raises(ValueError, match="line 4"):
        bl.load_task(path)
    path.write_bytes(f"{row}\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"rows\.jsonl: allowed is text in UTF-8"):
        bl.load_task(path)


@pytest.mark.parametrize(
    "line", ['{"prompt": "\\ud83d", "answer": "a"}', "[" * 100_000, "1" * 5000]
)
def test_odd_json_names_its_line(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "answer": "a"}\n' * 10 + line + "\n")
    with pytest.raises(ValueError, match="line 11"):
        bl.load_task(path)


def test_splits_that_are_missing_empty_or_hidden_are_named(tmp_path, task, tiny):
    write(tmp_path / "train.jsonl", [{"prompt": "p", "answer": "a"}])
    write(tmp_path / "test.jsonl", [])
    with pytest.raises(ValueError, match=r"test\.jsonl: it has no rows"):
        bl.load_task(tmp_path)
    with pytest.raises(ValueError, match="the split 'test'"):
        bl.evaluate(tiny[0], DatasetDict(train=task["train"]))
    with pytest.raises(TypeError, match="name=None"):
        bl.load_task(None)
    seen = task["test"].select(range(3)).with_format("numpy", columns=["prompt"])
    assert bl.evaluate(tiny[0], seen, progress=False)["loss"] > 0
