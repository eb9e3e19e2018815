// SPDX-License-Identifier: Apache-2.0
// What the programs on CUDA arrays share: checks, sums, and textures and surfaces of an array.
#ifndef ARRAYS_H
#define ARRAYS_H

#include <cuda.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

static int failed;

#define CHECK(call)                                                                            \
    do {                                                                                       \
        cudaError_t e_ = (call);                                                               \
        if (e_ != cudaSuccess) {                                                               \
            printf("%s:%d %s: %s\n", __func__, __LINE__, #call, cudaGetErrorName(e_));         \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

/* A function of the driver API as the runtime finds it: no program links the driver. */
template <typename... P> static CUresult ask_of(unsigned version, const char *name, P... args)
{
    void *entry = nullptr;
    cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion(name, &entry, version, cudaEnableDefault, &found) != cudaSuccess || !entry)
        return CUDA_ERROR_NOT_FOUND;
    return ((CUresult(*)(P...))entry)(args...);
}
template <typename... P> static CUresult ask(const char *name, P... args)
{
    return ask_of(13000, name, args...);
}
template <typename... P> static void driver(const char *name, P... args)
{
    CUresult r = ask(name, args...);
    if (r != CUDA_SUCCESS) {
        printf("%s: %d\n", name, (int)r);
        exit(1);
    }
}

[[maybe_unused]] static void is(const char *what, bool right)
{
    printf("%s: %s\n", what, right ? "right" : "WRONG");
    failed |= !right;
}
[[maybe_unused]] static void gives(const char *what, cudaError_t got, cudaError_t wanted)
{
    printf("%s: %s\n", what, cudaGetErrorName(got));
    failed |= got != wanted;
    cudaGetLastError();
}
/* Equal on equal hardware; a simulated card may round filters otherwise. */
template <typename T> static void print_sum(const char *what, const std::vector<T> &v)
{
    uint64_t h = 14695981039346656037ull;
    const unsigned char *p = (const unsigned char *)v.data();
    for (size_t i = 0; i < v.size() * sizeof(T); i++)
        h = (h ^ p[i]) * 1099511628211ull;
    printf("%s: %016llx\n", what, (unsigned long long)h);
}
template <typename T> static bool near(const std::vector<T> &a, const std::vector<T> &b, double by)
{
    for (size_t i = 0; i < a.size(); i++)
        if (!(std::fabs((double)a[i] - (double)b[i]) <= by)) {
            printf("element %zu: %g instead of %g\n", i, (double)a[i], (double)b[i]);
            return false;
        }
    return a.size() == b.size();
}
template <typename T> static T *on_device(size_t n)
{
    T *p;
    CHECK(cudaMalloc(&p, n * sizeof(T)));
    CHECK(cudaMemset(p, 0xee, n * sizeof(T)));
    return p;
}
template <typename T> static std::vector<T> back(const T *p, size_t n)
{
    std::vector<T> v(n);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
    return v;
}
[[maybe_unused]] static std::vector<float> ramp(size_t n, unsigned seed = 1)
{
    std::vector<float> v(n);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)((i * 2654435761u + seed * 40503u) >> 8 & 1023);
    return v;
}
[[maybe_unused]] static cudaTextureObject_t texture(cudaArray_t a, cudaTextureAddressMode mode, cudaTextureFilterMode filter,
                                   bool normalized, cudaTextureReadMode read = cudaReadModeElementType)
{
    cudaResourceDesc r = {};
    cudaTextureDesc d = {};
    cudaTextureObject_t t;
    r.resType = cudaResourceTypeArray;
    r.res.array.array = a;
    d.addressMode[0] = d.addressMode[1] = d.addressMode[2] = mode;
    d.filterMode = filter;
    d.normalizedCoords = normalized;
    d.readMode = read;
    CHECK(cudaCreateTextureObject(&t, &r, &d, nullptr));
    return t;
}

[[maybe_unused]] static cudaSurfaceObject_t surface(cudaArray_t a)
{
    cudaResourceDesc r = {};
    cudaSurfaceObject_t s;
    r.resType = cudaResourceTypeArray;
    r.res.array.array = a;
    CHECK(cudaCreateSurfaceObject(&s, &r));
    return s;
}

/* A program's bodies: runs the one that argv names, else prints all names. */
struct body {
    const char *name;
    void (*run)();
};
template <size_t N> static int run_named(const body (&all)[N], int argc, char **argv)
{
    for (auto &b : all)
        if (argc > 1 && !strcmp(argv[1], b.name)) {
            b.run();
            return failed;
        }
    for (auto &b : all)
        puts(b.name);
    return 2;
}

#endif
