# SPDX-License-Identifier: Apache-2.0
"""The device snapshot: what guests are told of the cards before any worker exists."""

from __future__ import annotations

from orion_virt import layout, units
from orion_virt.gpu.inventory import Gpu, Inventory

# A vGPU answers the card's own attributes but these, each for a reason.
OVERRIDES: dict[int, int] = {
    33: 0,  # PCI_BUS_ID: the vGPU's own, filled by the client
    34: 0,  # PCI_DEVICE_ID: same
    50: 0,  # PCI_DOMAIN_ID: same
    88: 0,  # PAGEABLE_MEMORY_ACCESS: the card cannot reach the guest's ordinary memory
    89: 0,  # CONCURRENT_MANAGED_ACCESS: managed memory cannot fault across machines
    100: 0,  # PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES
    101: 0,  # DIRECT_MANAGED_MEM_ACCESS_FROM_HOST
    116: 0,  # GPU_DIRECT_RDMA_SUPPORTED: the guest has no peer device to hand memory to
    124: 0,  # DMA_BUF_SUPPORTED: a file descriptor of the host's means nothing in a guest
    128: 0,  # HANDLE_TYPE_FABRIC_SUPPORTED
    132: 0,  # MULTICAST_SUPPORTED
    134: -1,  # HOST_NUMA_ID: the host's nodes are not the guest's; NCCL allocates there where it is told of one
}


def default_bytes(gpu: Gpu, vgpu_count: int) -> int:
    """Memory of a vGPU that asks for none: an equal share, whole MiB, after the contexts' own cost."""
    share = (gpu.total_bytes - vgpu_count * gpu.base_bytes) // vgpu_count
    return max(0, share // units.MIB * units.MIB)


def build(inventory: Inventory, vgpu_count: int) -> bytes:
    """struct oc_snapshot with as many cards as there are."""
    gpus = inventory.gpus[: layout.SNAP_MAX_GPUS]
    head = layout.SnapHead(len(gpus), inventory.driver_version, int(inventory.simulated), vgpu_count)
    return bytes(head) + b"".join(bytes(_gpu(gpu, vgpu_count)) for gpu in gpus)


def _gpu(gpu: Gpu, vgpu_count: int) -> layout.SnapGpu:
    snap = layout.SnapGpu(total_bytes=gpu.total_bytes, default_bytes=default_bytes(gpu, vgpu_count))
    snap.name = gpu.name.encode()[:95]
    for number, value in gpu.attributes.items():
        if 0 < number < layout.SNAP_ATTRS:
            snap.attr[number] = OVERRIDES.get(number, value)
            snap.attr_valid[number // 8] |= 1 << number % 8
    return snap
