/* SPDX-License-Identifier: Apache-2.0 */
/* Managed memory: allocated, and as variables of a module, used by CPU and GPU in turn. */
#include "program.h"

enum { N = 1000 };

static void step(CUstream s, int n)
{
    void *parameters[] = { &n };

    MUST(launch("managed_step", 1, 128, s, parameters));
}

static int *variable(const char *name, size_t expected)
{
    CUdeviceptr p = 0;
    size_t bytes = 0;

    MUST(cuModuleGetGlobal_v2(&p, &bytes, module, name));
    printf("%s: right size %d\n", name, bytes == expected);
    return (int *)(uintptr_t)p;
}

static int wrong(const int *p, int factor, int plus)
{
    int bad = 0;

    for (int i = 0; i < N; i++)
        bad += p[i] != i * factor + plus;
    return bad;
}

static void variables(void)
{
    int *number, *table, v = 0;
    CUdeviceptr d;
    CUstream s;
    CUevent e;

    start();
    s = new_stream();
    MUST(cuEventCreate(&e, 0));
    number = variable("managed_number", 4);
    table = variable("managed_table", N * 4);
    printf("%d %d\n", *number, wrong(table, 0, 0));
    for (int i = 0; i < N; i++)
        table[i] = i;
    step(s, 5);
    MUST(cuStreamSynchronize(s));
    printf("stream %d %d\n", *number, wrong(table, 2, 5));
    *number = 100;
    step(s, 7);
    MUST(cuEventRecord(e, s));
    MUST(cuEventSynchronize(e));
    printf("event %d %d\n", *number, wrong(table, 4, 17));
    step(NULL, 1);
    MUST(cuCtxSynchronize());
    printf("context %d %d\n", *number, wrong(table, 8, 35));
    *number = 77; /* the host's words are the device's at the next copy */
    d = device_memory(64);
    MUST(cuMemcpyDtoD_v2(d, (CUdeviceptr)(uintptr_t)number, 4));
    MUST(cuMemcpyDtoH_v2(&v, d, 4));
    printf("copy %d\n", v);
    v = 33;
    MUST(cuMemcpyHtoD_v2((CUdeviceptr)(uintptr_t)number, &v, 4));
    printf("copied %d\n", *number);
    MUST(cuMemcpyDtoH_v2(&v, (CUdeviceptr)(uintptr_t)number, 4));
    printf("back %d\n", v);
    *number = 3;
    MUST(cuCtxSynchronize()); /* nothing ran: it stays */
    printf("kept %d\n", *number);
}

static void of_a_library(void)
{
    CUlibrary library = NULL;
    CUkernel kernel = NULL;
    CUdeviceptr p = 0;
    size_t bytes = 0;
    int n = 4, *number;
    void *parameters[] = { &n };

    start();
    MUST(cuLibraryLoadData(&library, read_image(), NULL, NULL, 0, NULL, NULL, 0));
    MUST(cuLibraryGetKernel(&kernel, library, "managed_step"));
    MUST(cuLaunchKernel((CUfunction)kernel, 1, 1, 1, 32, 1, 1, 0, NULL, parameters, NULL));
    MUST(cuCtxSynchronize());
    SAY(cuLibraryGetManaged(&p, &bytes, library, "managed_number"));
    SAY(cuLibraryGetManaged(&p, &bytes, library, "no such variable"));
    SAY(cuLibraryGetManaged(&p, &bytes, library, "managed_number"));
    number = (int *)(uintptr_t)p;
    printf("%zu bytes, %d\n", bytes, *number);
    *number = -1;
    MUST(cuLaunchKernel((CUfunction)kernel, 1, 1, 1, 32, 1, 1, 0, NULL, parameters, NULL));
    MUST(cuCtxSynchronize());
    printf("%d\n", *number);
}

/* In the manner of UnifiedMemoryStreams: tasks alternate between CPU and GPU. */
static void streams(void)
{
    CUstream s[4];
    CUdeviceptr p[4];
    long bad = 0;

    start();
    for (int k = 0; k < 4; k++) {
        s[k] = new_stream();
        MUST(cuMemAllocManaged(&p[k], N * 4, CU_MEM_ATTACH_GLOBAL));
        for (int i = 0; i < N; i++)
            ((int *)(uintptr_t)p[k])[i] = i * (k + 1);
    }
    for (int round = 0; round < 20; round++) {
        int v = round, n = N;

        for (int k = 0; k < 4; k++) {
            void *parameters[] = { &p[k], &v, &n };

            MUST(launch("add", 8, 128, s[k], parameters));
        }
        MUST(cuCtxSynchronize());
        for (int k = 0; k < 4; k++)
            for (int i = 0; i < N; i++)
                ((int *)(uintptr_t)p[k])[i] += 1;
    }
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < N; i++)
            bad += ((int *)(uintptr_t)p[k])[i] != i * (k + 1) + 190 + 20;
        SAY(cuMemFree_v2(p[k]));
    }
    printf("wrong %ld\n", bad);
}

static void attributes(void)
{
    CUdeviceptr p, q = 0;
    unsigned managed = 9;
    int *number, value = 0;

    start();
    number = variable("managed_number", 4);
    MUST(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 0));
    printf("managed memory %d\n", value);
    SAY(cuMemAllocManaged(&p, 0, CU_MEM_ATTACH_GLOBAL));
    SAY(cuMemAllocManaged(&p, 4096, 0));
    SAY(cuMemAllocManaged(&p, 4096, CU_MEM_ATTACH_GLOBAL));
    SAY(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, p + 5));
    printf("%u\n", managed);
    SAY(cuPointerGetAttribute(&q, CU_POINTER_ATTRIBUTE_HOST_POINTER, p + 8));
    printf("%d\n", q == p + 8);
    SAY(cuPointerGetAttribute(&q, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, p + 8));
    printf("%d\n", q == p + 8);
    SAY(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, (CUdeviceptr)(uintptr_t)number));
    printf("%u\n", managed);
    SAY(cuMemFree_v2(p));
    SAY(cuMemFree_v2(p));
}

int main(int argc, char **argv)
{
    static const struct body bodies[] = {
        { "variables", variables }, { "of_a_library", of_a_library }, { "streams", streams }, { "attributes", attributes },
    };

    return run_body(bodies, sizeof(bodies) / sizeof(bodies[0]), argc, argv);
}
