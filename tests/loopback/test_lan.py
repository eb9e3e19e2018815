# SPDX-License-Identifier: Apache-2.0
"""What needs addresses that are not loopback: lan.py and hosts.py, each in a network namespace of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from host import ROOT


@pytest.mark.parametrize("script", ["lan.py", "hosts.py"])
def test_in_a_network_namespace(tmp_path, script):
    if os.geteuid() != 0 or not shutil.which("openssl") or not shutil.which("etcd"):
        pytest.skip("root, openssl and etcd are needed")
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(["unshare", "-n", sys.executable, str(Path(__file__).with_name(script)), str(tmp_path)],
                          capture_output=True, text=True, env=env, timeout=300)
    assert done.stdout.endswith("in order\n"), done.stdout + done.stderr
