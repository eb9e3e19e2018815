# SPDX-License-Identifier: Apache-2.0
"""A controller that the local network reaches: lan.py in a network namespace."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from host import ROOT


def test_token_tls_and_gateways(tmp_path):
    if os.geteuid() != 0 or not shutil.which("openssl"):
        pytest.skip("root and openssl are needed")
    script = str(Path(__file__).with_name("lan.py"))
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(["unshare", "-n", sys.executable, script, str(tmp_path)], capture_output=True, text=True, env=env,
                          timeout=200)
    assert done.stdout.endswith("in order\n"), done.stdout + done.stderr
