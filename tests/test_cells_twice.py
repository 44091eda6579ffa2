"""A reader runs a cell again: it ends as it did the first time, and so does all after it."""

import configparser
import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_notebooks import NOTEBOOKS, ROOT, read, text


def sanitized(value: str) -> str:
    rules = configparser.ConfigParser()
    rules.read(ROOT / "tests" / "nbval_sanitize.cfg")
    for name in rules.sections():
        value = re.sub(rules[name]["regex"], rules[name]["replace"], value)
    return value


def said(outputs) -> list[str]:
    """What nbval compares, but for pictures: what was printed in one piece, and what was shown."""
    streams = [o for o in outputs if o.output_type == "stream" and o.name == "stdout"]
    parts = ["".join(text(stream.text) for stream in streams)]
    for output in outputs:
        if output.output_type in ("execute_result", "display_data"):
            parts += [
                text(output.data[kind])
                for kind in ("text/plain", "text/html")
                if kind in output.data
            ]
    return [sanitized(part) for part in parts]


def run_twice(path):
    notebook = read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = [nbformat.v4.new_code_cell(cell.source) for cell in code for _ in "12"]
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=folder).execute()
    for cell, stored in zip(notebook.cells[1::2], code, strict=True):
        assert said(cell.outputs) == said(stored.outputs), cell.source


def half(k):
    return pytest.mark.parametrize("path", NOTEBOOKS[k::2], ids=lambda path: path.stem)


class TestOneHalf:  # a class each: two workers share the notebooks, and the time
    @half(0)
    def test_cells_run_twice_end_as_when_run_once(self, path):
        run_twice(path)


class TestTheOtherHalf:
    @half(1)
    def test_cells_run_twice_end_as_when_run_once(self, path):
        run_twice(path)
