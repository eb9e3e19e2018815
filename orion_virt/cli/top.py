# SPDX-License-Identifier: Apache-2.0
"""`orion-virt top`: what the processes of all guests have and do, refreshed."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

import click

from orion_virt.cli import list as listing
from orion_virt.cli import output
from orion_virt.cli.control import ask
from orion_virt.errors import OrionError

COLUMNS = ("DOMAIN", "PID", "COMMAND", "VGPUS", "MEMORY", "BUSY", "CALLS/S", "COPIES", "TIME", "KERNEL")
_HOME_AND_CLEAR, _TO_END = "\x1b[H\x1b[J", "\x1b[K"


def look() -> dict[str, Any]:
    """One picture: cards, processes, sums, names of domains."""
    found = ask("processes")
    del found["ok"]
    try:
        names = ask("names")["by_uuid"]
    except OrionError:  # libvirt is not followed, or is down: UUIDs must do
        names = {}
    for process in found["processes"]:
        process["name"] = names.get(process["domain"], process["domain"] or process["peer"])
    found["processes"].sort(key=lambda p: (-p["busy_percent"], -p["calls_per_second"], p["name"], p["pid"]))
    return found


def _clock(seconds: float) -> str:
    return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{int(seconds % 60):02}"


def _kernel(found: dict[str, Any] | None) -> str:
    """How far the longest of a process's kernels is: blocks done of all, and how long it has run."""
    return f"{found['blocks_done']}/{found['blocks']} {_clock(found['seconds'])} {found['name']}" if found else "-"


def row(process: dict[str, Any]) -> tuple[str, ...]:
    """One process's line."""
    used = sum(d["used_bytes"] for d in process["devices"])
    limit = sum(d["memory_bytes"] for d in process["devices"])
    one = process | {"processes": 1, "vgpus": len(process["devices"]), "used_bytes": used, "memory_bytes": limit}
    vgpus, memory, _, calls, copies = listing.usage(one)
    return (
        process["name"],
        str(process["pid"]),
        process["comm"],
        vgpus,
        memory,
        f"{process['busy_percent']}%",
        calls,
        copies,
        _clock(process["seconds"]),
        _kernel(process.get("kernel")),
    )


def picture(found: dict[str, Any]) -> list[str]:
    """Lines for people."""
    total = found["total"]
    lines = [
        f"GPU {i} {gpu['name']}: {gpu['busy_percent']}% busy, {gpu['total_bytes'] >> 20} MiB"
        for i, gpu in enumerate(found["gpus"])
    ]
    lines.append(
        f"{total['processes']} processes, {total['vgpus']} of {len(found['gpus']) * found['vgpu_count']} vGPUs, "
        f"{total['used_bytes'] >> 20} of {total['memory_bytes'] >> 20} MiB, {total['calls_per_second']} calls/s, "
        f"{total['bytes_per_second'] / 1e6:.1f} MB/s"
    )
    return [*lines, "", *output.table([COLUMNS, *map(row, found["processes"])]).splitlines()]


def _draw(lines: list[str]) -> None:
    """The part that fits, over what was there; without a terminal one picture after the other."""
    if not sys.stdout.isatty():
        click.echo("\n".join(lines) + "\n")
        return
    width, height = shutil.get_terminal_size()
    shown = [line[:width] + _TO_END for line in lines[: height - 1]]
    click.echo(_HOME_AND_CLEAR + "\n".join(shown), nl=False, color=True)


@click.command()
@click.option("--once", is_flag=True, help="One picture, then the end.")
@click.option("--interval", type=click.FloatRange(0.5, 3600), default=1.0, show_default=True, metavar="SECONDS")
@output.json_option
def top(once: bool, interval: float, as_json: bool) -> None:
    """Shows every guest process that uses a vGPU, the busiest first, until Ctrl-C.

    BUSY is its share of its card's time in the last second; PID is the guest's. KERNEL is how many of its blocks the kernel
    that has run for longest has done, for how long it runs, and its name: on the simulated GPU, for kernels of more than a
    second; a card does not tell. With --json each picture is one line.
    """
    try:
        while True:
            found = look()
            if as_json:
                click.echo(json.dumps(found))
            else:
                _draw(picture(found))
            if once:
                return
            sys.stdout.flush()
            time.sleep(interval)
    except KeyboardInterrupt:
        click.echo()
