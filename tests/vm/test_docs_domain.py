# SPDX-License-Identifier: Apache-2.0
"""The documentation's commands about a domain, on a host with libvirt where `vm1` runs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import blocks
import console
import pytest

from vm.harness import Guest
from vm.stage import Setup, eventually

pytestmark = [pytest.mark.vm, pytest.mark.root]


@pytest.fixture
def env(setup: Setup, tmp_path: Path) -> dict[str, str]:
    """Where the words of the pages are programs that run inside the private host."""
    orion = [sys.executable, "-m", "orion_virt.cli.main"]
    console.program(tmp_path / "orion-virt", *setup.host.argv(orion, blocks.ROOT))
    console.program(tmp_path / "virsh", *setup.host.argv([shutil.which("virsh") or "virsh", "-q"]))
    console.program(tmp_path / "sudo", "env")
    return setup.host.environ | {"PATH": console.path_before(tmp_path)}


def test_commands_about_a_domain(setup: Setup, guests: Callable[..., Guest], env: dict[str, str], tmp_path: Path) -> None:
    """In the order of the pages. The domain's processors stand still: nothing here asks its guest."""
    guests("vm1").define()
    eventually(lambda: setup.oriond.domain("vm1").get("device") == "defined", "oriond has not put the device into the definition")
    setup.libvirt.virsh("start", "--paused", "vm1")
    eventually(lambda: setup.oriond.domain("vm1").get("device") == "live", "oriond does not see the device")
    found = blocks.of("domain")
    assert found
    wrong = [f"{block.where}: {one}" for block in found for one in console.run(block.text, env, tmp_path)]
    assert not wrong, "\n\n".join(wrong)
