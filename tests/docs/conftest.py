# SPDX-License-Identifier: Apache-2.0
"""One host for all pages whose blocks need one."""

from __future__ import annotations

from collections.abc import Iterator

import host as hosts
import pytest


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Host]:
    with hosts.running(tmp_path_factory.mktemp("docs")) as running:
        yield running
