# SPDX-License-Identifier: Apache-2.0
"""SIGHUP with other settings of [libvirt]: oriond decides anew about the domains that are there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vm.conftest import SETTINGS
from vm.harness import Guest
from vm.stage import Setup, eventually
from vm.test_domain import config_device

pytestmark = [pytest.mark.vm, pytest.mark.root]


def reload(setup: Setup, settings: str) -> None:
    (setup.host.state / "orion" / "etc" / "server.conf").write_text(settings)
    setup.host.run(["sh", "-c", f"kill -HUP $(cat {setup.host.state}/orion/run/oriond.lock)"])


@pytest.mark.parametrize("settings", ["exclude = left-out", "attach = marked"])
def test_a_domain_is_left_out_and_taken_in_again(setup: Setup, guests: Callable[..., Guest], settings: str) -> None:
    guests("left-out").define()
    eventually(lambda: config_device(setup, "left-out") is not None, "no device in the definition")
    try:
        reload(setup, f"{SETTINGS}[libvirt]\n{settings}\n")
        eventually(lambda: config_device(setup, "left-out") is None, "the device is still in the definition")
    finally:
        reload(setup, SETTINGS)
    eventually(lambda: config_device(setup, "left-out") is not None, "the device did not come back")
    assert f"is reloaded: [libvirt] {settings.split()[0]}" in setup.oriond.output()
