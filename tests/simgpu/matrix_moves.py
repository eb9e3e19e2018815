# SPDX-License-Identifier: Apache-2.0
"""Kernels of ldmatrix, stmatrix and movmatrix, and what they must give by the layout in the PTX manual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LANES = np.arange(32)
# The half-words that a lane holds of an 8 x 8 matrix: row lane / 4, columns 2 * (lane % 4) and the next.
ROWS = np.repeat(LANES // 4, 2).reshape(32, 2)
COLUMNS = (LANES % 4 * 2)[:, None] + np.arange(2)


def held(matrix: np.ndarray, trans: bool) -> np.ndarray:
    """The word of each lane for an 8 x 8 matrix of uint16."""
    m = matrix.T if trans else matrix
    pair = m[ROWS, COLUMNS].astype(np.uint32)
    return pair[:, 0] | pair[:, 1] << 16


@dataclass(frozen=True)
class Move:
    """ldmatrix or stmatrix of `count` matrices."""

    word: str
    count: int
    trans: bool
    space: str  # as the instruction says it; empty: a generic address

    @property
    def text(self) -> str:
        return f"{self.word}.sync.aligned.m8n8.x{self.count}{'.trans' * self.trans}{self.space}.b16"


MOVES = [Move(w, n, t, s) for w in ("ldmatrix", "stmatrix") for n in (1, 2, 4) for t in (False, True)
         for s in (".shared", ".shared::cta", "")]

# in: 32 row numbers of lanes, then 32 x 4 words for the lanes or shared memory of 64 rows of 16 bytes; out: the same.
_KERNEL = """
.visible .entry {name}(.param .u64 p0, .param .u64 p1, .param .u64 p2) {{
.shared .align 16 .b8 rows[1024];
.reg .u32 %l, %r, %a, %v, %r0, %r1, %r2, %r3; .reg .u64 %in, %out, %at, %s, %g; .reg .pred %p;
ld.param.u64 %at, [p0]; ld.param.u64 %in, [p1]; ld.param.u64 %out, [p2];
mov.u32 %l, %tid.x; mul.wide.u32 %s, %l, 4; add.u64 %at, %at, %s; ld.global.u32 %r, [%at];
mul.wide.u32 %s, %l, 32; add.u64 %in, %in, %s; add.u64 %out, %out, %s;
mov.u32 %a, rows; shl.b32 %v, %l, 5; add.u32 %a, %a, %v;
{fill}
bar.sync 0;
mov.u32 %a, rows; add.u32 %a, %a, %r; {generic}
{body}
bar.sync 0;
mov.u32 %a, rows; shl.b32 %v, %l, 5; add.u32 %a, %a, %v;
{drain}
ret; }}"""


def move_kernel(name: str, move: Move) -> str:
    """Lane l fills 32 bytes of shared memory; a load's registers, or what a store left there, go to `out`."""
    registers = [f"%r{k}" for k in range(move.count)]
    vector = "{" + ", ".join(registers) + "}"
    generic = "" if move.space else "cvt.u64.u32 %s, %a; cvta.shared.u64 %g, %s;"
    address = "[%a]" if move.space else "[%g]"
    copy = [f"ld.global.u32 %v, [%in+{4 * k}]; st.shared.u32 [%a+{4 * k}], %v;" for k in range(8)]
    if move.word == "ldmatrix":
        body = f"{move.text} {vector}, {address};"
        drain = [f"st.global.u32 [%out+{4 * k}], {r};" for k, r in enumerate(registers)]
    else:
        body = " ".join(f"ld.global.u32 {r}, [%in+{4 * k}];" for k, r in enumerate(registers)) + f" {move.text} {address}, {vector};"
        drain = [f"ld.shared.u32 %v, [%a+{4 * k}]; st.global.u32 [%out+{4 * k}], %v;" for k in range(8)]
    return _KERNEL.format(name=name, generic=generic, body=body, drain=" ".join(drain), fill=" ".join(copy))


MOVMATRIX = """
.visible .entry movmatrix(.param .u64 p0, .param .u64 p1, .param .u64 p2) {
.reg .u32 %l, %v; .reg .u64 %in, %out, %s;
ld.param.u64 %in, [p1]; ld.param.u64 %out, [p2]; mov.u32 %l, %tid.x; mul.wide.u32 %s, %l, 32;
add.u64 %in, %in, %s; add.u64 %out, %out, %s; ld.global.u32 %v, [%in];
movmatrix.sync.aligned.m8n8.trans.b16 %v, %v; st.global.u32 [%out], %v;
ret; }"""


def module() -> str:
    """PTX of all kernels: k0, k1, ... for MOVES, and movmatrix."""
    kernels = [move_kernel(f"k{n}", move) for n, move in enumerate(MOVES)]
    return ".version 8.1\n.target sm_90\n.address_size 64\n" + "".join(kernels) + MOVMATRIX


def expected(move: Move, offsets: np.ndarray, words: np.ndarray) -> np.ndarray:
    """`out` after a kernel of `move`: row offsets of the lanes in bytes, 32 x 8 words of input."""
    shared = words.copy().view(np.uint16).reshape(64, 8)
    rows = (offsets // 16).reshape(4, 8)
    if move.word == "ldmatrix":
        out = np.zeros((32, 8), np.uint32)
        for k in range(move.count):
            out[:, k] = held(shared[rows[k]], move.trans)
        return out
    for k in range(move.count):
        pairs = words[:, k].copy().view(np.uint16).reshape(32, 2)
        matrix = np.zeros((8, 8), np.uint16)
        matrix[ROWS, COLUMNS] = pairs
        shared[rows[k]] = matrix.T if move.trans else matrix
    return shared.reshape(-1).view(np.uint32).reshape(32, 8)
