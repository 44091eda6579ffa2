"""The notebook check of the pre-commit hook: the series passes, and each fault is named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOUR = ROOT / "notebooks" / "00_tour.ipynb"


def check(*paths):
    command = [sys.executable, ROOT / "tools" / "check_notebooks.py", *paths]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.returncode, (result.stdout + result.stderr).splitlines()


def test_the_series_passes():
    assert check(*sorted(ROOT.glob("notebooks/*.ipynb"))) == (0, [])


def swap(cells):
    cells[0]["execution_count"], cells[1]["execution_count"] = 2, 1


def clear(cells):
    cells[-1]["execution_count"] = None


def fail(cells):
    cells[1]["outputs"] = [{"output_type": "error", "ename": "KeyError"}]


@pytest.mark.parametrize(
    "damage, line",
    [(swap, "executed as [2, 1, 3"), (clear, "None]"), (fail, "cell [2] stores a KeyError")],
)
def test_each_fault_is_named(tmp_path, damage, line):
    notebook = json.loads(TOUR.read_text(encoding="utf-8"))
    damage([cell for cell in notebook["cells"] if cell["cell_type"] == "code"])
    (path := tmp_path / "damaged.ipynb").write_text(json.dumps(notebook))
    status, (said,) = check(TOUR, path)
    assert status == 1 and said.startswith(f"{path}: ") and line in said


def test_widget_state_is_named(tmp_path):
    notebook = json.loads(TOUR.read_text(encoding="utf-8"))
    notebook["metadata"]["widgets"] = {}
    (path := tmp_path / "damaged.ipynb").write_text(json.dumps(notebook))
    assert check(path) == (1, [f"{path}: stores widget state: clear it, or save without it"])
