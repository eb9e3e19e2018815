/* SPDX-License-Identifier: Apache-2.0 */
/* orion-demo: a CUDA driver program as any other. SAXPY and a tiled matrix product from PTX on random input,
 * checked against the CPU. orion-demo [PTX [N]]; exit 0 when the results are right. */
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int CUresult, CUdevice;
typedef unsigned long long CUdeviceptr;
typedef void *CUcontext, *CUmodule, *CUfunction, *CUstream;

static struct {
    CUresult (*Init)(unsigned);
    CUresult (*GetErrorName)(CUresult, const char **);
    CUresult (*DeviceGetCount)(int *);
    CUresult (*DeviceGet)(CUdevice *, int);
    CUresult (*DeviceGetName)(char *, int, CUdevice);
    CUresult (*DeviceTotalMem_v2)(size_t *, CUdevice);
    CUresult (*DevicePrimaryCtxRetain)(CUcontext *, CUdevice);
    CUresult (*DevicePrimaryCtxRelease_v2)(CUdevice);
    CUresult (*CtxSetCurrent)(CUcontext);
    CUresult (*CtxSynchronize)(void);
    CUresult (*ModuleLoadData)(CUmodule *, const void *);
    CUresult (*ModuleGetFunction)(CUfunction *, CUmodule, const char *);
    CUresult (*MemAlloc_v2)(CUdeviceptr *, size_t);
    CUresult (*MemFree_v2)(CUdeviceptr);
    CUresult (*MemcpyHtoD_v2)(CUdeviceptr, const void *, size_t);
    CUresult (*MemcpyDtoH_v2)(void *, CUdeviceptr, size_t);
    CUresult (*LaunchKernel)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                             CUstream, void **, void **);
} cu;

static void fail(const char *what, CUresult r)
{
    const char *name = "?";

    if (cu.GetErrorName)
        cu.GetErrorName(r, &name);
    fprintf(stderr, "orion-demo: %s failed: %s (%d)\n", what, name, r);
    exit(1);
}
#define CU(call) do { CUresult r_ = cu.call; if (r_) fail("cu" #call, r_); } while (0)

static void load(void)
{
    void *dl = dlopen("libcuda.so.1", RTLD_NOW);

    if (!dl) {
        fprintf(stderr, "orion-demo: %s\nIs the client installed in this guest? Run install-client.\n", dlerror());
        exit(1);
    }
#define SYM(name) do { *(void **)&cu.name = dlsym(dl, "cu" #name); \
    if (!cu.name) { fprintf(stderr, "orion-demo: no symbol cu" #name "\n"); exit(1); } } while (0)
    SYM(Init); SYM(GetErrorName); SYM(DeviceGetCount); SYM(DeviceGet); SYM(DeviceGetName); SYM(DeviceTotalMem_v2);
    SYM(DevicePrimaryCtxRetain); SYM(DevicePrimaryCtxRelease_v2); SYM(CtxSetCurrent); SYM(CtxSynchronize);
    SYM(ModuleLoadData); SYM(ModuleGetFunction); SYM(MemAlloc_v2); SYM(MemFree_v2); SYM(MemcpyHtoD_v2);
    SYM(MemcpyDtoH_v2); SYM(LaunchKernel);
}

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);

    if (!f || !text || !fread(text, 1, (1 << 20) - 1, f)) {
        fprintf(stderr, "orion-demo: cannot read %s\n", path);
        exit(1);
    }
    fclose(f);
    return text;
}

static float random_float(void)
{
    return (float)rand() / (float)RAND_MAX - 0.5f;
}

static float *random_floats(size_t n)
{
    float *p = malloc(n * sizeof *p);

    for (size_t i = 0; i < n; i++)
        p[i] = random_float();
    return p;
}

static CUdeviceptr upload(const float *p, size_t n)
{
    CUdeviceptr d;

    CU(MemAlloc_v2(&d, n * sizeof *p));
    CU(MemcpyHtoD_v2(d, p, n * sizeof *p));
    return d;
}

/* Largest difference to the CPU's result. */
static double saxpy(CUmodule m, unsigned n)
{
    float a = random_float(), *x = random_floats(n), *y = random_floats(n), *back = malloc(n * sizeof *back);
    CUdeviceptr dx = upload(x, n), dy = upload(y, n);
    void *params[] = { &a, &dx, &dy, &n };
    CUfunction f;
    double worst = 0;

    CU(ModuleGetFunction(&f, m, "saxpy"));
    CU(LaunchKernel(f, (n + 255) / 256, 1, 1, 256, 1, 1, 0, NULL, params, NULL));
    CU(CtxSynchronize());
    CU(MemcpyDtoH_v2(back, dy, n * sizeof *back));
    for (unsigned i = 0; i < n; i++)
        worst = fmax(worst, fabs(back[i] - ((double)a * x[i] + y[i])));
    CU(MemFree_v2(dx));
    CU(MemFree_v2(dy));
    free(x), free(y), free(back);
    return worst;
}

static double matmul(CUmodule m, unsigned n)
{
    size_t cells = (size_t)n * n;
    float *a = random_floats(cells), *b = random_floats(cells), *c = calloc(cells, sizeof *c);
    CUdeviceptr da = upload(a, cells), db = upload(b, cells), dc = upload(c, cells);
    void *params[] = { &da, &db, &dc, &n };
    CUfunction f;
    double worst = 0;

    CU(ModuleGetFunction(&f, m, "matmul"));
    CU(LaunchKernel(f, n / 16, n / 16, 1, 16, 16, 1, 0, NULL, params, NULL));
    CU(CtxSynchronize());
    CU(MemcpyDtoH_v2(c, dc, cells * sizeof *c));
    for (unsigned i = 0; i < n; i++)
        for (unsigned j = 0; j < n; j++) {
            double sum = 0;
            for (unsigned k = 0; k < n; k++)
                sum += (double)a[i * n + k] * b[k * n + j];
            worst = fmax(worst, fabs(c[i * n + j] - sum));
        }
    CU(MemFree_v2(da));
    CU(MemFree_v2(db));
    CU(MemFree_v2(dc));
    free(a), free(b), free(c);
    return worst;
}

int main(int argc, char **argv)
{
    const char *ptx = read_file(argc > 1 ? argv[1] : "/usr/lib/orion/demo/kernels.ptx");
    unsigned n = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) & ~15u : 128;
    struct timespec t;
    char name[128];
    size_t bytes;
    int count;
    CUdevice d;
    CUcontext c;
    CUmodule m;

    setvbuf(stdout, NULL, _IOLBF, 0); /* in order with what the library says on stderr */
    clock_gettime(CLOCK_REALTIME, &t);
    srand((unsigned)t.tv_nsec);
    load();
    CU(Init(0));
    CU(DeviceGetCount(&count));
    CU(DeviceGet(&d, 0));
    CU(DeviceGetName(name, sizeof name, d));
    CU(DeviceTotalMem_v2(&bytes, d));
    printf("Device 0 of %d: %s, %.2f GiB\n", count, name, (double)bytes / (1 << 30));
    CU(DevicePrimaryCtxRetain(&c, d));
    CU(CtxSetCurrent(c));
    CU(ModuleLoadData(&m, ptx));
    double e1 = saxpy(m, 1u << 16), e2 = matmul(m, n);
    /* n products of magnitude up to 1/4 summed in fp32 */
    int ok = e1 < 1e-6 && e2 < 1e-6 * n;
    printf("SAXPY of 65536 elements: largest error %.2e\n", e1);
    printf("Matrix product %ux%u: largest error %.2e\n", n, n, e2);
    printf("%s\n", ok ? "PASSED" : "FAILED");
    CU(DevicePrimaryCtxRelease_v2(d));
    return ok ? 0 : 1;
}
