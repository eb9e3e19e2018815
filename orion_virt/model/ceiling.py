# SPDX-License-Identifier: Apache-2.0
"""What the processes of one domain may have at most, as its owner wrote it into the domain's metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ceiling:
    """None: no ceiling. A vGPU belongs to a process, so do ``vgpus`` and ``memory_mib`` (of each vGPU); ``total`` is
    the number of vGPUs that all processes of the domain have at a time. ``compute``: percent of a card's time for each vGPU."""

    vgpus: int | None = None
    memory_mib: int | None = None
    total: int | None = None
    compute: int | None = None


@dataclass(frozen=True)
class Refusal:
    """Why a process gets nothing, and what its user can do."""

    reason: str
    remedy: str
    passes: bool = False  # it ends when other processes of the domain end


def refusal(ceiling: Ceiling, memory_bytes: Sequence[int], in_use: int) -> Refusal | None:
    """``memory_bytes``: of each vGPU that a process asks for. ``in_use``: vGPUs that the domain's others have."""
    asked = len(memory_bytes)
    if ceiling.vgpus is not None and asked > ceiling.vgpus:
        return Refusal(
            f"{asked} vGPU asked for, this domain's processes may have {ceiling.vgpus} each",
            f"Set ORION_VGPU={ceiling.vgpus} or less; on the host: orion-virt set DOMAIN --vgpus N",
        )
    most = max(memory_bytes, default=0)
    if ceiling.memory_mib is not None and most > ceiling.memory_mib << 20:
        return Refusal(
            f"{most >> 20} MiB of a vGPU asked for, this domain's vGPUs may have {ceiling.memory_mib} MiB each",
            f"Set ORION_GMEM={ceiling.memory_mib} or less; on the host: orion-virt set DOMAIN --memory MIB",
        )
    if ceiling.total is not None and in_use + asked > ceiling.total:
        passes = asked <= ceiling.total
        what = "End one of its CUDA processes" if passes else f"Set ORION_VGPU={ceiling.total} or less"
        return Refusal(
            f"{asked} vGPU asked for, {in_use} of the {ceiling.total} that this domain may have are in use",
            f"{what}; on the host: orion-virt set DOMAIN --total N",
            passes,
        )
    return None
