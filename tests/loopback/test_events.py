# SPDX-License-Identifier: Apache-2.0
"""Events that are answered in the guest, and the bound on launches in flight, on the simulated GPU."""

import sys
from pathlib import Path

import host
import pytest

CLIENT = Path(__file__).with_name("event_client.py")
CASES = "local shared_mark threads capture graph_record error reset timed ahead".split()


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    """One host side for all cases; it fails at its end if anything leaked."""
    with host.running(tmp_path_factory.mktemp("events")) as running:
        yield running


@pytest.mark.parametrize("case", CASES)
def test_events(side, case):
    done = side.run([sys.executable, str(CLIENT), case], timeout=180)
    assert done.returncode == 0 and done.stdout.endswith("OK\n"), f"{done.stdout}{done.stderr}\n{side.output()[-3000:]}"
