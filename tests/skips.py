# SPDX-License-Identifier: Apache-2.0
"""The skips that are in order where everything can be installed. With ORION_NO_SKIPS=1 any other fails the run."""

from __future__ import annotations

import fnmatch
import os
import re

import pytest

# (pattern of the test's id, regular expression for the reason, why it is in order)
IN_ORDER: list[tuple[str, str, str]] = [
    ("tests/*", "nvcc is not installed", "NVIDIA's compiler is no package of a plain machine"),
    ("tests/unit/test_huge_pages.py*", "this kernel has no huge pages", "no package brings another kernel"),
    ("tests/packages/test_under_systemd.py*", "cgroup2", "a container without cgroups of its own runs no systemd"),
    ("tests/loopback/test_web_page.py*", "chromium is not installed on (?!debian)", "Ubuntu has it as a snap alone, which a test cannot drive"),
    ("tests/loopback/test_nvidia_smi.py*", "nvidia-smi is not installed", "NVIDIA's tool is not free: `make test-nvidia-smi`"),
]


def is_in_order(test: str, reason: str) -> bool:
    return any(fnmatch.fnmatch(test, pattern) and re.search(known, reason) for pattern, known, _ in IN_ORDER)


class SkipGate:
    """A plugin of pytest: gathers skips, names those that are not in order, and fails the run for them.

    With pytest-xdist each of its processes gathers, and the first one hears of all.
    """

    def __init__(self) -> None:
        self.bad: dict[str, None] = {}

    def _take(self, report) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            if not is_in_order(report.nodeid, reason):
                self.bad[f"{report.nodeid}: {reason}"] = None

    def pytest_runtest_logreport(self, report) -> None:
        self._take(report)

    def pytest_collectreport(self, report) -> None:
        self._take(report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node) -> None:
        self.bad |= dict.fromkeys(getattr(node, "workeroutput", {}).get("bad_skips", []))

    def pytest_sessionfinish(self, session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["bad_skips"] = list(self.bad)
        if self.bad and session.exitstatus == 0:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter) -> None:
        if self.bad:
            terminalreporter.section("skipped, although this run must leave out nothing (tests/skips.py)")
            for line in self.bad:
                terminalreporter.write_line(line)


def gate() -> SkipGate | None:
    """The plugin, where it is asked for."""
    return SkipGate() if os.environ.get("ORION_NO_SKIPS") == "1" else None
