# SPDX-License-Identifier: Apache-2.0
"""A private libvirt with oriond for the VM tests, one for the whole session."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator

import pytest

from orion_virt.errors import OrionError
from vm.harness import Guest, GuestConfig, Oriond, PrivateHost, PrivateLibvirt, guest_cache
from vm.stage import Setup, eventually

CACHE = guest_cache()
SHM_MIB = 1024


@pytest.fixture(scope="session")
def setup() -> Iterator[Setup]:
    if os.geteuid() != 0:
        pytest.skip("a private libvirt needs root")
    command = os.environ.get("ORION_TEST_ORIOND")  # another oriond, e.g. an installed one
    host = PrivateHost(shm_mib=SHM_MIB, cache=CACHE)
    try:
        host.start()
        libvirt = PrivateLibvirt(host)
        libvirt.start()
    except OrionError as error:
        host.stop()
        pytest.skip(str(error))
    try:
        oriond = Oriond(host, SETTINGS, shlex.split(command) if command else None)
        oriond.start()
        yield Setup(host, libvirt, oriond)
    finally:
        host.stop()


SETTINGS = """\
[server]
driver = simulated
"""


@pytest.fixture
def guests(setup: Setup) -> Iterator[Callable[..., Guest]]:
    """Makes guests that are gone at the test's end, with nothing of them left."""
    made: list[Guest] = []

    def make(name: str, **config: object) -> Guest:
        made.append(Guest(setup.libvirt, GuestConfig(name, **config), CACHE))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for guest in made:
        guest.destroy()
    eventually(lambda: setup.regions() == [], f"regions are left: {setup.regions()}")
