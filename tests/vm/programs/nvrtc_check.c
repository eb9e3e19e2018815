/* SPDX-License-Identifier: Apache-2.0 */
/* nvrtc_check SOURCE K1 K2 K3: compiles SOURCE with NVRTC here, runs its kernels and checks them on the CPU.
 * saxpy: y = K1 x + K2 y; matmul: c = K3 a b. Exit 0 when both are right, 1 when not, 2 when something fails. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define N 64
#define CELLS (N * N)

typedef unsigned long long dptr;

static void *nvrtc, *cuda;

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);

    if (!found)
        printf("no %s\n", name), exit(2);
    return found;
}

static void *open_library(const char *name)
{
    void *library = dlopen(name, RTLD_NOW);

    if (!library)
        printf("%s\n", dlerror()), exit(2);
    return library;
}

#define CALL(library, name, types, ...) do { \
    int r_ = ((int (*)types)symbol(library, #name))(__VA_ARGS__); \
    if (r_) \
        printf(#name ": %d\n", r_), exit(2); \
} while (0)

static char *read_file(const char *path)
{
    char *text = calloc(1, 1 << 16);
    FILE *f = fopen(path, "r");

    if (!f || !fread(text, 1, (1 << 16) - 1, f))
        printf("cannot read %s\n", path), exit(2);
    fclose(f);
    return text;
}

static char *compile(const char *source)
{
    const char *options[] = { "--gpu-architecture=compute_75" };
    void *program;
    size_t bytes;
    char *ptx;
    int r;

    CALL(nvrtc, nvrtcCreateProgram, (void **, const char *, const char *, int, void *, void *), &program, source, "k.cu", 0,
         NULL, NULL);
    r = ((int (*)(void *, int, const char **))symbol(nvrtc, "nvrtcCompileProgram"))(program, 1, options);
    if (r) {
        CALL(nvrtc, nvrtcGetProgramLogSize, (void *, size_t *), program, &bytes);
        ptx = calloc(1, bytes + 1);
        CALL(nvrtc, nvrtcGetProgramLog, (void *, char *), program, ptx);
        printf("%s\n", ptx);
        exit(2);
    }
    CALL(nvrtc, nvrtcGetPTXSize, (void *, size_t *), program, &bytes);
    ptx = calloc(1, bytes + 1);
    CALL(nvrtc, nvrtcGetPTX, (void *, char *), program, ptx);
    return ptx;
}

static float *random_floats(void)
{
    float *p = malloc(CELLS * sizeof *p);

    for (int i = 0; i < CELLS; i++)
        p[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    return p;
}

static dptr upload(const float *p)
{
    dptr d;

    CALL(cuda, cuMemAlloc_v2, (dptr *, size_t), &d, CELLS * sizeof *p);
    CALL(cuda, cuMemcpyHtoD_v2, (dptr, const void *, size_t), d, p, CELLS * sizeof *p);
    return d;
}

static void launch(void *module, const char *name, unsigned side, unsigned block, void **params)
{
    void *f;

    CALL(cuda, cuModuleGetFunction, (void **, void *, const char *), &f, module, name);
    CALL(cuda, cuLaunchKernel, (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                                void **), f, side, side, 1, block, block, 1, 0, NULL, params, NULL);
}

static int check(const char *name, dptr result, const double *expected, double allowed)
{
    float *got = malloc(CELLS * sizeof *got);
    double worst = 0;

    CALL(cuda, cuMemcpyDtoH_v2, (void *, dptr, size_t), got, result, CELLS * sizeof *got);
    for (int i = 0; i < CELLS; i++)
        if (!(fabs(got[i] - expected[i]) <= worst)) /* NaN too */
            worst = fabs(got[i] - expected[i]);
    printf("%s: largest error %.2e: %s\n", name, worst, worst <= allowed ? "right" : "WRONG");
    free(got);
    return worst <= allowed;
}

static int run(void *module, const double *k)
{
    float *x = random_floats(), *y = random_floats();
    double *want = malloc(CELLS * sizeof *want);
    unsigned n = N, cells = CELLS;
    dptr dx = upload(x), dy = upload(y), dc = upload(y);
    void *saxpy[] = { &dx, &dy, &cells }, *matmul[] = { &dx, &dy, &dc, &n };
    int ok;

    launch(module, "matmul", N / 16, 16, matmul);
    for (int i = 0; i < CELLS; i++) {
        want[i] = 0;
        for (int j = 0; j < N; j++)
            want[i] += k[2] * x[i / N * N + j] * y[j * N + i % N];
    }
    ok = check("matmul", dc, want, 1e-4);
    launch(module, "saxpy", 4, 16, saxpy);
    for (int i = 0; i < CELLS; i++)
        want[i] = k[0] * x[i] + k[1] * y[i];
    return check("saxpy", dy, want, 1e-5) && ok;
}

int main(int argc, char **argv)
{
    double k[3];
    void *context, *module;
    char *ptx;
    int ok;

    if (argc != 5)
        return 2;
    for (int i = 0; i < 3; i++)
        k[i] = atof(argv[2 + i]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    srand((unsigned)time(NULL));
    nvrtc = open_library("libnvrtc.so");
    cuda = open_library("libcuda.so.1");
    ptx = compile(read_file(argv[1]));
    CALL(cuda, cuInit, (unsigned), 0);
    CALL(cuda, cuDevicePrimaryCtxRetain, (void **, int), &context, 0);
    CALL(cuda, cuCtxSetCurrent, (void *), context);
    CALL(cuda, cuModuleLoadData, (void **, const void *), &module, ptx);
    ok = run(module, k);
    printf("%s\n", ok ? "PASSED" : "FAILED");
    return !ok;
}
