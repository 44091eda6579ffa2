"""The models that tests share, and a table at the end of every run: where the time went, by file."""

import copy
import time
from collections import Counter

import pytest

import beamlora_mini as bl

STARTED = time.perf_counter()


def pytest_terminal_summary(terminalreporter):
    seconds, tests = Counter(), Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                file = report.nodeid.split("::")[0]
                seconds[file] += report.duration
                tests[file] += report.when == "call"
    if not seconds:
        return
    terminalreporter.section("where the time went")
    for file, spent in seconds.most_common():
        terminalreporter.write_line(f"{spent:7.1f} s  {tests[file]:4d}  {file}")
    wall = time.perf_counter() - STARTED
    terminalreporter.write_line(
        f"{seconds.total():7.1f} s  {tests.total():4d}  in all; {wall:.0f} s by the clock"
    )


@pytest.fixture(scope="session")
def loaded_tiny():
    return bl.load_model("tiny", device="cpu")


@pytest.fixture
def tiny(loaded_tiny):
    """(model, tokenizer), the model a copy of the test's own."""
    model, tokenizer = loaded_tiny
    return copy.deepcopy(model), tokenizer


@pytest.fixture(scope="session")
def smollm2():
    """(model, tokenizer), shared: a test that changes the model copies it first."""
    return bl.load_model("smollm2", device="cpu")
