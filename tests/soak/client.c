/* SPDX-License-Identifier: Apache-2.0 */
/* A CUDA process of the fault soak: a neighbour that computes and checks, or one that does what it should not.
 * `client MODE PTX [ARGUMENT]`. It prints "ready" when its context works, waits for a line of its input, and then
 * misbehaves; what CUDA answered is printed as a number. Exit: 0 as it should be, 1 CUDA refused, 3 wrong results. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "program.h"

#define WORDS 4096
#define BIN_NS 20000000u
#define NR_BINS 400000u /* over two hours */

/* What a neighbour tells the soak, by way of a file; times are CLOCK_MONOTONIC. */
struct progress {
    _Atomic uint64_t rounds, wrong, start_ns;
    _Atomic uint32_t bins[NR_BINS]; /* rounds that ended in each 20 ms since start_ns */
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void end(int status)
{
    fflush(NULL);
    _exit(status);
}

/* An answer that ends the process: its number is what the soak expects, or not. */
static void need(const char *what, CUresult r)
{
    static pthread_mutex_t first = PTHREAD_MUTEX_INITIALIZER;

    if (r == CUDA_SUCCESS)
        return;
    pthread_mutex_lock(&first); /* for good: one thread says it */
    printf("%s %d\n", what, (int)r);
    end(1);
}
#define NEED(call) need(#call, call)

static unsigned launched, words[WORDS], back[WORDS];
static CUfunction scale_function;

static void begin(void)
{
    char *image = read_image();

    NEED(cuInit(0));
    NEED(cuDevicePrimaryCtxRetain(&context, 0));
    NEED(cuCtxSetCurrent(context));
    NEED(cuModuleLoadData(&module, image));
    free(image);
    scale_function = function("scale");
}

static void ready(void)
{
    char line[16];

    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof(line), stdin))
        end(0); /* the soak has ended */
}

/* Copies up, changes on the device, copies back; false: the results are wrong. */
static bool round_of(CUdeviceptr p, CUstream stream, unsigned seed)
{
    unsigned nr = 1 + seed % 4, k = seed * 2 + 1;
    int n = WORDS;
    void *parameters[] = { &p, &k, &n };

    for (unsigned i = 0; i < WORDS; i++)
        words[i] = seed ^ (i * 2654435761u);
    NEED(cuMemcpyHtoD_v2(p, words, sizeof(words)));
    for (unsigned j = 0; j < nr; j++)
        NEED(cuLaunchKernel(scale_function, WORDS / 256, 1, 1, 256, 1, 1, 0, stream, parameters, NULL));
    NEED(cuStreamSynchronize(stream));
    NEED(cuMemcpyDtoH_v2(back, p, sizeof(back)));
    for (unsigned i = 0; i < WORDS; i++) {
        unsigned v = words[i];

        for (unsigned j = 0; j < nr; j++)
            v = v * k + 1;
        if (v != back[i])
            return printf("word %u of round %u is %u, not %u\n", i, seed, back[i], v), false;
    }
    launched += nr;
    return true;
}

static void must_compute(void)
{
    CUdeviceptr p = 0;

    NEED(cuMemAlloc_v2(&p, sizeof(words)));
    if (!round_of(p, NULL, 77))
        end(3);
    NEED(cuMemFree_v2(p));
}

static void neighbour(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct progress *told;
    CUdeviceptr p = 0, more = 0;
    CUstream stream = NULL;

    if (fd < 0 || ftruncate(fd, sizeof(*told)))
        end(2);
    told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (told == MAP_FAILED)
        end(2);
    begin();
    NEED(cuMemAlloc_v2(&p, sizeof(words)));
    NEED(cuStreamCreate(&stream, 0)); /* behind the copies, which may still be on their way when they return */
    told->start_ns = now_ns();
    ready();
    for (unsigned seed = 1;; seed++) {
        uint64_t bin;

        if (!round_of(p, stream, seed)) {
            told->wrong++;
            end(3);
        }
        if (seed % 16 == 0) { /* memory comes and goes meanwhile */
            NEED(cuMemAlloc_v2(&more, 3 << 20));
            NEED(cuMemsetD8_v2(more, (unsigned char)seed, 3 << 20));
            NEED(cuMemFree_v2(more));
        }
        bin = (now_ns() - told->start_ns) / BIN_NS;
        told->rounds++;
        if (bin < NR_BINS)
            told->bins[bin]++;
    }
}

/* Launches a kernel that breaks its context; every call after it answers the same. */
static void break_context(const char *kernel, void **parameters)
{
    CUdeviceptr p = 0;
    CUresult r, again;

    need("launch", launch(kernel, 1, 1, NULL, parameters));
    r = cuCtxSynchronize();
    again = cuMemAlloc_v2(&p, 4096);
    printf("fault %d\n", (int)r);
    if (again != r)
        printf("then %d\n", (int)again);
    end(0);
}

static void illegal(const char *unused)
{
    CUdeviceptr bad = 0x10000;
    int v = 1;
    void *parameters[] = { &bad, &v };

    (void)unused;
    begin();
    ready();
    break_context("store", parameters);
}

static void assertion(const char *unused)
{
    int n = 3, wanted = 4;
    void *parameters[] = { &n, &wanted };

    (void)unused;
    begin();
    ready();
    break_context("must_be", parameters);
}

static void trapped(const char *unused)
{
    (void)unused;
    begin();
    ready();
    break_context("trap", NULL);
}

/* A kernel that never ends. "exit" leaves it behind, "wait" waits for it, "more" keeps bringing work behind it. */
static void infinite(const char *how)
{
    int v = 1;
    CUdeviceptr p = 0, flag = 0;
    CUstream stream = NULL;
    void *wait_for[] = { &flag }, *store[] = { &p, &v };

    begin();
    NEED(cuMemAlloc_v2(&flag, 4096));
    NEED(cuMemsetD8_v2(flag, 0, 4096));
    NEED(cuCtxSynchronize());
    NEED(cuMemAlloc_v2(&p, 4096));
    NEED(cuStreamCreate(&stream, 1));
    ready();
    need("launch", launch("await", 1, 1, stream, wait_for));
    puts("running");
    fflush(stdout);
    if (!strcmp(how, "exit"))
        exit(0);
    if (!strcmp(how, "reset")) {
        printf("reset %d\n", (int)cuDevicePrimaryCtxReset_v2(0));
        begin();
        for (int i = 0; i < 15; i++, usleep(100000))
            must_compute();
        end(0);
    }
    for (int i = 0; !strcmp(how, "more") && i < 3000; i++)
        if (launch("store", 1, 1, stream, store)) /* the queue is full, and the host has ended it */
            break;
    printf("fault %d\n", (int)cuCtxSynchronize());
    printf("then %d\n", (int)cuMemAlloc_v2(&p, 4096));
    end(0);
}

static void sleeper(void *unused)
{
    (void)unused;
    usleep(1500000);
}

/* Nothing here runs for longer than 0.4 s, though all of it together does, and some waits for longer. */
static void patient(const char *unused)
{
    CUdeviceptr flags = 0, p = 0;
    CUstream queue = NULL, other = NULL, waits = NULL;
    CUevent event = NULL;
    int v = 1;
    void *store[] = { &p, &v };

    (void)unused;
    begin();
    NEED(cuMemAlloc_v2(&p, 4096));
    NEED(cuMemAlloc_v2(&flags, 4096));
    NEED(cuMemsetD8_v2(flags, 0, 4096));
    NEED(cuCtxSynchronize());
    NEED(cuStreamCreate(&queue, 1));
    NEED(cuStreamCreate(&other, 1));
    NEED(cuStreamCreate(&waits, 1));
    NEED(cuEventCreate(&event, 0));
    ready();
    NEED(cuLaunchHostFunc(waits, sleeper, NULL));
    need("launch", launch("store", 1, 1, waits, store));
    for (int i = 0; i < 5; i++) {
        CUdeviceptr flag = flags + 4 * (unsigned)i;
        void *wait_for[] = { &flag };

        need("launch", launch("await", 1, 1, queue, wait_for));
    }
    NEED(cuEventRecord(event, queue));
    NEED(cuStreamWaitEvent(waits, event, 0));
    need("launch", launch("store", 1, 1, waits, store));
    for (unsigned i = 0; i < 5; i++) {
        usleep(400000);
        NEED(cuMemsetD8Async(flags + 4 * i, 1, 4, other));
        NEED(cuStreamSynchronize(other));
    }
    NEED(cuCtxSynchronize());
    must_compute();
    puts("computed");
    end(0);
}

static void free_twice(const char *unused)
{
    CUdeviceptr p = 0;
    CUstream stream = NULL;
    CUevent event = NULL;
    int right = 0;
    void *host;

    (void)unused;
    begin();
    NEED(cuStreamCreate(&stream, 1));
    NEED(cuMemAlloc_v2(&p, 1 << 20));
    NEED(cuEventCreate(&event, 0));
    NEED(cuMemHostAlloc(&host, 4096, 0));
    ready();
    NEED(cuMemFree_v2(p));
    right += cuMemFree_v2(p) == CUDA_ERROR_INVALID_VALUE;
    right += cuMemFree_v2(p + 512) == CUDA_ERROR_INVALID_VALUE;
    NEED(cuMemFreeHost(host));
    right += cuMemFreeHost(host) == CUDA_ERROR_INVALID_VALUE;
    NEED(cuEventDestroy_v2(event));
    right += cuEventDestroy_v2(event) != CUDA_SUCCESS;
    NEED(cuStreamDestroy_v2(stream));
    right += cuStreamDestroy_v2(stream) != CUDA_SUCCESS;
    NEED(cuModuleUnload(module));
    right += cuModuleUnload(module) != CUDA_SUCCESS;
    printf("refused %d of 6\n", right);
    begin();
    must_compute();
    end(right == 6 ? 0 : 3);
}

static void leak_memory(void)
{
    CUdeviceptr p = 0;
    void *host;

    for (int i = 0; i < 40; i++)
        (void)cuMemAlloc_v2(&p, (size_t)1 << (12 + i % 14)); /* more than it may have: the last are refused */
    for (int i = 0; i < 6; i++)
        (void)cuMemHostAlloc(&host, 3 << 20, 0);
    (void)cuMemAllocManaged(&p, 2 << 20, 1);
    (void)cuMemAllocAsync(&p, 1 << 20, NULL);
    host = aligned_alloc(4096, 4 << 20);
    if (host)
        (void)cuMemHostRegister_v2(host, 4 << 20, 0);
}

/* Everything is left behind, some of it at work. */
static void leak(const char *how)
{
    CUcontext other = NULL;
    CUdeviceptr p = 0;
    unsigned k = 3;
    int n = WORDS;
    void *parameters[] = { &p, &k, &n };
    char *image;

    begin();
    image = read_image();
    leak_memory();
    NEED(cuMemAlloc_v2(&p, sizeof(words)));
    ready();
    for (int i = 0; i < 20; i++) {
        CUstream stream = new_stream();
        CUevent event = NULL;

        NEED(cuEventCreate(&event, 0));
        NEED(cuLaunchKernel(scale_function, WORDS / 256, 1, 1, 256, 1, 1, 0, stream, parameters, NULL));
        NEED(cuEventRecord(event, stream));
    }
    for (int i = 0; i < 3; i++)
        NEED(cuModuleLoadData(&module, image));
    NEED(cuCtxCreate_v2(&other, 0, 0));
    leak_memory();
    if (!strcmp(how, "abort"))
        abort();
    if (!strcmp(how, "segv"))
        raise(SIGSEGV);
    if (!strcmp(how, "exit"))
        exit(0);
    end(0);
}

/* One of a crowd: works, or is refused, and ends. */
static void brief(const char *unused)
{
    (void)unused;
    begin();
    must_compute();
    puts("done");
    end(0);
}

/* Works until something ends it. */
static void busy(const char *unused)
{
    CUdeviceptr p = 0;

    (void)unused;
    begin();
    NEED(cuMemAlloc_v2(&p, sizeof(words)));
    ready();
    for (unsigned seed = 1;; seed++)
        if (!round_of(p, NULL, seed))
            end(3);
}

static void *launches(void *given)
{
    CUdeviceptr p = *(CUdeviceptr *)given;
    CUstream stream = NULL;
    unsigned k = 5;
    int n = WORDS;
    void *parameters[] = { &p, &k, &n };

    NEED(cuCtxSetCurrent(context));
    NEED(cuStreamCreate(&stream, 1));
    for (;;) {
        NEED(cuLaunchKernel(scale_function, WORDS / 256, 1, 1, 256, 1, 1, 0, stream, parameters, NULL));
        if (++launched % 64 == 0)
            NEED(cuStreamSynchronize(stream));
    }
    return NULL;
}

static void threads(const char *unused)
{
    CUdeviceptr p = 0;
    pthread_t thread;

    (void)unused;
    begin();
    NEED(cuMemAlloc_v2(&p, sizeof(words)));
    ready();
    for (int i = 0; i < 6; i++)
        if (pthread_create(&thread, NULL, launches, &p))
            end(2);
    pause();
}

/* Children of a process that has a context: CUDA is not theirs, and their ends are not their parent's. */
static void forks(const char *unused)
{
    CUdeviceptr p = 0;
    int bad = 0;

    (void)unused;
    begin();
    ready();
    for (int i = 0; i < 12; i++) {
        int status = 0;
        pid_t child = fork();

        if (!child)
            _exit(cuMemAlloc_v2(&p, 4096) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
        bad += child < 0 || waitpid(child, &status, 0) != child || status;
    }
    must_compute();
    printf("children %d\n", bad);
    end(bad ? 3 : 0);
}

/* The owner of shared memory, until it is killed. */
static void share_and_wait(int to)
{
    CUipcMemHandle handle;
    CUdeviceptr p = 0;

    begin();
    NEED(cuMemAlloc_v2(&p, sizeof(words)));
    NEED(cuMemsetD8_v2(p, 0x5a, sizeof(words)));
    NEED(cuCtxSynchronize());
    NEED(cuIpcGetMemHandle(&handle, p));
    if (write(to, &handle, sizeof(handle)) != (ssize_t)sizeof(handle))
        end(2);
    for (;;)
        if (!round_of(p + 0, NULL, launched + 1))
            end(3);
}

/* The owner of memory that this process has opened is killed: it stays until this one closes it too. */
static void widow(const char *unused)
{
    CUipcMemHandle handle;
    CUdeviceptr p = 0;
    int pipe_fds[2], status;
    pid_t owner;

    (void)unused;
    if (pipe(pipe_fds))
        end(2);
    owner = fork();
    if (!owner) {
        close(pipe_fds[0]);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        share_and_wait(pipe_fds[1]);
    }
    close(pipe_fds[1]);
    begin();
    if (read(pipe_fds[0], &handle, sizeof(handle)) != (ssize_t)sizeof(handle))
        end(1); /* it has said why */
    NEED(cuIpcOpenMemHandle_v2(&p, handle, 1));
    ready();
    kill(owner, SIGKILL);
    waitpid(owner, &status, 0);
    for (int i = 0; i < 20; i++, usleep(20000))
        if (!round_of(p, NULL, 1000 + (unsigned)i))
            end(3);
    NEED(cuIpcCloseMemHandle(p));
    puts("closed");
    end(0);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*run)(const char *); } modes[] = {
        { "neighbour", neighbour }, { "illegal", illegal }, { "assertion", assertion }, { "trapped", trapped },
        { "infinite", infinite }, { "free-twice", free_twice }, { "leak", leak }, { "brief", brief },
        { "busy", busy }, { "patient", patient }, { "widow", widow }, { "threads", threads }, { "forks", forks },
    };

    if (argc < 3)
        return 2;
    image_path = argv[2];
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (!strcmp(argv[1], modes[i].name))
            modes[i].run(argc > 3 ? argv[3] : "");
    return 2;
}
