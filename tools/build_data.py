"""Make what lies in data/: the tiny model, its tasks and the word problems.

python tools/build_data.py                       # all of it, several minutes
python tools/build_data.py tasks word_problems   # only these, seconds
python tools/build_data.py --folder elsewhere    # without touching data/
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from tiny_tasks import FINE_TUNING_TASKS, TEST_ROWS, make_pretraining_problems, make_splits
from tqdm import tqdm
from word_problems import make_word_problems

DATA = Path(__file__).parents[1] / "data"


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write JSON-lines in UTF-8 whose lines end in LF on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def build_tasks(folder: Path) -> None:
    """Write the train and test split of every fine-tuning task, and problems of every task that the
    tiny model knows, which it never saw."""
    for task, problems in make_pretraining_problems(train_count=0, test_count=TEST_ROWS)[1].items():
        rows = [{"prompt": prompt, "answer": answer} for prompt, answer in problems]
        write_rows(folder / f"{task}.test.jsonl", rows)
    for task in tqdm(FINE_TUNING_TASKS, desc="tasks"):
        for split, problems in zip(("train", "test"), make_splits(task), strict=True):
            rows = [{"prompt": prompt, "answer": answer} for prompt, answer in problems]
            write_rows(folder / f"{task}.{split}.jsonl", rows)


def build_word_problems(folder: Path) -> None:
    """Write the train and test split of the word problems."""
    splits = zip(("train", "test"), make_word_problems(), strict=True)
    for split, rows in tqdm(splits, desc="word problems", total=2):
        write_rows(folder / f"{split}.jsonl", rows)


def build_tiny(folder: Path) -> None:
    """Pre-train the tiny model; only this part needs PyTorch."""
    import tiny_model

    tiny_model.build_tiny(folder)


PARTS = {"tasks": build_tasks, "word_problems": build_word_problems, "tiny": build_tiny}
MADE = ("tasks/*.jsonl", "word_problems/*.jsonl", "tiny/*.*")


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file made here, in the format that `sha256sum --check` reads."""
    made = sorted(path for pattern in MADE for path in folder.glob(pattern))
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in made
    )
    (folder / "checksums.sha256").write_text("".join(lines), encoding="utf-8", newline="\n")


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description="Build the tiny model and the data of the series.")
    parser.add_argument(
        "parts", nargs="*", help=f"{', '.join(PARTS)}; all of them if none is named"
    )
    parser.add_argument("--folder", type=Path, default=DATA, help="where to write")
    arguments = parser.parse_args()
    if unknown := [part for part in arguments.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    for part, build in PARTS.items():
        if not arguments.parts or part in arguments.parts:
            build(arguments.folder / part)
    write_checksums(arguments.folder)


if __name__ == "__main__":
    main()
