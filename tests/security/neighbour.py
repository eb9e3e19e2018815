# SPDX-License-Identifier: Apache-2.0
"""A well-behaved CUDA process beside the hostile ones: computes and checks until its input ends, then says DONE."""

from __future__ import annotations

import select
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "loopback"))

from client import setup, turn  # noqa: E402


def main() -> None:
    pointer, value = setup(), 0
    print("READY", flush=True)
    while not select.select([sys.stdin], [], [], 0.03)[0]:
        value = (value + 1) % 256
        if not turn(pointer, value):
            sys.exit("wrong bytes")
    print("DONE" if turn(pointer, 77) else "wrong bytes", flush=True)


if __name__ == "__main__":
    main()
