# SPDX-License-Identifier: Apache-2.0
"""Runs a module of another project's unittest tests, one process for as many as go right, and tells how each ended."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

SECONDS = 900  # for one process
PROCESSES = 60  # for one module: each test that goes wrong ends one
# Writes a line for each test as it ends. After one that went wrong the process ends, since its CUDA may be broken; the
# next one goes on with those that have no line.
RUNNER = """
import sys, unittest
done = {line.split()[0] for line in open(sys.argv[2])}
out = open(sys.argv[2], "a", buffering=1)
class Lines(unittest.TestResult):
    def end(self, test, how):
        print(test.id(), how, file=out)
        if how in ("FAIL", "ERROR"): self.stop()
    def addSuccess(self, test): self.end(test, "ok")
    def addFailure(self, test, error): self.end(test, "FAIL")
    def addError(self, test, error): self.end(test, "ERROR")
    def addSkip(self, test, reason): self.end(test, "skipped")
    def addExpectedFailure(self, test, error): self.end(test, "ok")
    def addSubTest(self, test, subtest, error): error and self.end(test, "FAIL")
def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite): yield from flat(test)
        elif test.id() not in done and sys.argv[4] in test.id().rpartition('.')[2]: yield test
exec(sys.argv[3])
result = Lines()
unittest.TestSuite(flat(unittest.defaultTestLoader.loadTestsFromName(sys.argv[1]))).run(result)
sys.exit(3 if result.shouldStop else 0)
"""


def results(python: Path, module: str, env: Mapping[str, str], first: str = "", word: str = "") -> dict[str, str]:
    """How each test ended: ok, FAIL, ERROR, skipped; none where the process died. `first` is executed before they are loaded; `word` is
    in the names of those that run."""
    with tempfile.NamedTemporaryFile("r") as lines:
        for _ in range(PROCESSES):
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run([python, "-c", RUNNER, module, lines.name, first, word], env=env, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL, timeout=SECONDS, check=False)
                if done.returncode == 3:
                    continue
            break
        return dict(line.split() for line in lines.read().splitlines())


def lost(found: Mapping[str, str], passes: Path) -> str:
    """Of the tests that `passes` names those that do not pass now, a line each; says on stdout which do that it does not name."""
    wanted = passes.read_text().split()
    ran = {name: end for name, end in found.items() if end != "skipped"}
    passed = [name for name, end in ran.items() if end == "ok"]
    print(f"{len(passed)} of {len(ran)} tests pass; not listed yet: {sorted(set(passed) - set(wanted))}")
    return "\n".join(f"{name}: {found.get(name, 'did not end')}" for name in wanted if found.get(name) != "ok")
