# SPDX-License-Identifier: Apache-2.0
"""The client in user spaces old and new, against an oriond of this machine through a shared region."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import host
import pytest
from packages.roots import Root

pytestmark = [pytest.mark.root]
GOLDEN = host.ROOT / "tests" / "unit" / "golden" / "check" / "client.txt"
DEMO = ("/usr/lib/orion/demo/orion-demo", "/usr/lib/orion/demo/kernels.ptx", "32")


def check_client(root: Root, oriond: host.Host) -> None:
    """Install, look, compute and remove, with what the root itself has."""
    env = {"ORION_REGION": str(oriond.region), "ORION_SERVER": oriond.server}
    root.put(host.LIB / "install-client", "/tmp/install-client")
    refused = root.run("sh", "/tmp/install-client")
    assert refused.returncode == 1 and "-q" in refused.stderr
    root.must("sh", "/tmp/install-client", "-q")
    root.must("sh", "-c", f"printf '[controller]\\ncontroller_addr = {oriond.controller}\\n' > /etc/orion/client.conf")
    if not (root.path / "sbin/ldconfig").exists():  # no loader's cache there either
        env["LD_LIBRARY_PATH"] = "/usr/lib/orion"

    said = root.must("orion-check", "runtime", "client", **env)
    total = oriond.status()["vgpu_count"]
    assert said.replace(oriond.controller, "33.31.0.1:9123").replace(f"{total} vGPU", "8 vGPU") == GOLDEN.read_text()
    table = json.loads(root.run("orion-check", "install", "client", "--json", **env).stdout)["requirements"]
    assert [label for label, there in table.items() if not there] == ["Shared memory device"]
    assert "Orion Simulated GPU" in root.must("orion-smi", "-L", **env)
    done = root.must(*DEMO, **env)
    assert "PASSED" in done and "over shared memory" in oriond.output()
    assert "PASSED" in root.must(*DEMO, **{k: v for k, v in env.items() if k != "ORION_REGION"})

    root.must("sh", "/tmp/install-client", "-q")  # as an upgrade
    root.must("sh", "/tmp/install-client", "-q", "--uninstall")
    assert not (root.path / "usr/lib/orion").exists() and not (root.path / "usr/bin/orion-check").is_symlink()


@pytest.mark.parametrize("name", ["own", "bare"])
def test_user_space(enter: Callable[[str], Root], oriond_env: host.Host, name: str) -> None:
    root = enter(name)
    assert not list((root.path / "usr/bin").glob("python*"))
    check_client(root, oriond_env)


@pytest.mark.compat
@pytest.mark.parametrize("release", ["bullseye", "bookworm", "trixie"])
def test_release(enter: Callable[[str], Root], oriond_env: host.Host, release: str) -> None:
    root = enter(release)
    assert f"VERSION_CODENAME={release}\n" in Path(root.path / "etc/os-release").read_text()
    check_client(root, oriond_env)
