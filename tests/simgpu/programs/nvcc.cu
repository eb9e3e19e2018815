// SPDX-License-Identifier: Apache-2.0
// What NVRTC lacks headers for, so nvcc compiles it: a barrier of a whole grid, alloca.
// run grid 4 64 cooperative
// run on_stack 1 64
#include <cooperative_groups.h>
#define T (blockIdx.x * blockDim.x + threadIdx.x)

extern "C" __global__ void grid(const unsigned *in, unsigned *out)
{
    cooperative_groups::grid_group g = cooperative_groups::this_grid();
    out[256 + T] = in[T] * 7;
    g.sync();
    unsigned r = out[256 + (T + 100) % 256];
    g.sync();
    out[256 + T] = r + 1;
    g.sync();
    out[T] = r + out[256 + (T + 77) % 256] + (unsigned)g.size() + g.thread_rank();
}

extern "C" __global__ void on_stack(const unsigned *in, unsigned *out)
{
    unsigned n = in[T] % 13 + 1, r = 0;
    unsigned *p = (unsigned *)alloca(n * 4);
    for (unsigned k = 0; k < n; k++) p[k] = in[k] + k;
    for (unsigned k = 0; k < n; k++) r += p[(k * 5) % n];
    out[T] = r;
}
