"""A reader changes the settings of an experiment and runs the notebook: no cell raises, every finding is a sentence.

The settings stand in cells that begin with `# Settings`: assignments of literals to names in capitals.
"""

import ast
import re

import pytest
from nbclient import NotebookClient

from tests.test_notebooks import NOTEBOOKS, code_cells, every_notebook, read, text

REQUIRED = {"01", "05", "06", "08", "09"}


def is_settings(cell) -> bool:
    return cell.cell_type == "code" and cell.source.startswith("# Settings")


def settings(source: str) -> dict:
    """{name: value} of a cell of settings; AssertionError for anything but assignments of literals."""
    found = {}
    for node in ast.parse(source).body:
        assert isinstance(node, ast.Assign) and len(node.targets) == 1, ast.unparse(node)
        (target,) = node.targets
        assert isinstance(target, ast.Name) and target.id.isupper(), ast.unparse(node)
        assert target.id not in found, f"{target.id} is set twice"
        found[target.id] = ast.literal_eval(node.value)
    return found


def other(name: str, value):
    """Another value for a setting of the kinds that every reader tries, the same for the rest."""
    if name.startswith("SEED"):
        return tuple(seed + 10 for seed in value[:2]) if isinstance(value, tuple) else value + 10
    if re.match(r"RANK(_|$)", name):
        return 4 if value > 4 else 2 * value
    if name.startswith("STEPS"):
        return round(0.7 * value)
    if name.startswith("PERIOD"):
        return round(0.8 * value)
    if name.startswith("TEMPERATURE"):
        return 2 * value
    return value


NAMED = [path for path in NOTEBOOKS if any(map(is_settings, read(path).cells))]


def test_the_experiments_of_these_notebooks_have_settings():
    assert {path.stem[:2] for path in NAMED} >= REQUIRED


@every_notebook
def test_a_setting_has_one_home(path):
    names = [n for cell in code_cells(path) if is_settings(cell) for n in settings(cell.source)]
    assert len(names) == len(set(names))
    for cell in code_cells(path):
        if not is_settings(cell):
            assigned = {
                node.id
                for node in ast.walk(ast.parse(cell.source))
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            }
            assert not assigned & set(names), cell.source


@pytest.mark.parametrize("path", [p for p in NAMED if not p.stem.startswith("10")], ids=lambda p: p.stem)  # fmt: skip
def test_another_setting_raises_nowhere(path):
    notebook = read(path)
    changed = 0
    for cell in notebook.cells:
        if is_settings(cell):
            before = settings(cell.source)
            after = {name: other(name, value) for name, value in before.items()}
            changed += before != after
            cell.source = "\n".join(f"{name} = {value!r}" for name, value in after.items())
    assert changed
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=folder).execute()
    for output in (o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs):
        shown = text(output.get("data", {}).get("text/html", ""))
        for sentence in re.findall(r'<p class="finding".*?</p>', shown, re.DOTALL):
            assert not re.search(r"\bnan\b|\binf\b", sentence), sentence
