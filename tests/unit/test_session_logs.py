# SPDX-License-Identifier: Apache-2.0
"""Logs of channels: a guest that starts processes without end fills no disk, and costs no other domain its logs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orion_virt.server import session_logs
from orion_virt.server.session_logs import SessionLogs

US = os.geteuid(), os.getegid()


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionLogs:
    monkeypatch.setattr(session_logs, "KEPT_OF_ONE", 3)
    monkeypatch.setattr(session_logs, "KEPT", 8)
    made = SessionLogs(tmp_path)
    made.start()
    return made


def ran(logs: SessionLogs, channel: int, who: str) -> str:
    with logs.make(channel, who, f"channel {channel}", US) as log:
        name = str(log.name)
    logs.ended(channel)
    return name


def there(directory: Path) -> list[int]:
    """Channels that have a log."""
    return sorted(int(path.read_text().split()[1]) for path in directory.glob("*.log"))


def test_a_bomb_of_one_domain_removes_its_own(logs: SessionLogs, tmp_path: Path) -> None:
    for channel in (1, 2):
        ran(logs, channel, "quiet")
    for channel in range(10, 40):
        ran(logs, channel, "bomb")
    assert there(tmp_path) == [1, 2, 37, 38, 39]


def test_all_together_are_bounded_too(logs: SessionLogs, tmp_path: Path) -> None:
    for channel in range(40):
        ran(logs, channel, f"address {channel}")
    assert there(tmp_path) == list(range(32, 40))
    assert len(logs._of) <= 9 and len(logs._all) == 8


def test_the_log_of_who_runs_stays(logs: SessionLogs, tmp_path: Path) -> None:
    running = logs.make(1, "bomb", "channel 1", US)
    for channel in range(10, 20):
        ran(logs, channel, "bomb")
    assert there(tmp_path) == [1, 17, 18, 19]
    running.close()
    logs.ended(1)
    logs.ended(1)


def test_what_was_there_before_counts(logs: SessionLogs, tmp_path: Path) -> None:
    for channel in range(20):
        (tmp_path / f"20200101-0000{channel:02}-{channel}-aa.log").write_text(f"channel {channel}\n")
    again = SessionLogs(tmp_path)
    again.start()
    assert there(tmp_path) == list(range(12, 20))
