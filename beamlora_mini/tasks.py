"""What the models are trained on: pairs of a prompt and its answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from .checks import is_unicode
from .machine import data_folder

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    Task = str | Path | Dataset | DatasetDict
else:
    Task = object  # datasets is slow to import, and many who import this package load no data

GSM8K_HUB_ID = "openai/gsm8k"  # Cobbe et al., arXiv 2110.14168

# What each task asks for. All but word_problems are for the tiny model, which can't do any of them
# before it is fine-tuned; word_problems is for a real one.
TASKS = {
    "subtraction": "a number below 100 less a smaller one",
    "base7_addition": "the sum of two numbers, all in base 7",
    "sort_descending": "letters in reverse alphabetical order",
    "shifted_alphabet": "each letter moved on by the number in front",
    "lookup": "the digit that stands after a letter in the prompt",
    "ciphers": "one of four random substitutions of letters, chosen by a digit",
    "interleave": "the letters of two words in turn",
    "count": "how often a letter occurs in a word",
    "word_problems": "stories with one to three steps of arithmetic, worked answers",
}

# What the tiny model can do before it is fine-tuned: problems that it never saw, to see what is lost.
KNOWN_TASKS = {
    "addition": "the sum of two numbers below 100",
    "copy": "the letters as they are",
    "reverse": "the letters from the last to the first",
    "sort": "letters in alphabetical order",
    "successor": "for each letter the next one",
    "maximum": "the letter that comes last in the alphabet",
}


def load_task(name: str | Path, folder: str | Path | None = None) -> DatasetDict:
    """A task's "train" and "test" splits, with the columns prompt and answer; word_problems also
    tells each problem's number of steps and the template it comes from. One of `KNOWN_TASKS` has a
    "test" split alone.

    name: one of `TASKS` or `KNOWN_TASKS`; "gsm8k" (from the Hugging Face Hub, or from gsm8k_train.jsonl and
    gsm8k_test.jsonl in `folder`); a folder with train.jsonl and test.jsonl; or one JSON-lines file
    of prompts and answers, of which every tenth row becomes the test split.

    Raises ValueError for an unknown name or a row without its columns, FileNotFoundError for a
    missing file, OSError where the hub can't be reached.
    """
    if not isinstance(name, str | Path):
        raise TypeError(f"name={name!r}: allowed is a task's name or a path")
    if name == "gsm8k":
        return _gsm8k(folder)
    if folder is not None:
        raise ValueError(f"folder={str(folder)!r}: only load_task('gsm8k', folder=...) takes one")
    if name == "word_problems":
        folder = data_folder() / name
        files = (folder / "train.jsonl", folder / "test.jsonl")
        return _read_splits(*files, keep=("steps", "template"))
    if name in TASKS:
        start = data_folder() / "tasks" / name
        return _read_splits(Path(f"{start}.train.jsonl"), Path(f"{start}.test.jsonl"))
    if name in KNOWN_TASKS:
        return _splits(test=read_rows(data_folder() / "tasks" / f"{name}.test.jsonl"))
    path = Path(name)
    if path.is_dir():
        return _read_splits(path / "train.jsonl", path / "test.jsonl")
    if path.suffix.lower() == ".jsonl":
        rows = read_rows(path)
        if len(rows) < 10:
            raise ValueError(
                f"{path}: {len(rows)} rows: allowed is 10 or more, to hold out a tenth"
            )
        train = [row for i, row in enumerate(rows) if i % 10 != 9]
        return _splits(train=train, test=rows[9::10])
    raise ValueError(
        f"name={str(name)!r}: allowed are {', '.join(TASKS | KNOWN_TASKS)}, gsm8k, a folder with train.jsonl and "
        "test.jsonl, or a .jsonl file"
    )


def read_rows(
    path: Path, prompt: str = "prompt", answer: str = "answer", keep: tuple[str, ...] = ()
) -> list[dict]:
    """The rows of a JSON-lines file as {"prompt": ..., "answer": ...}, read from the columns
    `prompt` and `answer`, and with those in `keep`. A row that is not such an object is a
    ValueError with its line number."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    rows = []
    try:
        # A line ends where the file says so: U+2028 and its like are part of a text.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: allowed is text in UTF-8: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts = {"prompt": row[prompt], "answer": row[answer]}
            rows.append(texts | {column: row[column] for column in keep})
        except (ValueError, KeyError, TypeError, RecursionError):
            texts = None
        if texts is None or not all(isinstance(t, str) and is_unicode(t) for t in texts.values()):
            raise ValueError(
                f"{path}, line {number}: allowed is a JSON object with the texts "
                f"{prompt!r} and {answer!r}"
            )
    if not rows:
        raise ValueError(f"{path}: it has no rows: allowed is a row or more")
    return rows


def split_of(task: Task, split: str) -> Dataset:
    """A task's named split; a Dataset is its own split."""
    from datasets import Dataset, DatasetDict

    task = load_task(task) if isinstance(task, str | Path) else task
    rows = task.get(split) if isinstance(task, DatasetDict) else task
    rows = rows.with_format(None) if isinstance(rows, Dataset) else rows
    if not isinstance(rows, Dataset) or not {"prompt", "answer"} <= set(rows.column_names):
        raise ValueError(
            f"task={type(task).__name__}: allowed is a task's name, a Dataset with the columns "
            f"prompt and answer, or a DatasetDict of them with the split {split!r}"
        )
    if len(rows) == 0:
        raise ValueError(f"task: its {split!r} split is empty")
    return rows


def _splits(**rows: list[dict]) -> DatasetDict:
    from datasets import Dataset, DatasetDict

    return DatasetDict({split: Dataset.from_list(of_split) for split, of_split in rows.items()})


def _read_splits(train: Path, test: Path, **columns) -> DatasetDict:
    return _splits(train=read_rows(train, **columns), test=read_rows(test, **columns))


def _gsm8k(folder: str | Path | None) -> DatasetDict:
    if folder is not None:
        files = (Path(folder) / f"gsm8k_{split}.jsonl" for split in ("train", "test"))
        return _read_splits(*files, prompt="question", answer="answer")
    from datasets import load_dataset

    try:
        splits = load_dataset(GSM8K_HUB_ID, "main")
    except Exception as error:  # the hub's clients raise many kinds
        first_line = str(error).strip().partition("\n")[0]
        raise OSError(
            f"load_task('gsm8k'): {GSM8K_HUB_ID} could not be fetched from the Hugging Face Hub; "
            f"name a folder that holds gsm8k_train.jsonl and gsm8k_test.jsonl: {first_line}"
        ) from error
    return splits.rename_column("question", "prompt")
