"""What every notebook of the series must be, beyond running: nbval runs it and compares its outputs."""

import html
import importlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from check_notebooks import faults
from nbval.plugin import find_comment_markers, metadata_tags

from beamlora_mini.exercises.common import Exercise
from beamlora_mini.explorers.arena import MODULES as ARENA
from beamlora_mini.explorers.explore import MODULES as EXPLORER
from beamlora_mini.explorers.lab import LABS, script
from beamlora_mini.explorers.page import bundle

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(
    path
    for path in (ROOT / "notebooks").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts and "-Copy" not in path.name
)
REQUIRED = [
    "00_tour",
    "01_lora_from_scratch",
    "02_better_starts",
    "03_direction_and_restarts",
    "04_rank_budgets",
    "05_not_all_ranks_are_equal",
    "06_pruning",
    "07_growing_networks",
    "08_expansion_from_history",
    "09_beamlora",
    "09a_official_code",
    "10_real_model",
    "13_settings",
    "14_what_is_lost",
]

# Cells that nbval may skip, ignore or let fail: {(notebook, marker): reason}.
ALLOWED = {}


def read(path: Path):
    return nbformat.read(path, as_version=4)


def text(value) -> str:
    return "".join(value) if isinstance(value, list) else value


def code_cells(path: Path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def outputs(path: Path):
    return [output for cell in code_cells(path) for output in cell.outputs]


def markdown(path: Path) -> str:
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_required_notebooks_exist():
    assert set(REQUIRED) - {path.stem for path in NOTEBOOKS} == set()


# Run and compared


def test_every_code_cell_is_collected():
    """By pytest as `make test` calls it: without a path."""
    collect = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "-p",
            "no:xdist",
            "--ignore=tests",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    found = Counter(
        line.split("::")[0] for line in collect.stdout.splitlines() if "::Cell " in line
    )
    there = {path.relative_to(ROOT).as_posix(): len(code_cells(path)) for path in NOTEBOOKS}
    assert found == there, collect.stdout + collect.stderr


def test_make_test_runs_everything_strictly():
    recipe = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True).stdout
    (command,) = [line for line in recipe.splitlines() if "-m pytest" in line]
    arguments = command.split("-m pytest")[1].split()
    # A path would leave out the others; anything about nbval would override pyproject.toml.
    assert not [a for a in arguments if (ROOT / a).exists() or "nbval" in a or a in ("-k", "-m")]


def test_nbval_compares_every_output(pytestconfig):
    assert pytestconfig.option.nbval
    assert not pytestconfig.option.nbval_lax
    assert pytestconfig.option.nbval_current_env
    assert pytestconfig.getini("testpaths") == ["tests", "notebooks"]


@every_notebook
def test_executed_in_order_without_errors_or_widget_state(path):
    assert faults(read(path)) == []


def markers(path: Path) -> set[str]:
    found = set()
    for cell in code_cells(path):
        found |= {tag for tag in cell.metadata.get("tags", []) if tag in metadata_tags}
        found |= {line.strip("# ") for line in cell.source.splitlines() if any(find_comment_markers(line))}  # fmt: skip
    return found


def test_no_cell_escapes_the_comparison():
    found = {(path.stem, marker) for path in NOTEBOOKS for marker in markers(path)}
    assert found == set(ALLOWED)
    assert all(ALLOWED.values()), "each exception says why"


# Fit to read


@every_notebook
def test_small(path):
    assert path.stat().st_size <= 1_000_000


@every_notebook
def test_every_picture_has_alt_text(path):
    for output in outputs(path):
        shown = text(output.get("data", {}).get("text/html", ""))
        for tag in re.findall(r"<iframe\b[^>]*>", shown):
            assert re.search(r'\btitle="\s*[^"\s]', tag), tag[:80]
        for kind in ("image/png", "image/jpeg"):
            if (
                kind in output.get("data", {}) and "<iframe" not in shown
            ):  # else the page says it, and is shown
                alt = output.metadata.get(kind, {}).get("alt", "")
                assert alt.strip(), "show pictures with plots.show(figure, alt=...)"
        for tag in re.findall(r"<img\b[^>]*>", shown):
            assert re.search(r"""\balt=(["'])\s*[^"'\s]""", tag), tag
    prose = markdown(path)
    assert re.findall(r"!\[\s*\]", prose) == []
    for tag in re.findall(r"<img\b[^>]*>", prose):
        assert re.search(r"""\balt=(["'])\s*[^"'\s]""", tag), tag


SCRIPTS = {"Rank arena": bundle(*ARENA), "Rank explorer": bundle(*EXPLORER)}
SCRIPTS |= {title: script(name) for name, title in LABS.items()}


@every_notebook
def test_stored_pages_are_those_of_the_package(path):
    """The comparison of outputs leaves them out, for the numbers that a machine computed."""
    for output in outputs(path):
        shown = text(output.get("data", {}).get("text/html", ""))
        for title, page in re.findall(
            r'<iframe class="page" title="([^"]*)" srcdoc="([^"]*)"', shown
        ):
            assert SCRIPTS[html.unescape(title)] in html.unescape(page), (
                "execute the notebook again"
            )


MACHINE = re.compile(
    r"\bat 0x[0-9a-f]{6,}"  # memory addresses
    r"|(?<![\w.:/<~-])/(home|root|Users|tmp|usr|opt|var|mnt|private|content)/\S+"
    r"|\b[A-Z]:\\\S+",
    re.IGNORECASE,
)


@every_notebook
def test_outputs_name_no_place_on_one_machine(path):
    shown = []
    for output in outputs(path):
        data = output.get("data", {})
        shown += [output.get("text", ""), *(v for k, v in data.items() if k.startswith("text/"))]
    for value in map(text, shown):
        assert not (found := MACHINE.search(value)), found.group()
        assert str(ROOT) not in value


@every_notebook
def test_shape(path):
    first, *_ = read(path).cells
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"\bminutes?\b", first.source), "the first cell says how long it takes"
    headings = re.findall(r"^#+ +(.+?)\s*$", markdown(path), re.MULTILINE)
    assert any("recap" in heading.lower() for heading in headings)
    assert headings[-1] == "Sources"


# Exercises: a heading cell, a stub, a checker, and a cell that unfolds a hint and a solution


class Shown:
    """An exercise as a notebook shows it, and as notebooks/exercises holds it."""

    def __init__(self, path, cells, at):
        self.path, self.heading = path, cells[at].source
        self.stub, self.checker, self.answers = (cells[at + i] for i in (1, 2, 3))
        self.number = re.search(r"^### Exercise (\S+?):", self.heading, re.MULTILINE)[1]
        self.imports = next(c.source for c in cells if c.cell_type == "code")

    @property
    def held(self) -> Exercise:
        (held,) = [e for e in exercises_for(self.path) if e.number == self.number]
        return held

    def verdict(self, answer: str):
        """What the checker cell says to an answer, in a kernel that has run only the first code cell."""
        namespace = {}
        for source in (self.imports, answer):
            exec(re.sub(r"^%.*$", "", source, flags=re.MULTILINE), namespace)
        return eval(self.checker.source, namespace)


def exercises_for(path: Path) -> list[Exercise]:
    """None for an appendix, such as 09a."""
    if path.stem[2] != "_":
        return []
    module = importlib.import_module(f"beamlora_mini.exercises.nb{path.stem[:2]}")
    return [value for value in vars(module).values() if isinstance(value, Exercise)]


SHOWN = [
    Shown(path, cells, at)
    for path in NOTEBOOKS
    for cells in [read(path).cells]
    for at, cell in enumerate(cells)
    if cell.cell_type == "markdown" and re.search(r"^### Exercise \S+:", cell.source, re.MULTILINE)
]
every_exercise = pytest.mark.parametrize("exercise", SHOWN, ids=lambda e: e.number)


@pytest.fixture(autouse=True)
def no_windows(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")


@every_notebook
def test_exercises_are_numbered(path):
    numbers = [e.number for e in SHOWN if e.path == path]
    assert numbers == [f"{path.stem[:2]}.{k}" for k in range(1, len(numbers) + 1)]
    assert len(re.findall("exercise", "\n".join(re.findall(r"^###.*", markdown(path), re.MULTILINE)), re.IGNORECASE)) == len(numbers)  # fmt: skip
    assert [e.number for e in exercises_for(path)] == numbers


def test_every_file_of_exercises_has_a_notebook():
    files = {path.stem for path in (ROOT / "notebooks" / "exercises").glob("nb*.py")}
    assert files == {f"nb{path.stem[:2]}" for path in NOTEBOOKS}


@every_exercise
def test_exercise_is_complete(exercise):
    assert re.search(r"\bdifficulty [1-5]/5\b", exercise.heading)
    assert re.search(r"\b\d+ minutes?\b", exercise.heading)
    assert exercise.stub.cell_type == exercise.checker.cell_type == "code"
    name = exercise.held.__name__
    assert exercise.checker.source == f"check.{name}({name})"
    assert exercise.answers.cell_type == "markdown"
    assert re.search(r"<details>\s*<summary>Hint", exercise.answers.source)
    assert re.search(r"<details>\s*<summary>Solution", exercise.answers.source)


@every_exercise
def test_notebook_shows_the_official_solution(exercise):
    _, unfolded = exercise.answers.source.split("<summary>Solution")
    (shown,) = re.findall(r"```python\n(.*?)```", unfolded, re.DOTALL)
    assert shown == exercise.held.solution


@every_exercise
def test_checker_turns_down_the_stub(exercise):
    assert exercise.verdict(exercise.stub.source) is False
