"""The rows that lie in data/, and the tools that made them."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA, BUILD_DATA = ROOT / "data", ROOT / "tools" / "build_data.py"
sys.path.insert(0, str(BUILD_DATA.parent))  # tiny_tasks, word_problems

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
