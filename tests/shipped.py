"""The rows that lie in data/, and the tool that makes them."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA, BUILD_DATA = ROOT / "data", ROOT / "tools" / "build_data.py"

SPLITS = ("train", "test")
LETTERS = "abcdefghijklmnop"


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def task_rows(task: str, split: str) -> list[dict]:
    return read_rows(DATA / "tasks" / f"{task}.{split}.jsonl")


def problem_rows(split: str) -> list[dict]:
    return read_rows(DATA / "word_problems" / f"{split}.jsonl")


def shift(text: str, places: int) -> str:
    return text.translate(str.maketrans(LETTERS, LETTERS[places:] + LETTERS[:places]))
