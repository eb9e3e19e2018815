# SPDX-License-Identifier: Apache-2.0
"""With ORION_NO_SKIPS=1 a skip that is not listed fails the run; the closing line of pytest stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SKIPPED = "import pytest\ndef test_one(): pass\ndef test_two(): pytest.skip('no such thing here')\n"
AT_IMPORT = "import pytest\npytest.skip('not at all', allow_module_level=True)\n"
EXPECTED = "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_one(): assert 0\ndef test_two(): pass\n"


def run(folder: Path, text: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(text)
    (folder / "conftest.py").write_text(
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\nimport skips\n"
        "skips.IN_ORDER[:] = [('*fine*', 'no such', 'for this test')]\n"
        "def pytest_configure(config):\n    gate = skips.gate()\n    gate and config.pluginmanager.register(gate)\n")
    env = {k: v for k, v in os.environ.items() if k != "ORION_NO_SKIPS"} | variables
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", folder, *options, folder],
                          env=env, capture_output=True, text=True, timeout=180, cwd=folder, check=False)


@pytest.mark.parametrize(("text", "variables", "status", "last"), [
    (SKIPPED, {}, 0, "1 passed, 1 skipped"),
    (SKIPPED, {"ORION_NO_SKIPS": "1"}, 1, "1 passed, 1 skipped"),
    (SKIPPED.replace("two", "fine"), {"ORION_NO_SKIPS": "1"}, 0, "1 passed, 1 skipped"),
    (EXPECTED, {"ORION_NO_SKIPS": "1"}, 0, "1 passed, 1 xfailed"),
])
@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one", "two"])
def test_gate(tmp_path: Path, options: tuple[str, ...], text: str, variables: dict[str, str], status: int, last: str) -> None:
    done = run(tmp_path, text, *options, **variables)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(last)
    assert ("test_it.py::test_two: Skipped: no such thing here" in done.stdout) == (status == 1)


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one", "two"])
def test_a_whole_file(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "test_other.py").write_text("def test_it(): pass\n")
    done = run(tmp_path, AT_IMPORT, *options, ORION_NO_SKIPS="1")
    assert done.returncode == 1 and "test_it.py: Skipped: not at all" in done.stdout, done.stdout
