/* SPDX-License-Identifier: Apache-2.0 */
/* Enough of CUDA C++ to run a kernel without barriers on the host, one thread after the other: see test_programs.py. */
#include <cstring>

struct dim { unsigned x, y, z; };
static dim threadIdx, blockIdx, blockDim, gridDim;
#define __global__
#define __device__
#define __noinline__ __attribute__((noinline))
static unsigned __brev(unsigned v)
{
    unsigned r = 0;
    for (int k = 0; k < 32; k++)
        r |= (v >> k & 1) << (31 - k);
    return r;
}
extern "C" void run(void (*kernel)(const unsigned *, unsigned *), unsigned grid, unsigned block, const unsigned *in, unsigned *out)
{
    gridDim = dim{ grid, 1, 1 };
    blockDim = dim{ block, 1, 1 };
    for (unsigned b = 0; b < grid; b++)
        for (unsigned t = 0; t < block; t++) {
            blockIdx = dim{ b, 0, 0 };
            threadIdx = dim{ t, 0, 0 };
            kernel(in, out);
        }
}
