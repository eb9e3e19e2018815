// SPDX-License-Identifier: Apache-2.0
// Kernels of the programs in C; kernels.ptx is what `nvcc -arch=compute_80 -ptx` makes of them, without its comments
// and with the variables visible.
#include <cassert>
#include <cstdio>

extern "C" __global__ void hello(int n)
{
    int r = printf("thread %d says %d %s %.2f %c%%\n", (int)threadIdx.x, n, "text", n * 0.5, 'x');
    if (threadIdx.x == 0)
        printf("counted %d\n", r);
}
extern "C" __global__ void lines(int from, int nr)
{
    for (int i = 0; i < nr; i++)
        printf("line %08d of the many that are printed here\n", from + i);
}
extern "C" __global__ void must_be(int n, int wanted) { assert(n == wanted); }
extern "C" __global__ void trap() { __trap(); }
extern "C" __global__ void store(int *p, int v) { *p = v; }
extern "C" __global__ void add(int *p, int v, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        p[i] += v;
}
extern "C" __global__ void scale(unsigned *p, unsigned k, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        p[i] = p[i] * k + 1;
}
extern "C" __global__ void await(volatile int *flag)
{
    while (!*flag)
        ;
}
extern "C" __global__ void sum_shared(int *p)
{
    extern __shared__ int s[];
    int sum = 0;
    s[threadIdx.x] = p[threadIdx.x];
    __syncthreads();
    for (int i = 0; i < (int)blockDim.x; i++)
        sum += s[i];
    __syncthreads();
    p[threadIdx.x] = sum;
}
extern "C" {
__device__ int counter = 5;
__device__ __managed__ int managed_number = 7;
__device__ __managed__ int managed_table[1000];
}
extern "C" __global__ void count() { counter += 1; }
extern "C" __global__ void managed_step(int n)
{
    if (threadIdx.x == 0)
        managed_number += n;
    for (int i = threadIdx.x; i < 1000; i += blockDim.x)
        managed_table[i] = managed_table[i] * 2 + n;
}
