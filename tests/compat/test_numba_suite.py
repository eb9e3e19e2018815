# SPDX-License-Identifier: Apache-2.0
"""Numba's own tests of CUDA on the simulated GPU: all that numba_passes.txt names must pass.

    python tests/compat/test_numba_suite.py > tests/compat/numba_passes.txt    # names what passes now
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[up]) for up in range(3)]

import host as hosts  # noqa: E402
import pytest  # noqa: E402
import wheels  # noqa: E402

pytestmark = pytest.mark.compat
PASSES = Path(__file__).with_name("numba_passes.txt")
PACKAGES = ["numba-cuda", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-nvvm",
            "nvidia-cuda-cccl", "filecheck", "psutil", "pytest", "cffi", "ml_dtypes"]  # fmt: skip
FOLDERS = ("cudapy", "cudadrv", "nrt", "doc_examples")
SECONDS = 900  # for one module of tests
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
        elif test.id() not in done: yield test
result = Lines()
unittest.TestSuite(flat(unittest.defaultTestLoader.loadTestsFromName(sys.argv[1]))).run(result)
sys.exit(3 if result.shouldStop else 0)
"""


def modules(python: Path) -> list[str]:
    """Those that need no library beside Numba."""
    (root,) = python.parents[1].glob("lib/python3*/site-packages/numba_cuda/numba/cuda/tests")
    found = [p.relative_to(root).with_suffix("") for folder in FOLDERS for p in (root / folder).rglob("test_*.py")]
    return sorted("numba.cuda.tests." + ".".join(p.parts) for p in found if "cupy" not in p.name)


def results(python: Path, module: str) -> dict[str, str]:
    """How each test of a module ended: ok, FAIL, ERROR, skipped; none where the process died."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("ORION_SIM")}
    env |= {"LD_LIBRARY_PATH": str(hosts.LIB / "simgpu"), "ORION_SIM_TIMEOUT": "120"}
    with tempfile.NamedTemporaryFile("r") as lines:
        for _ in range(PROCESSES):
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run([python, "-c", RUNNER, module, lines.name], env=env, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL, timeout=SECONDS, check=False)
                if done.returncode == 3:
                    continue
            break
        return dict(line.split() for line in lines.read().splitlines())


def suite() -> dict[str, str]:
    python = wheels.environment("numba-suite", *PACKAGES)
    with ThreadPoolExecutor(max(len(os.sched_getaffinity(0)) // 2, 1)) as pool:
        found: dict[str, str] = {}
        for part in pool.map(lambda module: results(python, module), modules(python)):
            found |= part
    return found


def test_numba_tests_pass() -> None:
    found, wanted = suite(), PASSES.read_text().split()
    ran = {name: end for name, end in found.items() if end != "skipped"}
    passed = [name for name, end in ran.items() if end == "ok"]
    print(f"{len(passed)} of {len(ran)} tests pass; not listed yet: {sorted(set(passed) - set(wanted))}")
    lost = [f"{name}: {found.get(name, 'did not end')}" for name in wanted if found.get(name) != "ok"]
    assert not lost, "\n".join(lost)


if __name__ == "__main__":
    print("\n".join(sorted(name for name, end in suite().items() if end == "ok")))
