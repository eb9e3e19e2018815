/* SPDX-License-Identifier: Apache-2.0 */
/* Memory and events of another process: whoever exports serves the file of its device memory, piece by piece. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sim.h"

#define MAGIC 0x6370696d69736f01ull
#define SECONDS 5 /* for the exporter to answer */

/* What a handle's 64 bytes are. */
struct handle {
    uint64_t magic, secret;      /* of the exporting process: the name of its socket */
    uint64_t start, bytes, id;   /* there; an id names one allocation for ever */
    int32_t pid, device, kind;   /* enum sim_memory */
    uint32_t reserved;
    uint64_t reserved2;
};
_Static_assert(sizeof(struct handle) == 64 && sizeof(CUipcMemHandle) == 64 && sizeof(CUmemPoolPtrExportData) == 64 &&
               sizeof(CUipcEventHandle) == 64, "a handle's size");

struct opened {
    struct handle handle;
    struct CUctx_st *ctx;
    uint64_t start;
    unsigned refs;
    struct opened *next;
};
static struct opened *opened;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t secret;

static socklen_t address_of(int pid, uint64_t of, struct sockaddr_un *a)
{
    memset(a, 0, sizeof(*a));
    a->sun_family = AF_UNIX; /* an abstract name: it ends with its process */
    int n = snprintf(a->sun_path + 1, sizeof(a->sun_path) - 1, "orion-sim-%d-%016llx", pid, (unsigned long long)of);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

/* Sends `offset` with the file; the offset alone means no. */
static void answer(int to, int fd, uint64_t offset)
{
    union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { 0 };
    struct iovec piece = { &offset, sizeof(offset) };
    struct msghdr m = { .msg_iov = &piece, .msg_iovlen = 1 };

    if (fd >= 0) {
        m.msg_control = control.room;
        m.msg_controllen = sizeof(control.room);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    (void)!sendmsg(to, &m, MSG_NOSIGNAL);
}

static void *serve(void *arg)
{
    int listener = (int)(intptr_t)arg, to;

    while ((to = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0 || errno == EINTR || errno == ECONNABORTED) {
        struct timeval limit = { .tv_sec = SECONDS };
        struct handle h;
        struct sim_range r;
        uint64_t offset = 0;

        if (to < 0)
            continue;
        setsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
        if (recv(to, &h, sizeof(h), MSG_WAITALL) == sizeof(h)) {
            bool live = sim_space_find(h.start, &r) && r.start == h.start && r.id == h.id;
            int fd = live ? sim_space_file(h.start, &offset) : -1;
            answer(to, fd, offset);
        }
        close(to);
    }
    return NULL;
}

/* The service of this process, begun at the first export; false: it cannot be. */
static bool serving(void)
{
    struct sockaddr_un a;
    pthread_t thread;
    int fd = -1;
    bool ok;

    pthread_mutex_lock(&lock);
    ok = secret != 0;
    if (!ok && getrandom(&secret, sizeof(secret), 0) == sizeof(secret)) {
        socklen_t n = address_of(getpid(), secret, &a);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ok = fd >= 0 && !bind(fd, (struct sockaddr *)&a, n) && !listen(fd, 64) &&
             !pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd);
        if (ok)
            pthread_detach(thread);
        else
            secret = 0;
    }
    if (!ok && fd >= 0)
        close(fd);
    pthread_mutex_unlock(&lock);
    return ok;
}

/* The exporter's file and where in it the memory is; -1: the handle means nothing (any more). */
static int fetch(const struct handle *h, uint64_t *offset)
{
    union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
    struct iovec piece = { offset, sizeof(*offset) };
    struct msghdr m = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.room,
                        .msg_controllen = sizeof(control.room) };
    struct timeval limit = { .tv_sec = SECONDS };
    struct sockaddr_un a;
    socklen_t n = address_of(h->pid, h->secret, &a);
    int to = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = -1;

    if (to < 0)
        return -1;
    setsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (!connect(to, (struct sockaddr *)&a, n) && send(to, h, sizeof(*h), MSG_NOSIGNAL) == sizeof(*h) &&
        recvmsg(to, &m, MSG_CMSG_CLOEXEC) == sizeof(*offset)) {
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        if (c && c->cmsg_type == SCM_RIGHTS)
            memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    }
    close(to);
    return fd;
}

/* A handle for the allocation at `start`. */
static CUresult export_range(uint64_t start, enum sim_memory kind, void *to)
{
    struct sim_range r;
    struct handle h = { .magic = MAGIC, .pid = getpid(), .kind = kind };

    if (!sim_space_find(start, &r) || r.kind != kind)
        return CUDA_ERROR_INVALID_VALUE;
    if (!serving())
        return CUDA_ERROR_OUT_OF_MEMORY;
    h.secret = secret;
    h.start = r.start;
    h.bytes = r.bytes;
    h.id = r.id;
    h.device = r.device->ordinal;
    memcpy(to, &h, sizeof(h));
    return CUDA_SUCCESS;
}

/* Maps what a handle of `kind` names as a range of `as`. */
static CUresult import_range(const struct handle *h, enum sim_memory kind, struct sim_range *as)
{
    uint64_t offset = 0;
    CUresult r;
    int fd;

    if (h->magic != MAGIC || h->kind != (int)kind || !sim_device(h->device) || !h->bytes)
        return CUDA_ERROR_INVALID_VALUE;
    if (h->pid == getpid() && h->secret == secret)
        return CUDA_ERROR_INVALID_CONTEXT; /* as the driver answers to the process that exported it */
    fd = fetch(h, &offset);
    if (fd < 0)
        return CUDA_ERROR_INVALID_VALUE;
    as->bytes = h->bytes;
    as->device = sim_device(h->device);
    r = sim_space_open(fd, offset, as);
    close(fd);
    return r;
}

SIM_API CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr p)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    return handle ? export_range(p, SIM_MEM_DEVICE, handle) : CUDA_ERROR_INVALID_VALUE;
}

static struct opened **find_locked(const struct handle *h, uint64_t start)
{
    struct opened **at = &opened;

    while (*at && (h ? memcmp(&(*at)->handle, h, sizeof(*h)) != 0 : (*at)->start != start))
        at = &(*at)->next;
    return at;
}

static CUresult open_locked(const struct handle *h, struct CUctx_st *ctx, CUdeviceptr *p)
{
    struct sim_range range = { .kind = SIM_MEM_OPENED, .ctx = ctx };
    struct opened *o = *find_locked(h, 0);
    CUresult r;

    if (o && o->ctx == ctx) {
        o->refs++;
        *p = o->start;
        return CUDA_SUCCESS;
    }
    if (o) /* one context of a process may have it */
        return CUDA_ERROR_ALREADY_MAPPED;
    o = calloc(1, sizeof(*o));
    if (!o)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = import_range(h, SIM_MEM_DEVICE, &range);
    if (r) {
        free(o);
        return r;
    }
    *o = (struct opened){ .handle = *h, .ctx = ctx, .start = range.start, .refs = 1, .next = opened };
    opened = o;
    *p = range.start;
    return CUDA_SUCCESS;
}

/* Those of contexts that have ended went with them. */
static void forget_locked(void)
{
    struct sim_range r;

    for (struct opened **at = &opened, *o; (o = *at);) {
        if (sim_space_find(o->start, &r) && r.kind == SIM_MEM_OPENED) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        free(o);
    }
}

SIM_API CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *p, CUipcMemHandle handle, unsigned flags)
{
    struct CUctx_st *ctx;
    struct handle h;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!p || flags != 1) /* LAZY_ENABLE_PEER_ACCESS must be given */
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&h, &handle, sizeof(h));
    pthread_mutex_lock(&lock);
    forget_locked();
    r = open_locked(&h, ctx, p);
    pthread_mutex_unlock(&lock);
    return r;
}

SIM_API CUresult cuIpcCloseMemHandle(CUdeviceptr p)
{
    struct CUctx_st *ctx;
    struct opened **at, *o;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    pthread_mutex_lock(&lock);
    forget_locked();
    at = find_locked(NULL, p);
    o = *at;
    if (o && !--o->refs) {
        *at = o->next;
        sim_context_wait(o->ctx);
        sim_space_free(p);
        free(o);
    }
    pthread_mutex_unlock(&lock);
    return o ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- events: their counters lie in device memory ---- */

bool sim_shared_pending(struct sim_shared_event *e, uint64_t count)
{
    int pid;

    if (e->done >= count)
        return false;
    pid = e->recorder;
    return !(pid > 0 && kill(pid, 0) && errno == ESRCH); /* the work of a dead process never ends: it is over */
}

SIM_API CUresult cuIpcGetEventHandle(CUipcEventHandle *handle, CUevent event)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!sim_valid(event, SIM_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!handle || !event->shared)
        return CUDA_ERROR_INVALID_VALUE;
    return export_range((uint64_t)(uintptr_t)event->shared, SIM_MEM_GLOBAL, handle);
}

SIM_API CUresult cuIpcOpenEventHandle(CUevent *event, CUipcEventHandle handle)
{
    struct sim_range range = { .kind = SIM_MEM_GLOBAL };
    struct CUctx_st *ctx;
    struct CUevent_st *e;
    struct handle h;
    CUresult r = sim_enter(&ctx);

    if (!r && !event)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r)
        return r;
    memcpy(&h, &handle, sizeof(h));
    r = import_range(&h, SIM_MEM_GLOBAL, &range);
    if (r)
        return r == CUDA_ERROR_INVALID_VALUE ? CUDA_ERROR_MAP_FAILED : r;
    e = calloc(1, sizeof(*e));
    if (!e || range.bytes < sizeof(*e->shared) || !sim_register(e, SIM_EVENT)) {
        sim_space_free(range.start);
        free(e);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    e->ctx = ctx;
    e->flags = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING;
    e->refs = 1;
    e->shared = (struct sim_shared_event *)(uintptr_t)range.start;
    *event = e;
    return CUDA_SUCCESS;
}

/* ---- memory of pools ---- */

SIM_API CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData *data, CUdeviceptr p)
{
    struct sim_range r;

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!data || !sim_space_find(p, &r) || r.kind != SIM_MEM_POOL ||
        !(((struct CUmemPoolHandle_st *)r.owner)->types & 1u))
        return CUDA_ERROR_INVALID_VALUE;
    return export_range(p, SIM_MEM_POOL, data);
}

SIM_API CUresult cuMemPoolImportPointer(CUdeviceptr *p, CUmemoryPool pool, CUmemPoolPtrExportData *data)
{
    struct sim_range range = { .kind = SIM_MEM_IMPORTED };
    struct handle h;
    CUresult r;

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!p || !data || !sim_valid(pool, SIM_POOL) || !pool->imported)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&h, data, sizeof(h));
    range.owner = pool;
    r = import_range(&h, SIM_MEM_POOL, &range);
    if (!r)
        *p = range.start;
    return r;
}
