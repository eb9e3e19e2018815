/* SPDX-License-Identifier: Apache-2.0 */
/* __managed__ variables: the host's driver has them; here each is a copy at the same address, exchanged when work
 * begins and ends. That is what a program may rely on where concurrentManagedAccess is 0: CPU and GPU take turns. */
#define _GNU_SOURCE
#include "variable.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core.h"
#include "gen/send.h"
#include "maps.h"
#include "memory.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#define PAGE 4096ull
#define LARGEST (1ull << 30)
#define READ_MAX 880u /* of one orion_variable_read */
#define NON_BLOCKING 1 /* CU_STREAM_NON_BLOCKING: the exchange waits for no work of the application's */

struct variable {
    uint64_t start, bytes;
    uint8_t *known, *fresh; /* as both sides last had it; as it comes from the host */
    struct variable *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct variable *all;
static struct { uint64_t context; CUstream stream; } streams[16];
static bool worked; /* since the last exchange after which no work was left */
_Atomic uint32_t og_nr_variables;

static uint8_t *at(uint64_t addr)
{
    return (uint8_t *)(uintptr_t)addr;
}

/* ---- pages ---- */

static bool has_page_locked(uint64_t page)
{
    struct variable *v = all;

    while (v && (page + PAGE <= v->start || page >= v->start + v->bytes))
        v = v->next;
    return v != NULL;
}

/* Only over what we reserved ourselves, which nobody may touch. */
static bool is_reserved(const struct og_map *m, void *unused)
{
    (void)unused;
    return !m->read && !m->write && !m->execute && m->is_private && !m->inode;
}

static bool map_page(uint64_t page)
{
    int how = MAP_PRIVATE | MAP_ANONYMOUS;
    void *p;

    if (page >= OC_DEVICE_LOW && page < OC_DEVICE_HIGH && og_maps_each(page, page + PAGE, is_reserved, NULL))
        how |= MAP_FIXED;
    else
        how |= MAP_FIXED_NOREPLACE;
    p = mmap(at(page), PAGE, PROT_READ | PROT_WRITE, how, -1, 0);
    if (p != MAP_FAILED && p != at(page))
        munmap(p, PAGE);
    return p == at(page);
}

static bool map_locked(uint64_t start, uint64_t bytes)
{
    for (uint64_t page = start & ~(PAGE - 1); page < start + bytes; page += PAGE)
        if (!has_page_locked(page) && !map_page(page))
            return false;
    return true;
}

/* ---- exchange ---- */

static CUresult stream_locked(CUstream *stream)
{
    uint64_t context = og_current();
    unsigned i = 0;

    while (i < 15 && streams[i].context && streams[i].context != context)
        i++;
    *stream = streams[i].stream;
    if (streams[i].context == context && og_stream_valid((uint64_t)(uintptr_t)*stream))
        return CUDA_SUCCESS;
    streams[i].context = context;
    return cuStreamCreate(&streams[i].stream, NON_BLOCKING) == CUDA_SUCCESS ? (*stream = streams[i].stream, CUDA_SUCCESS)
                                                                            : CUDA_ERROR_INVALID_CONTEXT;
}

/* What the application has changed goes to the host. */
static CUresult send_locked(struct variable *v, CUstream stream)
{
    uint64_t from = 0, to = v->bytes;
    CUresult r;

    if (!memcmp(v->known, at(v->start), v->bytes))
        return CUDA_SUCCESS;
    while (v->known[from] == at(v->start)[from])
        from++;
    while (v->known[to - 1] == at(v->start)[to - 1])
        to--;
    memcpy(v->known + from, at(v->start) + from, to - from);
    r = cuMemcpyHtoDAsync_v2(v->start + from, v->known + from, to - from, stream);
    return r == CUDA_SUCCESS ? cuStreamSynchronize(stream) : r;
}

/* What the GPU has changed comes here, and only that: the application may be writing other parts. */
static CUresult fetch_locked(struct variable *v, CUstream stream)
{
    CUresult r = cuMemcpyDtoHAsync_v2(v->fresh, v->start, v->bytes, stream);

    for (uint64_t i = 0; r == CUDA_SUCCESS && i < v->bytes; i++) {
        if (v->fresh[i] == v->known[i])
            continue;
        at(v->start)[i] = v->known[i] = v->fresh[i];
    }
    return r;
}

/* A variable that the host does not know any more went with its module. */
static void exchange_locked(CUresult (*with)(struct variable *v, CUstream stream))
{
    struct variable **p = &all, *v;
    CUstream stream;

    if (stream_locked(&stream) != CUDA_SUCCESS)
        return;
    while ((v = *p) != NULL) {
        if (with(v, stream) != CUDA_ERROR_INVALID_VALUE) {
            p = &v->next;
            continue;
        }
        *p = v->next;
        free(v->known);
        free(v->fresh);
        free(v);
        atomic_fetch_sub(&og_nr_variables, 1);
    }
}

static bool begin(struct og_thread *t)
{
    if (t->exchanging || t->in_callback || !og_current() || og_sticky() != CUDA_SUCCESS ||
        atomic_load_explicit(&og_captures, memory_order_acquire))
        return false;
    pthread_mutex_lock(&lock);
    t->exchanging = true;
    return true;
}

static void end(struct og_thread *t)
{
    t->exchanging = false;
    pthread_mutex_unlock(&lock);
}

/* Copies are not among the two: some of their commands are sent under a lock that the exchange needs. */
static bool starts_work(uint32_t op)
{
    switch (op) {
    case OG_VARIABLES_NOW:
    case OW_OP_orion_launch:
    case OW_OP_orion_launch_ex:
    case OW_OP_cuGraphLaunch:
    case OW_OP_cuMemcpyDtoD_v2:
    case OW_OP_cuMemcpyDtoDAsync_v2:
        return true;
    default:
        return false;
    }
}

/* After these, work is known to be done. */
static bool waits_for_work(uint32_t op)
{
    switch (op) {
    case OG_VARIABLES_NOW:
    case OW_OP_cuCtxSynchronize:
    case OW_OP_cuStreamSynchronize:
    case OW_OP_cuStreamQuery:
    case OW_OP_cuEventSynchronize:
    case OW_OP_cuEventQuery:
        return true;
    default:
        return false;
    }
}

void og_variables_before(uint32_t op)
{
    struct og_thread *t = og_self();

    if (!starts_work(op) || !begin(t))
        return;
    exchange_locked(send_locked);
    worked = true;
    end(t);
}

void og_variables_after(uint32_t op)
{
    struct og_thread *t = og_self();

    if (!waits_for_work(op) || !begin(t))
        return;
    if (worked)
        exchange_locked(fetch_locked);
    worked = worked && op != OW_OP_cuCtxSynchronize;
    end(t);
}

/* ---- the variables ---- */

bool og_variable_find(uint64_t p, uint64_t bytes, uint64_t *start, uint64_t *whole)
{
    struct variable *v;

    if (atomic_load_explicit(&og_nr_variables, memory_order_acquire) == 0 || atomic_load(&og_life) != OG_CONNECTED)
        return false;
    pthread_mutex_lock(&lock);
    for (v = all; v && (p < v->start || p - v->start >= v->bytes || bytes > v->bytes - (p - v->start)); v = v->next)
        continue;
    if (v) {
        *start = v->start;
        *whole = v->bytes;
    }
    pthread_mutex_unlock(&lock);
    return v != NULL;
}

static struct variable *make(uint64_t start, uint64_t bytes)
{
    struct variable *v = calloc(1, sizeof(*v));

    if (!v)
        return NULL;
    v->start = start;
    v->bytes = bytes;
    v->known = calloc(1, bytes);
    v->fresh = malloc(bytes);
    if (v->known && v->fresh)
        return v;
    free(v->known);
    free(v->fresh);
    free(v);
    return NULL;
}

/* The runtime asks for its variables before there is a context, and the program may read them then. */
static CUresult read_whole(struct variable *v)
{
    CUresult r = CUDA_SUCCESS;

    for (uint64_t done = 0, n; r == CUDA_SUCCESS && done < v->bytes; done += n) {
        n = v->bytes - done < READ_MAX ? v->bytes - done : READ_MAX;
        r = og_send_orion_variable_read(v->start + done, (uint32_t)n, v->known + done);
    }
    if (r == CUDA_SUCCESS)
        memcpy(at(v->start), v->known, v->bytes);
    return r;
}

static CUresult first_value_locked(struct variable *v)
{
    CUstream stream;
    CUresult r;

    if (!og_current() || v->bytes <= READ_MAX)
        return read_whole(v);
    memset(at(v->start), 0, v->bytes); /* as `known` is: what is not zero comes now */
    r = stream_locked(&stream);
    return r == CUDA_SUCCESS ? fetch_locked(v, stream) : r;
}

static CUresult add_locked(uint64_t start, uint64_t bytes)
{
    struct variable *v = make(start, bytes);
    CUresult r = v ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;

    if (r == CUDA_SUCCESS && !map_locked(start, bytes)) {
        og_log("a __managed__ variable at %#llx cannot be shown in this process: the address is in use",
               (unsigned long long)start);
        r = CUDA_ERROR_NOT_SUPPORTED;
    }
    if (r == CUDA_SUCCESS)
        r = first_value_locked(v);
    if (r != CUDA_SUCCESS) {
        if (v) {
            free(v->known);
            free(v->fresh);
        }
        free(v);
        return r;
    }
    v->next = all;
    all = v;
    atomic_fetch_add(&og_nr_variables, 1);
    return CUDA_SUCCESS;
}

CUresult og_variable_add(uint64_t start, uint64_t bytes)
{
    struct og_thread *t = og_self();
    uint64_t had, whole;
    CUresult r;

    if (og_variable_find(start, bytes, &had, &whole))
        return CUDA_SUCCESS;
    if (!bytes || bytes > LARGEST)
        return CUDA_ERROR_NOT_SUPPORTED;
    pthread_mutex_lock(&lock);
    t->exchanging = true;
    r = add_locked(start, bytes);
    end(t);
    return r;
}
