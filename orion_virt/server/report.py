# SPDX-License-Identifier: Apache-2.0
"""What oriond tells its controller at each heartbeat, for the web page: how busy cards and processes are."""

from __future__ import annotations

from typing import Any

from orion_virt.server.contract import Parts
from orion_virt.server.metrics import POWER_MW, TEMPERATURE

_KEPT = ("pid", "comm", "busy_percent", "calls_per_second", "bytes_per_second", "transport")


async def report(parts: Parts) -> dict[str, Any]:
    """Cards, processes by their allocation, names of the domains that have a region or a process."""
    processes, loads = await parts.usage.processes()
    look = await parts.usage.look()
    used = [0] * len(loads)
    for process in processes:
        for device in process["devices"]:
            used[device["gpu"]] += device["used_bytes"]
    known = {region.uuid for region in parts.regions} | {p["domain"] for p in processes}
    names = await parts.names.known(known - {""})
    figures = look.figures or [{} for _ in loads]
    return {
        "gpus": [{"index": i, "busy_percent": loads[i], "used_bytes": used[i], "temperature_celsius": figures[i].get(TEMPERATURE),
                  "power_watts": None if (power := figures[i].get(POWER_MW)) is None else power / 1000} for i in range(len(loads))],
        "processes": [{key: process[key] for key in _KEPT} | {
            "allocation": process["allocation"], "used_bytes": sum(d["used_bytes"] for d in process["devices"])} for process in processes],
        "names": {uuid: names[uuid] for uuid in sorted(known) if uuid in names},
    }
