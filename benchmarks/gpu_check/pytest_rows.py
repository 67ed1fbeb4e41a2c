"""A plugin of pytest: a row for every test as it ends, and one with the counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gpu_check.check import Check


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--check-out", type=Path, help="folder of the GPU check's rows")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that hears of every test
        config.pluginmanager.register(Recorder(Check("gpu_tests", config.option.check_out)))


class Recorder:
    def __init__(self, check: Check) -> None:
        self.check, self.counts = check, Counter[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        self.counts[report.outcome] += 1
        said = [] if report.passed else str(report.longrepr).strip().splitlines()
        words = {"said": "\n".join(said[-12:])[-1500:]} if said else {}
        self.check.row(what=report.outcome, test=report.nodeid, seconds=report.duration, **words)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.check.row(what="not collected", test=report.nodeid, said=str(report.longrepr)[-1500:])

    def pytest_deselected(self, items: list[Any]) -> None:
        self.counts["deselected"] += len(items)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.check.row(what="counts", **self.counts, collected=getattr(session, "testscollected", 0))
