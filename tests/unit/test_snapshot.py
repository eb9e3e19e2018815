# SPDX-License-Identifier: Apache-2.0
"""What guests are told of a card: its own attributes but for those that would mislead them."""

from __future__ import annotations

from orion_virt import layout
from orion_virt.gpu import snapshot
from orion_virt.gpu.inventory import Gpu, Inventory


def test_attributes_of_the_card_but_for_the_overrides() -> None:
    attributes = dict.fromkeys(range(1, 150), 7)
    gpu = Gpu(0, "card", 8 << 30, 0, attributes)
    made = snapshot.build(Inventory(False, "libcuda.so.1", 13000, (gpu,)), 4)
    size = layout.ctypes.sizeof(layout.SnapHead)
    card = layout.SnapGpu.from_buffer_copy(made[size:])
    told = {number: card.attr[number] for number in attributes}
    assert {number for number, value in told.items() if value != 7} == set(snapshot.OVERRIDES)
    assert told[134] == -1  # no NUMA node of the host's
    assert {told[number] for number in (88, 128, 132)} == {0}
