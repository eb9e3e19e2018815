# SPDX-License-Identifier: Apache-2.0
"""Where the PTX manual says that each element of a fragment of mma lies, shape by shape, and what its bits mean."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import numpy as np

BITS = {"f16": 16, "bf16": 16, "tf32": 32, "f32": 32, "f64": 64, "s8": 8, "u8": 8, "s4": 4, "u4": 4, "b1": 1, "e4m3": 8, "e5m2": 8,
        "s32": 32}
Place = Callable[[int, int, int], tuple[int, int]]  # of element i, group and number in it: row and column

# (shape, bits of an element): elements of a lane and where they lie, as in "Matrix Fragments for mma".
A: dict[tuple[str, int], tuple[int, Place]] = {
    ("m16n8k8", 16): (4, lambda i, g, t: (g if i < 2 else g + 8, t * 2 + (i & 1))),
    ("m16n8k16", 16): (8, lambda i, g, t: (g if i < 2 or 4 <= i < 6 else g + 8, t * 2 + (i & 1) + (0 if i < 4 else 8))),
    ("m16n8k4", 32): (2, lambda i, g, t: (g if i == 0 else g + 8, t)),
    ("m16n8k8", 32): (4, lambda i, g, t: (g if i in (0, 2) else g + 8, t if i < 2 else t + 4)),
    ("m8n8k4", 64): (1, lambda i, g, t: (g, t)),
    ("m16n8k4", 64): (2, lambda i, g, t: (g if i == 0 else g + 8, t)),
    ("m16n8k8", 64): (4, lambda i, g, t: (g if i in (0, 2) else g + 8, t if i < 2 else t + 4)),
    ("m16n8k16", 64): (8, lambda i, g, t: (g, i * 2 + t) if i % 2 == 0 else (g + 8, i * 2 - 2 + t)),
    ("m8n8k16", 8): (4, lambda i, g, t: (g, t * 4 + i)),
    ("m16n8k16", 8): (8, lambda i, g, t: (g if i < 4 else g + 8, t * 4 + (i & 3))),
    ("m16n8k32", 8): (16, lambda i, g, t: (g if i < 4 or 8 <= i < 12 else g + 8, t * 4 + (i & 3) + (0 if i < 8 else 16))),
    ("m8n8k32", 4): (8, lambda i, g, t: (g, t * 8 + i)),
    ("m16n8k32", 4): (16, lambda i, g, t: (g if i < 8 else g + 8, t * 8 + (i & 7))),
    ("m16n8k64", 4): (32, lambda i, g, t: (g if i < 8 or 16 <= i < 24 else g + 8, t * 8 + (i & 7) + (0 if i < 16 else 32))),
    ("m8n8k128", 1): (32, lambda i, g, t: (g, t * 32 + i)),
    ("m16n8k128", 1): (64, lambda i, g, t: (g if i < 32 else g + 8, t * 32 + (i & 31))),
    ("m16n8k256", 1): (128, lambda i, g, t: (g if i < 32 or 64 <= i < 96 else g + 8, t * 32 + (i & 31) + (0 if i < 64 else 128))),
}
B: dict[tuple[str, int], tuple[int, Place]] = {
    ("m16n8k8", 16): (2, lambda i, g, t: (t * 2 + i, g)),
    ("m16n8k16", 16): (4, lambda i, g, t: (t * 2 + (i & 1) + (0 if i < 2 else 8), g)),
    ("m16n8k4", 32): (1, lambda i, g, t: (t, g)),
    ("m16n8k8", 32): (2, lambda i, g, t: (t if i == 0 else t + 4, g)),
    ("m8n8k4", 64): (1, lambda i, g, t: (t, g)),
    ("m16n8k4", 64): (1, lambda i, g, t: (t, g)),
    ("m16n8k8", 64): (2, lambda i, g, t: (t if i == 0 else t + 4, g)),
    ("m16n8k16", 64): (4, lambda i, g, t: (t + i * 4, g)),
    ("m8n8k16", 8): (4, lambda i, g, t: (t * 4 + i, g)),
    ("m16n8k16", 8): (4, lambda i, g, t: (t * 4 + i, g)),
    ("m16n8k32", 8): (8, lambda i, g, t: (t * 4 + (i & 3) + (0 if i < 4 else 16), g)),
    ("m8n8k32", 4): (8, lambda i, g, t: (t * 8 + i, g)),
    ("m16n8k32", 4): (8, lambda i, g, t: (t * 8 + i, g)),
    ("m16n8k64", 4): (16, lambda i, g, t: (t * 8 + (i & 7) + (0 if i < 8 else 32), g)),
    ("m8n8k128", 1): (32, lambda i, g, t: (t * 32 + i, g)),
    ("m16n8k128", 1): (32, lambda i, g, t: (t * 32 + i, g)),
    ("m16n8k256", 1): (64, lambda i, g, t: (t * 32 + (i & 31) + (0 if i < 32 else 128), g)),
}
C: dict[str, tuple[int, Place]] = {
    "m8n8": (2, lambda i, g, t: (g, t * 2 + i)),
    "m16n8": (4, lambda i, g, t: (g if i < 2 else g + 8, t * 2 + (i & 1))),
}


def fragment(role: str, shape: str, kind: str) -> tuple[int, Place]:
    """How many elements a lane holds of matrix "a", "b" or "c" (d), and where they lie."""
    return C[shape.partition("k")[0]] if role == "c" else {"a": A, "b": B}[role][shape, BITS[kind]]


def registers(role: str, shape: str, kind: str) -> int:
    """Registers of a lane, of 32 bits, or 64 for f64."""
    return max(fragment(role, shape, kind)[0] * BITS[kind] // max(BITS[kind], 32), 1)


def spread(role: str, shape: str, kind: str, matrix: np.ndarray) -> np.ndarray:
    """A matrix of bits as the registers of 32 lanes."""
    nr, place = fragment(role, shape, kind)
    each = max(32 // BITS[kind], 1)
    out = np.zeros((32, registers(role, shape, kind)), np.uint64)
    for lane in range(32):
        for i in range(nr):
            out[lane, i // each] |= np.uint64(int(matrix[place(i, lane >> 2, lane % 4)]) << i % each * BITS[kind])
    return out


def collect(shape: str, kind: str, words: np.ndarray) -> np.ndarray:
    """The accumulator's matrix of bits out of the registers of 32 lanes."""
    nr, place = fragment("c", shape, kind)
    each = max(32 // BITS[kind], 1)
    out = np.zeros((16 if shape.startswith("m16") else 8, 8), np.uint64)
    for lane in range(32):
        for i in range(nr):
            out[place(i, lane >> 2, lane % 4)] = int(words[lane, i // each]) >> i % each * BITS[kind] & ((1 << BITS[kind]) - 1)
    return out


def value(bits: int, kind: str) -> float | int:
    """What an element's bits mean: exact, as Python has it."""
    if kind == "f16":
        return struct.unpack("<e", struct.pack("<H", bits))[0]
    if kind == "e5m2":
        return value(bits << 8, "f16")
    if kind in ("bf16", "tf32", "f32"):
        return struct.unpack("<f", struct.pack("<I", bits << 16 if kind == "bf16" else bits & ~0x1fff if kind == "tf32" else bits))[0]
    if kind == "f64":
        return struct.unpack("<d", struct.pack("<Q", bits))[0]
    if kind == "e4m3":
        if bits & 127 == 127:
            return math.nan
        exponent, fraction = bits >> 3 & 15, bits & 7
        v = math.ldexp(fraction + (8 if exponent else 0), max(exponent, 1) - 10)
        return -v if bits & 128 else v
    return bits - (1 << BITS[kind]) if kind[0] == "s" and bits >> (BITS[kind] - 1) else bits
