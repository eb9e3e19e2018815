/* SPDX-License-Identifier: Apache-2.0 */
/* Hints about managed memory: it stays where it is, in the region, but what was said about it can be asked. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "variable.h"

#define DEVICE_CPU (-1)
#define DEVICE_NONE (-2)
enum { LOCATION_NONE = 0, LOCATION_DEVICE = 1, LOCATION_HOST = 2, LOCATION_LAST = 4 };
enum { SET_READ_MOSTLY = 1, UNSET_READ_MOSTLY, SET_PREFERRED, UNSET_PREFERRED, SET_ACCESSED_BY, UNSET_ACCESSED_BY };
enum { ATTACH_GLOBAL = 1, ATTACH_HOST = 2, ATTACH_SINGLE = 4 };
enum {
    ASK_READ_MOSTLY = 1,
    ASK_PREFERRED,
    ASK_ACCESSED_BY,
    ASK_PREFETCHED,
    ASK_PREFERRED_TYPE,
    ASK_PREFERRED_ID,
    ASK_PREFETCHED_TYPE,
    ASK_PREFETCHED_ID
};

struct advice {
    bool read_mostly;
    CUmemLocation preferred, prefetched;
    uint32_t accessed_by; /* bit 0 the CPU, bit 1 + n device n */
};
/* A stretch of one allocation of which something was said; they do not overlap. */
struct segment {
    uint64_t start, end, id; /* id of the allocation: addresses are used again */
    struct advice advice;
    struct segment *next;
};
static struct segment *segments;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- segments, under the lock ---- */
static struct segment *add(uint64_t start, uint64_t end, uint64_t id, const struct advice *advice)
{
    struct segment *s = malloc(sizeof(*s));

    if (!s)
        return NULL;
    *s = (struct segment){ start, end, id, *advice, segments };
    return segments = s;
}

/* What a freed allocation left at these addresses. */
static void forget_older(const struct og_host_range *range)
{
    for (struct segment **p = &segments, *s; (s = *p);) {
        if (s->id != range->id && s->start < range->start + range->bytes && range->start < s->end) {
            *p = s->next;
            free(s);
        } else {
            p = &s->next;
        }
    }
}

/* No segment reaches across `at` afterwards. */
static bool cut(uint64_t at)
{
    for (struct segment *s = segments; s; s = s->next)
        if (s->start < at && at < s->end) {
            if (!add(at, s->end, s->id, &s->advice))
                return false;
            s->end = at;
            break;
        }
    return true;
}

/* The segment that starts at `at`, or the first after it; NULL: none below `end`. */
static struct segment *first(uint64_t at, uint64_t end)
{
    struct segment *best = NULL;

    for (struct segment *s = segments; s; s = s->next)
        if (s->end > at && s->start < end && (!best || s->start < best->start))
            best = s;
    return best;
}

static void change(struct advice *a, unsigned what, CUmemLocation where)
{
    uint32_t bit = where.type == LOCATION_DEVICE ? 2u << where.id : 1u;

    if (what == SET_READ_MOSTLY || what == UNSET_READ_MOSTLY)
        a->read_mostly = what == SET_READ_MOSTLY;
    else if (what == SET_PREFERRED)
        a->preferred = where;
    else if (what == UNSET_PREFERRED)
        a->preferred = (CUmemLocation){ 0 };
    else if (what == SET_ACCESSED_BY)
        a->accessed_by |= bit;
    else if (what == UNSET_ACCESSED_BY)
        a->accessed_by &= ~bit;
    else
        a->prefetched = where;
}

/* Applies one hint to [p, p + bytes); `what` 0: a prefetch. */
static CUresult note(const struct og_host_range *range, uint64_t p, uint64_t bytes, unsigned what, CUmemLocation where)
{
    static const struct advice none;
    uint64_t end = p + bytes;
    bool ok;

    pthread_mutex_lock(&lock);
    forget_older(range);
    ok = cut(p) && cut(end);
    for (uint64_t at = p; ok && at < end;) {
        struct segment *s = first(at, end);

        if (!s || s->start > at)
            s = add(at, s ? s->start : end, range->id, &none);
        ok = s != NULL;
        if (ok) {
            change(&s->advice, what, where);
            at = s->end;
        }
    }
    pthread_mutex_unlock(&lock);
    return ok ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- hints ---- */
static CUresult managed(CUdeviceptr p, size_t bytes, struct og_host_range *range)
{
    CUresult r = og_need_context();

    if (r != CUDA_SUCCESS)
        return r;
    if (bytes && og_host_find((void *)(uintptr_t)p, bytes, range) && range->managed)
        return CUDA_SUCCESS;
    *range = (struct og_host_range){ .managed = true };
    if (!bytes || !og_variable_find(p, bytes, &range->start, &range->bytes))
        return CUDA_ERROR_INVALID_VALUE;
    range->id = range->start; /* what was said of a part is the variable's, whatever part is asked about */
    return CUDA_SUCCESS;
}

static CUmemLocation location_of(CUdevice device)
{
    return (CUmemLocation){ device == DEVICE_CPU ? LOCATION_HOST : LOCATION_DEVICE, device == DEVICE_CPU ? 0 : device };
}

static CUresult check_location(CUmemLocation where)
{
    if (where.type == LOCATION_NONE || where.type > LOCATION_LAST)
        return CUDA_ERROR_INVALID_VALUE;
    if (where.type == LOCATION_DEVICE && (where.id < 0 || where.id >= og_nr_devices()))
        return CUDA_ERROR_INVALID_DEVICE;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuMemPrefetchAsync_v2(CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned int flags,
                                         CUstream hStream)
{
    struct og_host_range range;
    CUresult r = managed(devPtr, count, &range);

    if (r == CUDA_SUCCESS && flags)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = check_location(location);
    if (r == CUDA_SUCCESS && !og_stream_valid((uintptr_t)hStream))
        r = CUDA_ERROR_INVALID_HANDLE;
    return r == CUDA_SUCCESS ? note(&range, devPtr, count, 0, location) : r;
}

OG_EXPORT CUresult cuMemPrefetchAsync(CUdeviceptr devPtr, size_t count, CUdevice dstDevice, CUstream hStream)
{
    return cuMemPrefetchAsync_v2(devPtr, count, location_of(dstDevice), 0, hStream);
}

OG_EXPORT CUresult cuMemAdvise_v2(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUmemLocation location)
{
    struct og_host_range range;
    CUresult r = managed(devPtr, count, &range);

    if (r == CUDA_SUCCESS && (advice < SET_READ_MOSTLY || advice > UNSET_ACCESSED_BY))
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS && (advice == SET_PREFERRED || advice >= SET_ACCESSED_BY))
        r = check_location(location);
    return r == CUDA_SUCCESS ? note(&range, devPtr, count, advice, location) : r;
}

OG_EXPORT CUresult cuMemAdvise(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUdevice device)
{
    return cuMemAdvise_v2(devPtr, count, advice, location_of(device));
}

/* Guest and card see managed memory at any time: there is nothing to hand over. */
OG_EXPORT CUresult cuStreamAttachMemAsync(CUstream hStream, CUdeviceptr dptr, size_t length, unsigned int flags)
{
    struct og_host_range range;
    CUresult r = managed(dptr, length ? length : 1, &range);

    if (r != CUDA_SUCCESS)
        return r;
    if (!og_stream_valid((uintptr_t)hStream))
        return CUDA_ERROR_INVALID_HANDLE;
    if (flags != ATTACH_GLOBAL && flags != ATTACH_HOST && flags != ATTACH_SINGLE)
        return CUDA_ERROR_INVALID_VALUE;
    if ((length && (range.start != dptr || range.bytes != length)) || (flags == ATTACH_SINGLE && !hStream))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* ---- batches ---- */
static CUresult check_batch(const CUdeviceptr *p, const size_t *sizes, size_t count, unsigned long long flags,
                            CUstream stream)
{
    struct og_host_range range;
    CUresult r = og_need_context();

    if (r == CUDA_SUCCESS && (!p || !sizes || !count || flags))
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS && (!stream || !og_stream_valid((uintptr_t)stream)))
        r = stream ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_VALUE; /* the legacy stream is not allowed */
    for (size_t i = 0; r == CUDA_SUCCESS && i < count; i++)
        r = managed(p[i], sizes[i], &range);
    return r;
}

/* The n-th location holds from its first index to that of the next. */
static CUresult check_locations(const CUmemLocation *where, const size_t *from, size_t nr, size_t count)
{
    CUresult r = where && from && nr && nr <= count && from[0] == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;

    for (size_t i = 0; r == CUDA_SUCCESS && i < nr; i++)
        r = from[i] < count && (!i || from[i] > from[i - 1]) ? check_location(where[i]) : CUDA_ERROR_INVALID_VALUE;
    return r;
}

OG_EXPORT CUresult cuMemPrefetchBatchAsync(CUdeviceptr *dptrs, size_t *sizes, size_t count, CUmemLocation *prefetchLocs,
                                           size_t *prefetchLocIdxs, size_t numPrefetchLocs, unsigned long long flags,
                                           CUstream hStream)
{
    CUresult r = check_batch(dptrs, sizes, count, flags, hStream);
    size_t at = 0;

    if (r == CUDA_SUCCESS)
        r = check_locations(prefetchLocs, prefetchLocIdxs, numPrefetchLocs, count);
    for (size_t i = 0; r == CUDA_SUCCESS && i < count; i++) {
        at += at + 1 < numPrefetchLocs && prefetchLocIdxs[at + 1] == i;
        r = cuMemPrefetchAsync_v2(dptrs[i], sizes[i], prefetchLocs[at], 0, hStream);
    }
    return r;
}

/* Discarded contents may be anything: what they were will do. */
OG_EXPORT CUresult cuMemDiscardBatchAsync(CUdeviceptr *dptrs, size_t *sizes, size_t count, unsigned long long flags,
                                          CUstream hStream)
{
    return check_batch(dptrs, sizes, count, flags, hStream);
}

OG_EXPORT CUresult cuMemDiscardAndPrefetchBatchAsync(CUdeviceptr *dptrs, size_t *sizes, size_t count,
                                                     CUmemLocation *prefetchLocs, size_t *prefetchLocIdxs,
                                                     size_t numPrefetchLocs, unsigned long long flags, CUstream hStream)
{
    return cuMemPrefetchBatchAsync(dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, flags, hStream);
}

/* ---- questions ---- */
static void both(struct advice *a, const struct advice *b)
{
    if (a->preferred.type != b->preferred.type || a->preferred.id != b->preferred.id)
        a->preferred = (CUmemLocation){ 0 };
    if (a->prefetched.type != b->prefetched.type || a->prefetched.id != b->prefetched.id)
        a->prefetched = (CUmemLocation){ 0 };
    a->read_mostly &= b->read_mostly;
    a->accessed_by &= b->accessed_by;
}

/* What holds for all of [p, p + bytes). */
static struct advice known(const struct og_host_range *range, uint64_t p, uint64_t bytes)
{
    static const struct advice none;
    struct advice all = none;
    uint64_t end = p + bytes;

    pthread_mutex_lock(&lock);
    for (uint64_t at = p; at < end;) {
        const struct segment *s = first(at, end);
        bool here = s && s->start <= at && s->id == range->id;
        const struct advice *a = here ? &s->advice : &none;

        if (at == p)
            all = *a;
        else
            both(&all, a);
        at = !s ? end : s->start <= at ? s->end : s->start;
    }
    pthread_mutex_unlock(&lock);
    return all;
}

static int device_of(CUmemLocation where)
{
    return where.type == LOCATION_DEVICE ? where.id : where.type == LOCATION_NONE ? DEVICE_NONE : DEVICE_CPU;
}

static void accessed_by(int *to, size_t room, uint32_t mask)
{
    size_t n = 0;

    for (int device = DEVICE_CPU; device < (int)OC_MAX_DEVICES && n < room; device++)
        if (mask >> (device + 1) & 1)
            to[n++] = device;
    while (n < room)
        to[n++] = DEVICE_NONE;
}

static CUresult tell(void *data, size_t bytes, CUmem_range_attribute attribute, const struct advice *a)
{
    int *to = data;

    if (!data || attribute < ASK_READ_MOSTLY || attribute > ASK_PREFETCHED_ID || !bytes || bytes % sizeof(*to) ||
        (attribute != ASK_ACCESSED_BY && bytes != sizeof(*to)))
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case ASK_READ_MOSTLY:
        *to = a->read_mostly;
        break;
    case ASK_ACCESSED_BY:
        accessed_by(to, bytes / sizeof(*to), a->accessed_by);
        break;
    case ASK_PREFERRED:
    case ASK_PREFETCHED:
        *to = device_of(attribute == ASK_PREFERRED ? a->preferred : a->prefetched);
        break;
    case ASK_PREFERRED_TYPE:
    case ASK_PREFETCHED_TYPE:
        *to = (int)(attribute == ASK_PREFERRED_TYPE ? a->preferred : a->prefetched).type;
        break;
    default:
        *to = (attribute == ASK_PREFERRED_ID ? a->preferred : a->prefetched).id;
    }
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuMemRangeGetAttribute(void *data, size_t dataSize, CUmem_range_attribute attribute,
                                          CUdeviceptr devPtr, size_t count)
{
    struct og_host_range range;
    struct advice a;
    CUresult r = managed(devPtr, count, &range);

    if (r != CUDA_SUCCESS)
        return r;
    a = known(&range, devPtr, count);
    return tell(data, dataSize, attribute, &a);
}

OG_EXPORT CUresult cuMemRangeGetAttributes(void **data, size_t *dataSizes, CUmem_range_attribute *attributes,
                                           size_t numAttributes, CUdeviceptr devPtr, size_t count)
{
    struct og_host_range range;
    struct advice a;
    CUresult r = managed(devPtr, count, &range);

    if (r != CUDA_SUCCESS)
        return r;
    if (!data || !dataSizes || !attributes || !numAttributes)
        return CUDA_ERROR_INVALID_VALUE;
    a = known(&range, devPtr, count);
    for (size_t i = 0; r == CUDA_SUCCESS && i < numAttributes; i++)
        r = tell(data[i], dataSizes[i], attributes[i], &a);
    return r;
}
