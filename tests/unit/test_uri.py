# SPDX-License-Identifier: Apache-2.0
"""One libvirt is served, this machine's; any other gets one clear refusal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from orion_virt import libvirt_uri as uri
from orion_virt.cli.main import main
from orion_virt.errors import ConfigError


@pytest.mark.parametrize(
    "text", ["qemu:///system", "qemu+unix:///system?socket=/run/libvirt/virtqemud-sock", "test:///default"]
)
def test_served(text: str) -> None:
    assert uri.refusal(text) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("qemu:///session", "a user's own libvirt"),
        ("qemu+ssh://host/system", "another machine"),
        ("qemu+tls://host/system", "another machine"),
        ("qemu+ssh:///system", "another machine"),
        ("test+ssh://h/default", "another machine"),
        ("xen:///system", "no URI of QEMU's driver"),
        ("lxc:///", "no URI of QEMU's driver"),
        ("nonsense", "no URI"),
        ("qemu:///embed?root=/tmp/x", "a user's own libvirt"),
    ],
)
def test_refused(text: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(uri.VARIABLE, text)
    with pytest.raises(ConfigError, match=words):
        uri.chosen("qemu:///system")
    done = CliRunner().invoke(main, ["list"])
    assert done.exit_code == 2 and words in done.output and "qemu:///system" in done.output
    assert len(done.output.splitlines()) == 2


def test_oriond_does_not_start_with_it(tmp_path: Path) -> None:
    (tmp_path / "server.conf").write_text(
        "[libvirt]\nuri = qemu:///session\n[server]\ndriver = simulated\nlisten_port = 1\n"
    )
    env = {
        "ORION_RUN": str(tmp_path),
        "ORION_LOG": str(tmp_path),
        "ORION_STATE": str(tmp_path),
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-m", "orion_virt.cli.oriond", "--check-config", "--config", str(tmp_path / "server.conf")],
        env=env,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 2 and "a user's own libvirt" in done.stderr and "Traceback" not in done.stderr


def test_oriond_does_not_start_with_such_a_variable(tmp_path: Path) -> None:
    (tmp_path / "server.conf").write_text("[server]\ndriver = simulated\n")
    env = {f"ORION_{name}": str(tmp_path) for name in ("ETC", "RUN", "LOG", "STATE")}
    env |= {uri.VARIABLE: "qemu+ssh://other/system", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-m", "orion_virt.cli.oriond"], env=env, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 2 and "another machine" in done.stderr and "Traceback" not in done.stderr, done.stderr
