// SPDX-License-Identifier: Apache-2.0
// Branches, loops, switches, calls, recursion, pointers to functions.
// run loops 2 64
// run switches 2 64
// run recursion 1 64
// run pointers 1 64
// run virtuals 1 64
// run mutual 1 64
// run early 2 64
// run stack_of_frames 1 64
typedef unsigned long long u64;
#define T (blockIdx.x * blockDim.x + threadIdx.x)

extern "C" __global__ void loops(const unsigned *in, unsigned *out)
{
    unsigned r = 0, v = in[T];
    for (unsigned i = 0; i < v % 17; i++) {
        for (unsigned j = i; j < 20; j++) {
            if ((v >> j & 1) && j > 12) break;
            if ((i + j) % 3 == 0) continue;
            r = r * 33 + j;
        }
        unsigned turns = 0;
        do { r ^= v >> (r & 7); } while ((r & 3) == 1 && ++turns < 9);
    }
    while (v > 1) { v = v & 1 ? v / 2 : v / 3; r++; }
    out[T] = r;
}

extern "C" __global__ void switches(const unsigned *in, unsigned *out)
{
    unsigned r = 0;
    for (int k = 0; k < 8; k++)
        switch (in[T] >> (4 * k) & 15) {
        case 0: r += 3; break;
        case 1: r *= 5;
        case 2: r ^= 0x1234; break;
        case 3: r = r >> 3 | r << 29; break;
        case 4: r -= k; break;
        case 5: r += in[(T + k) % 64]; break;
        case 6: r = ~r; break;
        case 7: case 8: r += 11; break;
        case 9: r = __brev(r); break;
        case 12: goto out_of_here;
        default: r++;
        }
out_of_here:
    out[T] = r;
}

__device__ __noinline__ unsigned ackermann(unsigned m, unsigned n)
{
    return m == 0 ? n + 1 : n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}
__device__ __noinline__ u64 fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
extern "C" __global__ void recursion(const unsigned *in, unsigned *out)
{
    out[T] = ackermann(in[T] % 3, in[T] / 3 % 3) + (unsigned)fibonacci((int)(in[T] % 9)) * 100;
}

typedef unsigned (*operation)(unsigned, unsigned);
__device__ unsigned plus(unsigned a, unsigned b) { return a + b; }
__device__ unsigned times(unsigned a, unsigned b) { return a * b; }
__device__ unsigned folded(unsigned a, unsigned b) { unsigned r = a; for (unsigned k = 0; k < b % 5; k++) r = r * 3 ^ b; return r; }
__device__ operation operations[3] = { plus, times, folded };
__device__ __noinline__ unsigned apply(operation f, unsigned a, unsigned b) { return f(a, b) + 1; }
extern "C" __global__ void pointers(const unsigned *in, unsigned *out)
{
    operation mine = in[T] & 1 ? folded : plus;
    out[T] = operations[in[T] % 3](in[T], T) * 7 + apply(mine, in[T], 3) + (mine == folded);
}

struct shape { __device__ virtual unsigned area() const = 0; unsigned side; __device__ shape(unsigned s) : side(s) { } };
struct square : shape { __device__ square(unsigned s) : shape(s) { } __device__ unsigned area() const override { return side * side; } };
struct strip : shape { unsigned width; __device__ strip(unsigned s, unsigned w) : shape(s), width(w) { }
                       __device__ unsigned area() const override { return side * width + 1; } };
__device__ __noinline__ unsigned total(const shape *a, const shape *b) { return a->area() * 3 + b->area(); }
extern "C" __global__ void virtuals(const unsigned *in, unsigned *out)
{
    square a(in[T] % 100);
    strip b(in[T] % 50, 7);
    const shape *p = in[T] & 8 ? (const shape *)&a : &b;
    out[T] = total(p, &b) + total(&a, p) * 1000;
}

__device__ __noinline__ unsigned odd(unsigned n, unsigned *steps);
__device__ __noinline__ unsigned even(unsigned n, unsigned *steps) { ++*steps; return n == 0 ? 1 : odd(n - 1, steps); }
__device__ __noinline__ unsigned odd(unsigned n, unsigned *steps) { *steps += 3; return n == 0 ? 0 : even(n - 1, steps); }
extern "C" __global__ void mutual(const unsigned *in, unsigned *out)
{
    unsigned steps = 0, r = even(in[T] % 23, &steps);
    out[T] = r * 1000 + steps;
}

extern "C" __global__ void early(const unsigned *in, unsigned *out)
{
    if (in[T] % 5 == 0) { out[T] = 1; return; }
    unsigned r = 2;
    for (int k = 0; k < 10; k++) { r = r * 3 + k; if (r % 7 == in[T] % 7) { out[T] = r; return; } }
    out[T] = r ^ 0x80000000;
}

// Each activation has its own array, whose address goes down to the next.
__device__ __noinline__ unsigned deeper(unsigned *above, int depth)
{
    unsigned mine[4];
    for (int k = 0; k < 4; k++) mine[k] = above[k] * 5 + depth;
    if (depth == 0) { above[1] += 100; return mine[2]; }
    unsigned r = deeper(mine, depth - 1);
    return r + mine[1] + mine[(depth + 1) % 4];
}
extern "C" __global__ void stack_of_frames(const unsigned *in, unsigned *out)
{
    unsigned top[4] = { in[T], 1, 2, 3 };
    out[T] = deeper(top, (int)(in[T] % 6)) + top[1];
}
