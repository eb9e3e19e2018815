# SPDX-License-Identifier: Apache-2.0
"""The host side on the NVIDIA driver, one for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import host as hosts
import pytest


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[hosts.Host]:
    """Daemon and controller; a file that needs another size of region than 1024 MiB says REGION_MIB."""
    size = getattr(request.module, "REGION_MIB", 1024)
    with hosts.running(tmp_path_factory.mktemp("host"), region_mib=size, simulated=False) as running:
        yield running
