"""Ends every run with one table: where the time went, by file."""

import time
from collections import Counter

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
