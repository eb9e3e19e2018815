// SPDX-License-Identifier: Apache-2.0
// Two processes share memory, events and pools: `shared NAME` starts `shared NAME FD`, both check what the other did.
#include <cuda.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern char **environ;
static int failed;
static int peer = -1;
static const char *who = "shows";

#define NAME_(x) #x
#define NAME(x) NAME_(x)
/* No program links the driver; the macros of cuda.h choose the newest version of a name. */
#define D(function) ((decltype(&function))symbol(NAME(function)))
#define CHECK(call)                                                                                \
    do {                                                                                           \
        int r_ = (int)(call);                                                                      \
        if (r_) {                                                                                  \
            printf("%s: %s:%d %s: %d\n", who, __func__, __LINE__, #call, r_);                      \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static void *symbol(const char *name)
{
    static void *library = dlopen("libcuda.so.1", RTLD_NOW);
    void *found = library ? dlsym(library, name) : nullptr;

    if (!found) {
        printf("no %s\n", name);
        exit(1);
    }
    return found;
}
static void is(const char *what, bool right)
{
    printf("%s: %s: %s\n", who, what, right ? "right" : "WRONG");
    failed |= !right;
}
/* Answers that are part of what must be the same, whatever they are. */
static void answers(const char *what, int got)
{
    printf("%s: %s: %d\n", who, what, got);
    failed |= !got;
    cudaGetLastError();
}

/* ---- between the two ---- */

static void put(const void *data, size_t bytes, int fd = -1)
{
    char room[CMSG_SPACE(sizeof(int))] = {};
    iovec piece = { const_cast<void *>(data), bytes };
    msghdr m = {};

    m.msg_iov = &piece;
    m.msg_iovlen = 1;
    if (fd >= 0) {
        m.msg_control = room;
        m.msg_controllen = sizeof(room);
        cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    if (sendmsg(peer, &m, MSG_NOSIGNAL) != (ssize_t)bytes) {
        printf("%s: the other has gone\n", who);
        exit(1);
    }
}
/* The descriptor that came along, -1: none. */
static int get(void *data, size_t bytes)
{
    char room[CMSG_SPACE(sizeof(int))] = {};
    iovec piece = { data, bytes };
    msghdr m = {};
    int fd = -1;

    m.msg_iov = &piece;
    m.msg_iovlen = 1;
    m.msg_control = room;
    m.msg_controllen = sizeof(room);
    if (recvmsg(peer, &m, 0) != (ssize_t)bytes) {
        printf("%s: the other has gone\n", who);
        exit(1);
    }
    if (CMSG_FIRSTHDR(&m))
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
    return fd;
}
static void tell(char what) { put(&what, 1); }
static void hear(char what)
{
    char got = 0;
    get(&got, 1);
    if (got != what) {
        printf("%s: heard %c, not %c\n", who, got, what);
        exit(1);
    }
}

/* ---- work ---- */

__global__ void fill(int *p, int n, int seed)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        p[i] = i * 3 + seed;
}
__global__ void more(int *p, int n, int number)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        p[i] += number;
}
__global__ void slowly(long long clocks)
{
    long long begin = clock64();
    while (clock64() - begin < clocks)
        ;
}

static bool holds(const void *device, int n, int seed)
{
    std::vector<int> host(n);
    CHECK(cudaMemcpy(host.data(), device, n * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; i++)
        if (host[i] != i * 3 + seed) {
            printf("%s: element %d is %d, not %d\n", who, i, host[i], i * 3 + seed);
            return false;
        }
    return true;
}
static unsigned blocks(int n) { return (unsigned)(n + 255) / 256; }

const int N = 5000000, FEW = 300;

/* Two allocations, one in the middle of a block of the driver's, and two events that put their kernels in order. */
struct simple {
    cudaIpcMemHandle_t large, small;
    cudaIpcEventHandle_t done, back;
};
static void simple_shows()
{
    int *large, *first, *small;
    cudaEvent_t done, back, plain;
    simple s, again;
    void *p;

    CHECK(cudaMalloc(&large, N * sizeof(int)));
    CHECK(cudaMalloc(&first, 1000));
    CHECK(cudaMalloc(&small, FEW * sizeof(int)));
    CHECK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming | cudaEventInterprocess));
    CHECK(cudaEventCreateWithFlags(&back, cudaEventDisableTiming | cudaEventInterprocess));
    CHECK(cudaEventCreateWithFlags(&plain, cudaEventDisableTiming));
    CHECK(cudaIpcGetMemHandle(&s.large, large));
    CHECK(cudaIpcGetMemHandle(&again.large, large));
    is("one handle for one allocation", !memcmp(&s.large, &again.large, sizeof(s.large)));
    CHECK(cudaIpcGetMemHandle(&s.small, small));
    CHECK(cudaIpcGetEventHandle(&s.done, done));
    CHECK(cudaIpcGetEventHandle(&s.back, back));
    answers("a handle of an event that may not be shared", cudaIpcGetEventHandle(&again.done, plain));
    answers("opened where it was made", cudaIpcOpenMemHandle(&p, s.large, cudaIpcMemLazyEnablePeerAccess));
    fill<<<blocks(FEW), 256>>>(small, FEW, 1);
    slowly<<<1, 1>>>(300000000);
    fill<<<blocks(N), 256>>>(large, N, 2);
    CHECK(cudaEventRecord(done));
    put(&s, sizeof(s));
    hear('r');
    CHECK(cudaStreamWaitEvent(0, back, 0));
    more<<<blocks(N), 256>>>(large, N, 10);
    CHECK(cudaDeviceSynchronize());
    is("what both added", holds(large, N, 112));
    is("the small one", holds(small, FEW, 6));
    tell('e');
    hear('c');
    CHECK(cudaFree(large));
    CHECK(cudaFree(small));
}
static void simple_opens()
{
    cudaEvent_t done, back;
    int *large, *again, *small;
    CUdeviceptr base;
    size_t bytes;
    simple s;

    CHECK(cudaFree(nullptr));
    get(&s, sizeof(s));
    CHECK(cudaIpcOpenEventHandle(&done, s.done));
    CHECK(cudaIpcOpenEventHandle(&back, s.back));
    CHECK(cudaIpcOpenMemHandle((void **)&large, s.large, cudaIpcMemLazyEnablePeerAccess));
    CHECK(cudaIpcOpenMemHandle((void **)&again, s.large, cudaIpcMemLazyEnablePeerAccess));
    CHECK(cudaIpcOpenMemHandle((void **)&small, s.small, cudaIpcMemLazyEnablePeerAccess));
    is("the same pointer", large == again);
    CHECK(D(cuMemGetAddressRange)(&base, &bytes, (CUdeviceptr)(large + 100)));
    is("its base", base == (CUdeviceptr)large);
    CHECK(cudaStreamWaitEvent(0, done, 0));
    more<<<blocks(N), 256>>>(large, N, 100);
    more<<<blocks(FEW), 256>>>(small, FEW, 5);
    CHECK(cudaEventRecord(back));
    tell('r');
    CHECK(cudaEventSynchronize(back));
    hear('e');
    is("what both added", holds(large, N, 112));
    CHECK(cudaIpcCloseMemHandle(again));
    is("still open", holds(large, N, 112));
    CHECK(cudaIpcCloseMemHandle(large));
    CHECK(cudaIpcCloseMemHandle(small));
    CHECK(cudaEventDestroy(done));
    tell('c');
}

/* ---- physical memory by descriptor ---- */

static CUmemAllocationProp shareable()
{
    CUmemAllocationProp prop = {};
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    return prop;
}
static int *mapped(CUmemGenericAllocationHandle handle, size_t bytes)
{
    CUmemAccessDesc access = { { CU_MEM_LOCATION_TYPE_DEVICE, 0 }, CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
    CUdeviceptr at;

    CHECK(D(cuMemAddressReserve)(&at, bytes, 0, 0, 0));
    CHECK(D(cuMemMap)(at, bytes, 0, handle, 0));
    CHECK(D(cuMemSetAccess)(at, bytes, &access, 1));
    return (int *)at;
}
static void unmapped(int *at, size_t bytes)
{
    CHECK(D(cuMemUnmap)((CUdeviceptr)at, bytes));
    CHECK(D(cuMemAddressFree)((CUdeviceptr)at, bytes));
}
static const size_t BYTES = 8 << 20;
const int WORDS = (int)(BYTES / sizeof(int));

static void vmm_shows()
{
    CUmemGenericAllocationHandle handle, held, own;
    CUmemAllocationProp prop = shareable();
    int fd = -1;

    CHECK(cudaFree(nullptr));
    CHECK(D(cuMemCreate)(&handle, BYTES, &prop, 0));
    int *p = mapped(handle, BYTES);
    fill<<<blocks(WORDS), 256>>>(p, WORDS, 3);
    CHECK(cudaDeviceSynchronize());
    CHECK(D(cuMemRetainAllocationHandle)(&held, p + 1000));
    is("the handle of an address", held == handle);
    CHECK(D(cuMemRelease)(held));
    CHECK(D(cuMemExportToShareableHandle)(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    int copy = dup(fd);
    close(fd);
    CHECK(D(cuMemImportFromShareableHandle)(&own, (void *)(intptr_t)copy, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    int *twice = mapped(own, BYTES);
    is("imported where it was made", holds(twice, WORDS, 3));
    unmapped(twice, BYTES);
    CHECK(D(cuMemRelease)(own));
    put("f", 1, copy);
    close(copy);
    hear('w');
    is("what the other wrote", holds(p, WORDS, 4));
    CHECK(D(cuMemRelease)(handle));
    unmapped(p, BYTES);
    tell('g');
    hear('d');
}
static void vmm_opens()
{
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop = {};
    char c;

    CHECK(cudaFree(nullptr));
    int fd = get(&c, 1);
    CHECK(D(cuMemImportFromShareableHandle)(&handle, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    close(fd);
    CHECK(D(cuMemGetAllocationPropertiesFromHandle)(&prop, handle));
    is("its properties", prop.type == CU_MEM_ALLOCATION_TYPE_PINNED && prop.location.id == 0 &&
                             prop.location.type == CU_MEM_LOCATION_TYPE_DEVICE);
    int *p = mapped(handle, BYTES);
    is("imported", holds(p, WORDS, 3));
    more<<<blocks(WORDS), 256>>>(p, WORDS, 1);
    CHECK(cudaDeviceSynchronize());
    tell('w');
    hear('g');
    is("memory that only this process has", holds(p, WORDS, 4));
    unmapped(p, BYTES);
    CHECK(D(cuMemRelease)(handle));
    tell('d');
}

/* ---- pools ---- */

static void pool_shows()
{
    cudaMemPoolProps props = {};
    cudaMemPoolPtrExportData data;
    cudaMemPool_t pool, plain;
    cudaStream_t stream;
    int fd = -1;
    int *p;

    CHECK(cudaFree(nullptr));
    CHECK(cudaStreamCreate(&stream));
    props.allocType = cudaMemAllocationTypePinned;
    props.location.type = cudaMemLocationTypeDevice;
    CHECK(cudaMemPoolCreate(&plain, &props));
    answers("a pool that may not be shared",
            cudaMemPoolExportToShareableHandle(&fd, plain, cudaMemHandleTypePosixFileDescriptor, 0));
    props.handleTypes = cudaMemHandleTypePosixFileDescriptor;
    CHECK(cudaMemPoolCreate(&pool, &props));
    CHECK(cudaMemPoolExportToShareableHandle(&fd, pool, cudaMemHandleTypePosixFileDescriptor, 0));
    CHECK(cudaMallocFromPoolAsync((void **)&p, N * sizeof(int), pool, stream));
    fill<<<blocks(N), 256, 0, stream>>>(p, N, 7);
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemPoolExportPointer(&data, p));
    put(&data, sizeof(data), fd);
    close(fd);
    hear('w');
    is("what the other wrote", holds(p, N, 8));
    CHECK(cudaFreeAsync(p, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemPoolDestroy(pool));
    CHECK(cudaMemPoolDestroy(plain));
}
static void pool_opens()
{
    cudaMemPoolPtrExportData data;
    cudaMemAccessDesc access = {};
    cudaMemPool_t pool;
    cudaStream_t stream;
    int *p;

    CHECK(cudaFree(nullptr));
    CHECK(cudaStreamCreate(&stream));
    int fd = get(&data, sizeof(data));
    CHECK(cudaMemPoolImportFromShareableHandle(&pool, (void *)(intptr_t)fd, cudaMemHandleTypePosixFileDescriptor, 0));
    close(fd);
    access.location.type = cudaMemLocationTypeDevice;
    access.flags = cudaMemAccessFlagsProtReadWrite;
    CHECK(cudaMemPoolSetAccess(pool, &access, 1));
    CHECK(cudaMemPoolImportPointer((void **)&p, pool, &data));
    is("imported", holds(p, N, 7));
    more<<<blocks(N), 256, 0, stream>>>(p, N, 1);
    CHECK(cudaFreeAsync(p, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaMemPoolDestroy(pool));
    tell('w');
}

/* ---- pages of a file in memory that both register ---- */

const int PAGES_WORDS = 1 << 20;

static int *registered(int fd)
{
    int *p = (int *)mmap(nullptr, PAGES_WORDS * sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *device;

    if (p == MAP_FAILED)
        exit(1);
    if (who[0] == 's')
        for (int i = 0; i < PAGES_WORDS; i++)
            p[i] = i * 3 + 1;
    CHECK(cudaHostRegister(p, PAGES_WORDS * sizeof(int), cudaHostRegisterPortable | cudaHostRegisterMapped));
    CHECK(cudaHostGetDevicePointer((void **)&device, p, 0));
    is("the device's address is the host's", device == p);
    return p;
}
static bool reads(const int *p, int seed)
{
    for (int i = 0; i < PAGES_WORDS; i++)
        if (p[i] != i * 3 + seed)
            return false;
    return true;
}
static void pages_shows()
{
    CHECK(cudaFree(nullptr));
    int fd = memfd_create("pages", 0);
    if (ftruncate(fd, PAGES_WORDS * sizeof(int)))
        exit(1);
    int *p = registered(fd);
    more<<<blocks(PAGES_WORDS), 256>>>(p, PAGES_WORDS, 10);
    CHECK(cudaDeviceSynchronize());
    is("what our GPU added", reads(p, 11));
    put("f", 1, fd);
    hear('a');
    is("what the other's GPU added", reads(p, 111));
    CHECK(cudaHostUnregister(p));
    is("after the end of registration", reads(p, 111));
    tell('u');
    hear('d');
}
static void pages_opens()
{
    char c;
    CHECK(cudaFree(nullptr));
    int fd = get(&c, 1);
    int *p = registered(fd);
    is("what the other's GPU added", reads(p, 11));
    more<<<blocks(PAGES_WORDS), 256>>>(p, PAGES_WORDS, 100);
    CHECK(cudaDeviceSynchronize());
    tell('a');
    hear('u');
    is("after the end of the other's", reads(p, 111));
    CHECK(cudaHostUnregister(p));
    is("in the file", reads(p, 111));
    tell('d');
}

/* ---- what is wrong ---- */

static void wrong_shows()
{
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop = shareable();
    cudaIpcMemHandle_t memory = {};
    cudaIpcEventHandle_t event = {};
    cudaMemPoolPtrExportData data;
    cudaEvent_t opened;
    int *p, on_host;
    void *q;
    int fd;

    CHECK(cudaMalloc(&p, 1000));
    CHECK(cudaMallocAsync((void **)&q, 1000, 0));
    CHECK(cudaDeviceSynchronize());
    answers("a handle of pool memory", cudaIpcGetMemHandle(&memory, q));
    answers("a handle of host memory", cudaIpcGetMemHandle(&memory, &on_host));
    answers("pool data of other memory", cudaMemPoolExportPointer(&data, p));
    memset(&memory, 0, sizeof(memory));
    answers("zeros opened", cudaIpcOpenMemHandle(&q, memory, cudaIpcMemLazyEnablePeerAccess));
    answers("zeros opened as an event", cudaIpcOpenEventHandle(&opened, event));
    answers("memory closed that is not open", cudaIpcCloseMemHandle(p));
    prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_NONE;
    CHECK(D(cuMemCreate)(&handle, BYTES, &prop, 0));
    answers("exported as what was not asked for",
            D(cuMemExportToShareableHandle)(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    CHECK(D(cuMemRelease)(handle));
    answers("a handle of an address without one", D(cuMemRetainAllocationHandle)(&handle, p));
}
static void wrong_opens() {}

/* ---- the two processes ---- */

static const struct body {
    const char *name;
    void (*shows)();
    void (*opens)();
} bodies[] = {
    { "simple", simple_shows, simple_opens },
    { "vmm", vmm_shows, vmm_opens },
    { "pool", pool_shows, pool_opens },
    { "pages", pages_shows, pages_opens },
    { "wrong", wrong_shows, wrong_opens },
};

static pid_t other(char *program, char *name)
{
    int pair[2];
    char number[16];
    char *argv[] = { program, name, number, nullptr };
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair))
        exit(1);
    peer = pair[0];
    snprintf(number, sizeof(number), "%d", pair[1]);
    if (posix_spawn(&pid, "/proc/self/exe", nullptr, nullptr, argv, environ))
        exit(1);
    close(pair[1]);
    return pid;
}

int main(int argc, char **argv)
{
    int status = 1;

    for (const body &b : bodies) {
        if (argc < 2) {
            puts(b.name);
        } else if (!strcmp(b.name, argv[1]) && argc > 2) {
            who = "opens";
            peer = atoi(argv[2]);
            b.opens();
            fflush(stdout);
            _exit(failed);
        } else if (!strcmp(b.name, argv[1])) {
            pid_t pid = other(argv[0], argv[1]);
            b.shows();
            waitpid(pid, &status, 0);
            printf("the other: %d\n", status);
            return failed || status;
        }
    }
    return argc < 2 ? 0 : 2;
}
