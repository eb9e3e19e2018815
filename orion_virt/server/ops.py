# SPDX-License-Identifier: Apache-2.0
"""Which operations this server knows, as the handshake tells it."""

from __future__ import annotations

import importlib
import pkgutil

from orion_virt.spec import calls


def numbers() -> list[int]:
    """Operation numbers of every call of the spec that crosses."""
    found = []
    for module in pkgutil.iter_modules(calls.__path__):
        family = importlib.import_module(f"{calls.__name__}.{module.name}")
        found += [call.op for call in getattr(family, "CALLS", ()) if getattr(call, "op", None) is not None]
    return sorted(found)


def bitmap() -> str:
    """Hex, bit n of byte n/8 for operation n."""
    known = numbers()
    raw = bytearray(max(known, default=0) // 8 + 1)
    for number in known:
        raw[number // 8] |= 1 << number % 8
    return raw.hex()
