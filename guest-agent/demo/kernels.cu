// SPDX-License-Identifier: Apache-2.0
// Kernels of the demo. `make demo-ptx` compiles them with NVRTC to kernels.ptx, which is shipped.
#define TILE 16

extern "C" __global__ void saxpy(float a, const float *x, float *y, unsigned n)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;

    if (i < n)
        y[i] = a * x[i] + y[i];
}

// c = a * b for square row-major matrices whose side n is a multiple of TILE.
extern "C" __global__ void matmul(const float *a, const float *b, float *c, unsigned n)
{
    __shared__ float ta[TILE][TILE], tb[TILE][TILE];
    unsigned row = blockIdx.y * TILE + threadIdx.y, col = blockIdx.x * TILE + threadIdx.x;
    float sum = 0;

    for (unsigned t = 0; t < n; t += TILE) {
        ta[threadIdx.y][threadIdx.x] = a[row * n + t + threadIdx.x];
        tb[threadIdx.y][threadIdx.x] = b[(t + threadIdx.y) * n + col];
        __syncthreads();
        for (unsigned k = 0; k < TILE; k++)
            sum += ta[threadIdx.y][k] * tb[k][threadIdx.x];
        __syncthreads();
    }
    c[row * n + col] = sum;
}
