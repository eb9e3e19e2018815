# SPDX-License-Identifier: Apache-2.0
"""Sizes as people write them."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def mib(n_bytes: int) -> int:
    """Whole MiB in `n_bytes`, rounded down."""
    return n_bytes // MIB


def round_up(value: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `value`."""
    return -(-value // unit) * unit


def power_of_two_at_least(value: int) -> int:
    """The smallest power of two that is not below `value`; QEMU takes no other region size."""
    return 1 << max(0, value - 1).bit_length()
