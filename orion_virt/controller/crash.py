# SPDX-License-Identifier: Apache-2.0
"""Named places at which a test can kill the controller, to see that nothing is lost or doubled."""

from __future__ import annotations

import os
import signal

CHANGES = ("register", "unregister", "grant", "confirm", "release", "reserve", "wait")
STAGES = ("decided", "begun", "kept")  # before the store is touched, in the middle of its transaction, before the answer
POINTS = tuple(f"{change}.{stage}" for change in CHANGES for stage in STAGES)
_HERE = os.environ.get("ORION_CRASH", "")


def point(change: str, stage: str) -> None:
    """Dies by SIGKILL where ``ORION_CRASH`` names this point."""
    if f"{change}.{stage}" == _HERE:
        os.kill(os.getpid(), signal.SIGKILL)
