# SPDX-License-Identifier: Apache-2.0
"""Workers that an earlier oriond left, and that end while the next one meets them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from orion_virt.errors import Unavailable
from orion_virt.server import meeting
from orion_virt.server.keeping import Keeping, Kept


def meet(directory: Path, command: str) -> tuple[BaseException, int | None]:
    """Of a process without a listening socket: what is raised, and how the process ended."""
    with subprocess.Popen(["sh", "-c", command]) as process:
        kept = Kept("1", process.pid, 0, None, "it is not readable")
        with pytest.raises((meeting.Gone, Unavailable)) as raised:
            asyncio.run(meeting.meet(Keeping(directory), kept, os.pidfd_open(process.pid)))
        return raised.value, process.wait(30)


def test_one_that_is_just_ending_has_ended(tmp_path: Path) -> None:
    """Its socket is closed a moment before its process is gone: that is nothing to warn of."""
    error, status = meet(tmp_path, "sleep 0.1")
    assert isinstance(error, meeting.Gone) and status == 0


def test_one_that_lives_and_does_not_listen_is_ended(tmp_path: Path) -> None:
    error, status = meet(tmp_path, "exec sleep 300")
    assert isinstance(error, Unavailable) and status == -9
