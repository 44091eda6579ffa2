"""An installed wheel is enough for the notebooks: in an empty folder, without the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]

FIRST_CELLS = """
import json, sys
from beamlora_mini.machine import data_folder

print(data_folder())
for path in sys.argv[1:]:
    cells = json.load(open(path, encoding="utf-8"))["cells"]
    names = {}
    exec("".join(next(c["source"] for c in cells if c["cell_type"] == "code")), names)
    print(names["check"].__file__)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """What pyproject.toml puts into a wheel, laid out as pip would; a build needs the network."""
    site = tmp_path_factory.mktemp("site")
    for part in WHEEL["only-include"]:
        target = part
        for source, place in WHEEL["sources"].items():
            target = re.sub(rf"^{re.escape(source)}(?=/|$)", place, target)
        nothing_compiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, site / target, ignore=nothing_compiled, dirs_exist_ok=True)
    return site


def test_first_cells_run_on_what_a_wheel_carries(installed, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FIRST_CELLS, *map(str, NOTEBOOKS)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    package = installed / "beamlora_mini"
    checkers = [package / "exercises" / f"nb{path.stem[:2]}.py" for path in NOTEBOOKS]
    assert run.stdout.splitlines() == [str(package / "data"), *map(str, checkers)]


def test_every_file_that_a_notebook_reads_is_carried(installed):
    read = {
        "/".join(re.findall(r'\\"([^"\\]+)\\"', parts))
        for path in NOTEBOOKS
        for parts in re.findall(r'data_folder\(\)((?: / \\"[^"\\]+\\")+)', path.read_text())
    }
    assert len(read) >= 3
    assert [name for name in read if not (installed / "beamlora_mini/data" / name).is_file()] == []


def test_nothing_else_is_carried(installed):
    assert [path.name for path in installed.iterdir()] == ["beamlora_mini"]
    assert list((installed / "beamlora_mini" / "data").rglob("*.py")) == []
    assert list(installed.rglob("*.ipynb")) == []
