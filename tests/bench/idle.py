# SPDX-License-Identifier: Apache-2.0
"""Processor time with idle clients: python3 tests/bench/idle.py [--clients 10] [--seconds 60] [--mailbox] [--domains N].

Daemon, controller and workers on the simulated GPU; each client has a context and then sleeps. --mailbox: clients reach
the host through the region alone. --domains: so many more domains, which do nothing. One JSON line for each part.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import host  # noqa: E402

CLIENT = """
import sys
sys.path.insert(0, sys.argv[1])
import client
client.turn(client.setup(), 7)
print("READY", flush=True)
sys.stdin.read()
"""


def ticks(pids: list[int]) -> int:
    """User and system time of the processes, in clock ticks (proc(5), stat)."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--mailbox", action="store_true")
    parser.add_argument("--domains", type=int, default=0)
    args = parser.parse_args()
    config = f"[server]\nvgpu_count = {args.clients + 1}\n"
    with (tempfile.TemporaryDirectory() as folder,
          host.running(folder, config=config, region_mib=256, network=not args.mailbox) as running):
        others = [str(uuid.uuid4()) for _ in range(args.domains)]
        for other in others:
            running.command("region-create", uuid=other, size_mib=2, network=False)
        clients = [subprocess.Popen([sys.executable, "-c", CLIENT, str(ROOT / "tests" / "loopback")], env=running.env, text=True,
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                   for _ in range(args.clients)]
        for process in clients:
            if process.stdout.readline() != "READY\n":
                raise SystemExit("idle: a client did not start")
        time.sleep(1)
        parts = {"host": host.processes_of_session(running.process.pid), "oriond": [running.process.pid],
                 "worker": [c["worker"] for c in running.status()["channels"]], "client": [p.pid for p in clients]}
        before = {part: ticks(pids) for part, pids in parts.items()}
        time.sleep(args.seconds)
        spent = {part: (ticks(pids) - before[part]) / os.sysconf("SC_CLK_TCK") for part, pids in parts.items()}
        for process in clients:
            process.communicate()
        for other in others:
            running.command("region-remove", uuid=other)
    for part, seconds in spent.items():
        print(json.dumps({"label": "ours", "name": f"{part}_cpu_{args.clients}_idle_clients_{args.seconds:g}s", "value": seconds,
                          "unit": "s", "processes": len(parts[part])}))


if __name__ == "__main__":
    main()
