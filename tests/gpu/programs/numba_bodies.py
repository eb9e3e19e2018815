# SPDX-License-Identifier: Apache-2.0
"""Numba kernels of on_others.py: sums in shared memory, a histogram, shuffles, a ufunc."""

import math

import numpy as np
from numba import cuda, float32, float64, vectorize


@cuda.jit(device=True)
def square_of_sine(x):
    return math.sin(x) * math.sin(x)


@cuda.jit
def sums(x, total, out):
    part = cuda.shared.array(256, float64)
    i, t = cuda.grid(1), cuda.threadIdx.x
    part[t] = x[i] if i < x.size else 0.0
    if i < x.size:
        out[i] = square_of_sine(x[i])
    cuda.syncthreads()
    step = 128
    while step:
        if t < step:
            part[t] += part[t + step]
        cuda.syncthreads()
        step //= 2
    if t == 0:
        cuda.atomic.add(total, 0, math.floor(part[0]))


@cuda.jit
def histogram(x, counts):
    start = cuda.grid(1)
    for i in range(start, x.size, cuda.gridsize(1)):
        cuda.atomic.add(counts, x[i], 1)


@cuda.jit
def shuffled(out):
    i = cuda.threadIdx.x
    out[i] = cuda.shfl_xor_sync(0xFFFFFFFF, np.int32(i), 5)


@vectorize([float32(float32, float32)], target="cuda")
def shifted(x, y):
    return x + y * 2
