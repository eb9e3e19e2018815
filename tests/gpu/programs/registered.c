/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the application's own that it registers: contents, addresses, kernels, and the unusual ends. */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

#define DEVICEMAP 2

static int in_bss[3000], in_data[3000] = { 1, 2, 3 };

static void number(int *p, int n)
{
    for (int i = 0; i < n; i++)
        p[i] = i * 7;
}

static int wrong(const int *p, int n, int factor, int plus)
{
    int bad = 0;

    for (int i = 0; i < n; i++)
        bad += p[i] != i * factor + plus;
    return bad;
}

/* A kernel adds to it by its own address, then both kinds of copies. */
static void use(const char *what, int *p, int n)
{
    int three = 3;
    CUdeviceptr d = 0, scratch = device_memory((size_t)n * 4);
    void *parameters[] = { &p, &three, &n };
    CUstream s = new_stream();

    number(p, n);
    say(what, cuMemHostRegister_v2(p, (size_t)n * 4, DEVICEMAP));
    printf("kept %d\n", wrong(p, n, 7, 0));
    MUST(cuMemHostGetDevicePointer_v2(&d, p, 0));
    printf("one address %d\n", d == (CUdeviceptr)(uintptr_t)p);
    MUST(launch("add", (unsigned)n / 256 + 1, 256, s, parameters));
    MUST(cuMemcpyHtoDAsync_v2(scratch, p, (size_t)n * 4, s));
    MUST(cuStreamSynchronize(s));
    printf("after the kernel %d\n", wrong(p, n, 7, 3));
    number(p, n);
    MUST(cuMemcpyDtoHAsync_v2(p, scratch, (size_t)n * 4, s));
    MUST(cuStreamSynchronize(s));
    printf("after copies %d\n", wrong(p, n, 7, 3));
    SAY(cuMemHostUnregister(p));
    printf("after unregistering %d\n", wrong(p, n, 7, 3));
    number(p, n);
    MUST(cuMemcpyHtoD_v2(scratch, p, (size_t)n * 4));
    MUST(cuMemFree_v2(scratch));
    MUST(cuStreamDestroy_v2(s));
}

static void kinds(void)
{
    int *large, *small, *pages;

    start();
    large = malloc((3 << 20) + 4);
    small = malloc(400);
    pages = mmap(NULL, 5 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    use("large", large, (3 << 18) + 1);
    use("small", small, 100);
    use("pages", pages, 5 << 18);
    use("part of pages", pages + 1024 + 3, 5000);
    use("bss", in_bss, 3000);
    use("data", in_data, 3000);
    free(large);
    free(small);
    munmap(pages, 5 << 20);
}

static void attributes(void)
{
    unsigned type = 0, flags = 0;
    CUdeviceptr d = 0;
    int *p = aligned_alloc(4096, 1 << 20);

    start();
    SAY(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)(uintptr_t)p));
    SAY(cuMemHostRegister_v2(p, 1 << 20, 0));
    SAY(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)(uintptr_t)p));
    SAY(cuPointerGetAttribute(&d, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, (CUdeviceptr)(uintptr_t)p + 40));
    printf("type %u, inside %d\n", type, d == (CUdeviceptr)(uintptr_t)p + 40);
    SAY(cuMemHostGetFlags(&flags, p));
    SAY(cuMemHostUnregister(p));
    SAY(cuMemHostGetDevicePointer_v2(&d, p, 0));
    SAY(cuMemHostGetFlags(&flags, p));
}

static void errors(void)
{
    char *p = aligned_alloc(4096, 1 << 20);

    start();
    SAY(cuMemHostRegister_v2(NULL, 4096, 0));
    SAY(cuMemHostRegister_v2(p, 0, 0));
    SAY(cuMemHostRegister_v2(p, 4096, 1 << 10));
    SAY(cuMemHostUnregister(p));
    SAY(cuMemHostRegister_v2(p + 8192, 65536, 0));
    SAY(cuMemHostRegister_v2(p + 8192, 65536, 0));
    SAY(cuMemHostRegister_v2(p + 16384, 4096, 0));
    SAY(cuMemHostRegister_v2(p, 1 << 20, 0));
    SAY(cuMemHostUnregister(p + 12288));
    SAY(cuMemHostRegister_v2(p, 8192, 0));
    SAY(cuMemHostUnregister(p + 8192));
    SAY(cuMemHostUnregister(p + 8192));
    SAY(cuMemHostUnregister(p));
    SAY(cuMemHostUnregister(NULL));
}

/* The application may map something else where registered memory was. */
static void unmapped(void)
{
    char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    start();
    memset(p, 1, 1 << 20);
    SAY(cuMemHostRegister_v2(p, 1 << 20, DEVICEMAP));
    munmap(p + 65536, 65536);
    if (mmap(p + 65536, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        exit(1);
    memset(p + 65536, 2, 65536);
    cuMemHostUnregister(p); /* what it answers here is the driver's secret */
    printf("%d %d %d\n", p[65535], p[65536], p[131072]);
    memset(p, 3, 1 << 20);
    printf("%d\n", p[(1 << 20) - 1]);
}

/* A child has memory of its own, and no CUDA. */
static void forked(void)
{
    int *p = malloc(1 << 20), status = 0;

    start();
    number(p, 1000);
    SAY(cuMemHostRegister_v2(p, 1 << 20, DEVICEMAP));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        int bad = wrong(p, 1000, 7, 0);
        memset(p, 0, 1 << 20);
        free(p);
        free(malloc(1 << 18));
        _exit(bad != 0);
    }
    waitpid(pid, &status, 0);
    printf("child %d, parent %d\n", status, wrong(p, 1000, 7, 0));
    use("another", malloc(65536), 1000);
    SAY(cuMemHostUnregister(p));
    printf("%d\n", wrong(p, 1000, 7, 0));
    free(p);
}

/* C's own buffers may lie in registered memory until the very end of the process. */
static void left_registered(void)
{
    char *p = aligned_alloc(4096, 65536);

    start();
    SAY(cuMemHostRegister_v2(p, 65536, DEVICEMAP));
    fflush(stdout);
    setvbuf(stdout, p + 100, _IOFBF, 60000);
    printf("written at exit\n");
}

static void reset(void)
{
    int *p = malloc(1 << 20);

    start();
    number(p, 1000);
    SAY(cuMemHostRegister_v2(p, 4000, DEVICEMAP));
    MUST(cuDevicePrimaryCtxReset_v2(0));
    start();
    printf("kept %d\n", wrong(p, 1000, 7, 0));
    use("again", p, 1000);
}

/* Shared memory and files: registered, copied, and seen by other processes. */
static void shared(void)
{
    int *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), status;
    CUdeviceptr d;

    start();
    d = device_memory(1 << 20);
    number(p, 1 << 18);
    SAY(cuMemHostRegister_v2(p, 1 << 20, 0));
    MUST(cuMemcpyHtoDAsync_v2(d, p, 1 << 20, NULL));
    MUST(cuStreamSynchronize(NULL));
    memset(p, 0, 1 << 20);
    MUST(cuMemcpyDtoHAsync_v2(p, d, 1 << 20, NULL));
    MUST(cuStreamSynchronize(NULL));
    printf("%d\n", wrong(p, 1 << 18, 7, 0));
    fflush(stdout);
    if (fork() == 0) {
        p[5] = 99;
        _exit(0);
    }
    wait(&status);
    printf("%d\n", p[5]);
    SAY(cuMemHostUnregister(p));
}

/* More than a small region holds. */
static void too_large(void)
{
    int n = 16 << 20, *p = mmap(NULL, (size_t)n * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CUdeviceptr d;

    start();
    d = device_memory((size_t)n * 4);
    number(p, n);
    SAY(cuMemHostRegister_v2(p, (size_t)n * 4, DEVICEMAP));
    cuMemHostUnregister(p);
    SAY(cuMemHostRegister_v2(p, (size_t)n * 4, 0));
    MUST(cuMemcpyHtoDAsync_v2(d, p, (size_t)n * 4, NULL));
    MUST(cuStreamSynchronize(NULL));
    memset(p, 0, (size_t)n * 4);
    MUST(cuMemcpyDtoHAsync_v2(p, d, (size_t)n * 4, NULL));
    MUST(cuStreamSynchronize(NULL));
    SAY(cuMemHostUnregister(p));
    printf("%d\n", wrong(p, n, 7, 0));
}

/* The worker is killed meanwhile: the application's memory is its own again, and what it was. */
static void lost(void)
{
    int *p = malloc(1 << 20);

    start();
    number(p, 200000);
    MUST(cuMemHostRegister_v2(p, 800000, DEVICEMAP));
    printf("READY\n");
    fflush(stdout);
    while (cuCtxSynchronize() == CUDA_SUCCESS)
        usleep(1000);
    sleep(2);
    printf("wrong %d\n", wrong(p, 200000, 7, 0));
    free(p);
}

int main(int argc, char **argv)
{
    static const struct body bodies[] = {
        { "kinds", kinds }, { "attributes", attributes }, { "errors", errors }, { "unmapped", unmapped },
        { "forked", forked }, { "left_registered", left_registered }, { "reset", reset }, { "shared", shared },
        { "too_large", too_large }, { "lost", lost },
    };

    return run_body(bodies, sizeof(bodies) / sizeof(bodies[0]), argc, argv);
}
