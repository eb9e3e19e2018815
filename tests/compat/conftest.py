# SPDX-License-Identifier: Apache-2.0
"""A host with two simulated cards of 16 GiB, and a client log that tells everything."""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import host as hosts
import pytest

# What is asked for and rightly refused: (text in the client's log, why).
KNOWN = {
    "private table f8cff95121468b4eb9e2fb469e7c0dd9": "the runtime's question whether another library started it",
    "private table da9151d33ae6cc41a5c04f26d533e328": "of compilers, which go on without it",
    "cuGetProcAddress: cuGraphInstantiateWithParams_ptsz": "a slip of the runtime of 12.1: the name has no such suffix",
    "nvmlDeviceGetNvLinkState is not supported": "a vGPU has no NVLink; so answers a card without",
    "nvmlDeviceGetNvLinkCapability is not supported": "the same",
    "private table 2c8e0ad80710ab4e90dd54719fe5f74b": "of profilers",
}
LACK = re.compile(r"private table \w+|slot \d+ of a private runtime table|\w+ is not supported|cuGetProcAddress: \w+")


@functools.cache
def exported() -> set[str]:
    """Names of the driver functions that our library has."""
    command = ["nm", "-D", "--defined-only", str(hosts.LIB / "guest" / "libcuda.so.1")]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in listed.stdout.splitlines()}


@pytest.fixture(scope="session")
def ours() -> set[str]:
    return exported()


@contextlib.contextmanager
def started(directory: Path) -> Iterator[hosts.Host]:
    cards = {"ORION_SIM_GPUS": "2", "ORION_SIM_MEMORY": "16384"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosts.Host, "server_env", property(lambda self, kept=hosts.Host.server_env.fget: kept(self) | cards))
        with hosts.running(directory, region_mib=512) as running:
            (running.dir / "etc" / "client.conf").write_text("[client-log]\nfile_log_level = DEBUG\n")
            yield running


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Host]:
    with started(tmp_path_factory.mktemp("compat")) as running:
        yield running


@pytest.fixture
def lacks(host: hosts.Host) -> Iterator[Callable[[], set[str]]]:
    """Names of what programs asked the client for in vain since the test began."""
    log = Path(host.env["HOME"]) / ".orion" / "log" / "client.log"
    start = log.stat().st_size if log.exists() else 0

    def lacking() -> set[str]:
        said = log.read_text()[start:] if log.exists() else ""
        newer = {f"cuGetProcAddress: {name}" for name in exported()}  # than the driver that we say we are
        return set(LACK.findall(said)) - set(KNOWN) - newer

    yield lacking
