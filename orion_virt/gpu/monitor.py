# SPDX-License-Identifier: Apache-2.0
"""What changes on the cards: `python3 -m orion_virt.gpu.monitor BUS-ID...` answers each line of its input with one of JSON.

A process of its own, since the daemon never loads a driver: a wedged driver holds up this one alone.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pynvml

from orion_virt.gpu import figures


class Monitor:
    """The cards in the daemon's order, by their bus ids."""

    def __init__(self, bus_ids: list[str]) -> None:
        pynvml.nvmlInit()
        self._reader = figures.Reader()
        self._handles = [pynvml.nvmlDeviceGetHandleByPciBusId(bus_id) for bus_id in bus_ids]
        self._seen = [0] * len(bus_ids)  # newest sample's time, in microseconds, by card

    def look(self) -> dict[str, Any]:
        """Live figures of each card, and the load that each host process put on it since the last look."""
        return {
            "figures": [self._reader.figures(handle, live=True) for handle in self._handles],
            "load": [self._load(card) for card in range(len(self._handles))],
        }

    def _load(self, card: int) -> dict[int, tuple[int, int]]:
        try:
            samples = pynvml.nvmlDeviceGetProcessUtilization(self._handles[card], self._seen[card])
        except pynvml.NVMLError:
            return {}  # no process had any load, or the card does not tell
        busy: dict[int, list[tuple[int, int]]] = {}
        for sample in samples:
            self._seen[card] = max(self._seen[card], int(sample.timeStamp))
            if sample.smUtil <= 100 and sample.memUtil <= 100:  # an entry without a sample holds nonsense
                busy.setdefault(int(sample.pid), []).append((int(sample.smUtil), int(sample.memUtil)))
        return {pid: (sum(s for s, _ in found) // len(found), sum(m for _, m in found) // len(found))
                for pid, found in busy.items()}  # fmt: skip


def main() -> int:
    """Ends with its input."""
    try:
        monitor = Monitor(sys.argv[1:])
        for _ in sys.stdin:
            print(json.dumps(monitor.look()), flush=True)
    except (pynvml.NVMLError, OSError) as error:
        print(f"the cards' sensors cannot be read: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
