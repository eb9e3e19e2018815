# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of on_others.py: addition, softmax over rows, matrix product."""

import triton
import triton.language as tl


@triton.jit
def add(x, y, out, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(out + i, tl.load(x + i, mask=i < n) + tl.load(y + i, mask=i < n), mask=i < n)


@triton.jit
def softmax(x, out, width, B: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, B)
    v = tl.load(x + row * width + i, mask=i < width, other=-float("inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(out + row * width + i, e / tl.sum(e, 0), mask=i < width)


@triton.jit
def matmul(a, b, c, n, k, B: tl.constexpr, K: tl.constexpr):
    rows = tl.program_id(0) * B + tl.arange(0, B)
    columns = tl.program_id(1) * B + tl.arange(0, B)
    inner, total = tl.arange(0, K), tl.zeros((B, B), dtype=tl.float32)
    for at in range(0, k, K):
        left = tl.load(a + rows[:, None] * k + (at + inner)[None, :])
        right = tl.load(b + (at + inner)[:, None] * n + columns[None, :])
        total += tl.dot(left, right)
    tl.store(c + rows[:, None] * n + columns[None, :], total)
