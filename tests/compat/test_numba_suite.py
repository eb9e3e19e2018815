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

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import host as hosts  # noqa: E402
import pytest  # noqa: E402
import wheels  # noqa: E402

pytestmark = pytest.mark.compat
PASSES = Path(__file__).with_name("numba_passes.txt")
PACKAGES = ["numba-cuda", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-nvvm",
            "nvidia-cuda-cccl", "filecheck", "psutil", "pytest", "cffi", "ml_dtypes"]  # fmt: skip
FOLDERS = ("cudapy", "cudadrv", "nrt", "doc_examples")
SECONDS = 900  # for one module of tests
# Writes a line for each test as it ends, so that those before a crash are known.
RUNNER = """
import sys, unittest
out = open(sys.argv[2], "a", buffering=1)
class Lines(unittest.TestResult):
    def addSuccess(self, test): print(test.id(), "ok", file=out)
    def addFailure(self, test, error): print(test.id(), "FAIL", file=out)
    def addError(self, test, error): print(test.id(), "ERROR", file=out)
    def addSkip(self, test, reason): print(test.id(), "skipped", file=out)
    def addExpectedFailure(self, test, error): print(test.id(), "ok", file=out)
    def addSubTest(self, test, subtest, error): error and print(test.id(), "FAIL", file=out)
unittest.defaultTestLoader.loadTestsFromName(sys.argv[1]).run(Lines())
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
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([python, "-c", RUNNER, module, lines.name], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           timeout=SECONDS, check=False)
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
