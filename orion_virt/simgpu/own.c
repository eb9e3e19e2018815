/* SPDX-License-Identifier: Apache-2.0 */
/* What the driver takes of a card for itself, where ORION_SIM_CONTEXT says so: contexts, local memory, buffers, code, streams; and
 * the part of NVML that tells what this process has of a card. Costs as measured on an H100, of a card with fewer threads. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim.h"

#define THREADS (SIM_MULTIPROCESSORS * 2048ull) /* that run at once, each with its local memory */
#define STACK_OF_BASE 1024u
#define STREAM_BYTES (512u << 10)
#define CODE_OF_FUNCTION 4096u
enum { STACK = 0, PRINTF = 1, HEAP = 2 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* For tests, which find it among the process's descriptors: bytes of each card, and the most that they have been. */
static struct {
    _Atomic uint64_t used, most;
} *seen;

void sim_own_open(void)
{
    size_t bytes = sizeof(*seen) * SIM_MAX_DEVICES;
    int fd = memfd_create("orion-sim-used", MFD_CLOEXEC);
    void *p = fd >= 0 && !ftruncate(fd, (off_t)bytes) ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

    if (p != MAP_FAILED)
        seen = p; /* the descriptor stays open: it is how others find it */
    else if (fd >= 0)
        close(fd);
}

void sim_own_note(const struct sim_device *d)
{
    uint64_t used = d->used_bytes, most;

    if (!seen)
        return;
    seen[d->ordinal].used = used;
    most = seen[d->ordinal].most;
    while (used > most && !__atomic_compare_exchange_n((uint64_t *)&seen[d->ordinal].most, &most, used, false, __ATOMIC_SEQ_CST,
                                                        __ATOMIC_SEQ_CST))
        ;
}

static bool counts(const struct CUctx_st *ctx)
{
    return ctx->device->context_bytes && ctx->own.bytes;
}

static CUresult take_locked(struct CUctx_st *ctx, uint64_t bytes)
{
    if (!sim_space_book(ctx->device, bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    ctx->own.bytes += bytes;
    return CUDA_SUCCESS;
}

CUresult sim_own_begin(struct CUctx_st *ctx)
{
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&lock);
    ctx->own = (struct sim_own){ .stack = STACK_OF_BASE };
    if (ctx->device->context_bytes)
        r = take_locked(ctx, ctx->device->context_bytes);
    pthread_mutex_unlock(&lock);
    return r;
}

void sim_own_end(struct CUctx_st *ctx)
{
    pthread_mutex_lock(&lock);
    sim_space_unbook(ctx->device, ctx->own.bytes);
    ctx->own = (struct sim_own){ 0 };
    pthread_mutex_unlock(&lock);
}

static CUresult stack_locked(struct CUctx_st *ctx, uint64_t bytes)
{
    CUresult r = bytes > ctx->own.stack ? take_locked(ctx, (bytes - ctx->own.stack) * THREADS) : CUDA_SUCCESS;

    if (!r && bytes > ctx->own.stack)
        ctx->own.stack = bytes;
    return r;
}

/* Small things share granules. */
static CUresult small_locked(struct CUctx_st *ctx, uint64_t bytes)
{
    CUresult r = CUDA_SUCCESS;

    if (ctx->own.small + bytes > ctx->own.room)
        r = take_locked(ctx, (bytes + SIM_GRANULE - 1) / SIM_GRANULE * SIM_GRANULE);
    if (r)
        return r;
    if (ctx->own.small + bytes > ctx->own.room)
        ctx->own.room += (bytes + SIM_GRANULE - 1) / SIM_GRANULE * SIM_GRANULE;
    ctx->own.small += bytes;
    return r;
}

static void give_small_locked(struct CUctx_st *ctx, uint64_t bytes)
{
    ctx->own.small -= bytes < ctx->own.small ? bytes : ctx->own.small;
    while (ctx->own.room >= ctx->own.small + SIM_GRANULE) {
        ctx->own.room -= SIM_GRANULE;
        ctx->own.bytes -= SIM_GRANULE;
        sim_space_unbook(ctx->device, SIM_GRANULE);
    }
}

/* Taken by the next code that is loaded. */
static void promise_locked(struct CUctx_st *ctx, CUlimit limit, size_t value)
{
    uint64_t had = ctx->own.set[limit] > ctx->limits[limit] ? ctx->own.set[limit] : ctx->limits[limit];

    if (value <= had)
        return;
    ctx->own.promised += value - had;
    ctx->own.set[limit] = value;
}

CUresult sim_own_limit(struct CUctx_st *ctx, CUlimit limit, size_t value)
{
    CUresult r = CUDA_SUCCESS;

    if (!counts(ctx))
        return r;
    pthread_mutex_lock(&lock);
    if (limit == STACK)
        r = stack_locked(ctx, value);
    else if (limit == PRINTF || limit == HEAP)
        promise_locked(ctx, limit, value);
    pthread_mutex_unlock(&lock);
    return r;
}

CUresult sim_own_load(struct CUctx_st *ctx)
{
    CUresult r = CUDA_SUCCESS;

    if (!counts(ctx))
        return r;
    pthread_mutex_lock(&lock);
    if (ctx->own.promised)
        r = take_locked(ctx, ctx->own.promised);
    if (!r)
        ctx->own.promised = 0;
    pthread_mutex_unlock(&lock);
    return r;
}

CUresult sim_own_stream(struct CUctx_st *ctx, bool begins)
{
    CUresult r = CUDA_SUCCESS;

    if (!counts(ctx))
        return r;
    pthread_mutex_lock(&lock);
    if (begins)
        r = small_locked(ctx, STREAM_BYTES);
    else
        give_small_locked(ctx, STREAM_BYTES);
    pthread_mutex_unlock(&lock);
    return r;
}

CUresult sim_own_run(struct CUctx_st *ctx, struct CUfunc_st *f)
{
    CUresult r = CUDA_SUCCESS;

    if (!counts(ctx) || !f->kernel)
        return r;
    pthread_mutex_lock(&lock);
    if (!f->code_bytes) {
        uint64_t code = CODE_OF_FUNCTION + f->module->image.ptx_bytes / (f->module->nr_functions + 1);

        r = small_locked(ctx, code);
        f->code_bytes = r ? 0 : code;
    }
    if (!r)
        r = stack_locked(ctx, ptx_local_bytes(f->kernel));
    pthread_mutex_unlock(&lock);
    return r;
}

void sim_own_unload(struct CUfunc_st *f)
{
    if (!f->code_bytes || !f->module->ctx->own.bytes)
        return;
    pthread_mutex_lock(&lock);
    give_small_locked(f->module->ctx, f->code_bytes);
    pthread_mutex_unlock(&lock);
}

/* ---- NVML, of which there is this much where contexts take memory ---- */

struct process { /* nvmlProcessInfo_t */
    unsigned pid;
    unsigned long long used_bytes;
    unsigned instance, compute_instance;
};
enum { NVML_SUCCESS = 0, NVML_UNINITIALIZED = 1, NVML_INVALID_ARGUMENT = 2, NVML_NOT_FOUND = 6, NVML_INSUFFICIENT_SIZE = 7 };

SIM_API int nvmlInit_v2(void);
SIM_API int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **device);
SIM_API int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *infos);

int nvmlInit_v2(void)
{
    return cuInit(0) == CUDA_SUCCESS && sim_devices[0].context_bytes ? NVML_SUCCESS : NVML_UNINITIALIZED;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **device)
{
    char own[32];

    if (!bus_id || !device)
        return NVML_INVALID_ARGUMENT;
    for (int i = 0; i < sim_nr_devices; i++)
        if (cuDeviceGetPCIBusId(own, sizeof(own), i) == CUDA_SUCCESS && !strcmp(own, bus_id)) {
            *device = &sim_devices[i];
            return NVML_SUCCESS;
        }
    return NVML_NOT_FOUND;
}

/* The cards of a process are its own: nobody else is on them. */
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *infos)
{
    struct sim_device *d = device;
    unsigned room;

    if (!d || !count)
        return NVML_INVALID_ARGUMENT;
    room = *count;
    *count = d->used_bytes != 0;
    if (room < *count || (*count && !infos))
        return NVML_INSUFFICIENT_SIZE;
    if (*count)
        *infos = (struct process){ .pid = (unsigned)getpid(), .used_bytes = d->used_bytes };
    return NVML_SUCCESS;
}
