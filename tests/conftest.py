"""The models and the task that tests share, and a table at the end of every run: where the time went, by file."""

import copy
import sys
import time
from collections import Counter

import pytest

import beamlora_mini as bl
from beamlora_mini.loss import answer_loss

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


@pytest.fixture
def crash_and_resume(monkeypatch, tmp_path):
    """(model, task, step, **settings of fit) -> (resumed model, its history): one copy of the model
    dies in that step, and another goes on from its checkpoint."""

    class Crash(BaseException):
        pass

    def run(model, task, step, **settings):
        crashed, resumed, calls = copy.deepcopy(model), copy.deepcopy(model), []

        def loss_or_crash(model, batch):
            calls.append(1)
            if len(calls) == step:
                raise Crash
            return answer_loss(model, batch)

        settings["checkpoint_dir"] = tmp_path
        with monkeypatch.context() as patch, pytest.raises(Crash):
            patch.setattr(sys.modules["beamlora_mini.fit"], "answer_loss", loss_or_crash)
            bl.fit(crashed, task, **settings)
        return resumed, bl.fit(resumed, task, resume=True, **settings)

    return run


@pytest.fixture(scope="session")
def loaded_tiny():
    return bl.load_model("tiny", device="cpu")


@pytest.fixture
def tiny(loaded_tiny):
    """(model, tokenizer), the model a copy of the test's own."""
    model, tokenizer = loaded_tiny
    return copy.deepcopy(model), tokenizer


@pytest.fixture(scope="session")
def task():
    return bl.load_task("subtraction")


@pytest.fixture(scope="session")
def smollm2():
    """(model, tokenizer), shared: a test that changes the model copies it first."""
    return bl.load_model("smollm2", device="cpu")
