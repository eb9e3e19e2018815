# SPDX-License-Identifier: Apache-2.0
"""Plants a pattern in device memory as one process and looks for it as the next."""

from __future__ import annotations

from pathlib import Path

import host as hosts
from programs import compiled


def check(host: hosts.Host, folder: Path, mib: int) -> None:
    """`mib` of a vGPU; the second process belongs to another domain."""
    program = str(compiled(folder, "remains"))
    planted = host.run([program, "plant", str(mib)], ORION_GMEM=mib + 64)
    assert planted.stdout == "planted\n", planted.stderr
    other = host.command("region-create", uuid="5eed1e57-0000-4000-8000-000000000001", size_mib=16)
    assert other["ok"], other
    try:
        looked = host.run([program, "look", str(mib)], ORION_GMEM=mib + 64, ORION_REGION=other["path"])
    finally:
        host.command("region-remove", uuid="5eed1e57-0000-4000-8000-000000000001")
    print(looked.stdout, looked.stderr)
    assert looked.stdout.startswith("0 words of the pattern, "), looked.stderr
