/* SPDX-License-Identifier: Apache-2.0 */
/* Pinned host memory: a sub-allocator over extents of the region, and the book of all host memory that CUDA knows. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "context.h"
#include "memory.h"
#include "gen/send.h"

#define PAGE 4096ull
#define HOST_FLAGS 7u      /* PORTABLE, DEVICEMAP, WRITECOMBINED */
#define FLAG_DEVICEMAP 2u

/* Extents granted as one piece, registered by the worker as one: an allocation never
 * crosses two, as a copy across two registrations fails. */
struct grant {
    uint64_t off, bytes;
    unsigned live; /* allocations inside */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct og_host_range *ranges; /* sorted by start */
static size_t nr_ranges, room_ranges;
static struct grant *grants;         /* sorted by off */
static size_t nr_grants, room_grants;
static uint64_t next_id = 1;
static _Atomic size_t nr_live; /* = nr_ranges, read without the lock */

CUresult og_need_context(void)
{
    CUresult r = og_connect();

    if (r != CUDA_SUCCESS)
        return r;
    if (og_self()->in_callback)
        return CUDA_ERROR_NOT_PERMITTED;
    return og_current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

/* Index of the first range that ends after p. */
static size_t range_at_locked(uint64_t p)
{
    return oc_range_after(ranges, nr_ranges, sizeof(*ranges), p);
}

static bool grow(void **array, size_t *room, size_t nr, size_t element)
{
    size_t want = *room ? *room * 2 : 64;
    void *bigger;

    if (nr < *room)
        return true;
    bigger = realloc(*array, want * element);
    if (!bigger)
        return false;
    *array = bigger;
    *room = want;
    return true;
}

static bool range_add_locked(const struct og_host_range *range)
{
    size_t at = range_at_locked(range->start);

    if (!grow((void **)&ranges, &room_ranges, nr_ranges, sizeof(*ranges)))
        return false;
    memmove(ranges + at + 1, ranges + at, (nr_ranges - at) * sizeof(*ranges));
    ranges[at] = *range;
    ranges[at].id = next_id++;
    atomic_store_explicit(&nr_live, ++nr_ranges, memory_order_release); /* pairs with og_host_find */
    return true;
}

static void range_del_locked(size_t at)
{
    memmove(ranges + at, ranges + at + 1, (nr_ranges - at - 1) * sizeof(*ranges));
    atomic_store_explicit(&nr_live, --nr_ranges, memory_order_release);
}

bool og_host_find(const void *p, uint64_t bytes, struct og_host_range *found)
{
    uint64_t start = (uint64_t)(uintptr_t)p;
    bool hit = false;
    size_t at;

    /* Not connected: a forked child, whose copy of the lock may be held for ever. */
    if (atomic_load_explicit(&nr_live, memory_order_acquire) == 0 || atomic_load(&og_life) != OG_CONNECTED)
        return false;
    pthread_mutex_lock(&lock);
    at = range_at_locked(start);
    if (at < nr_ranges && ranges[at].start <= start && !ranges[at].backing &&
        bytes <= ranges[at].bytes - (start - ranges[at].start)) {
        *found = ranges[at];
        hit = true;
    }
    pthread_mutex_unlock(&lock);
    return hit;
}

bool og_is_pinned(const void *p, uint64_t bytes)
{
    struct og_host_range range;

    return og_host_find(p, bytes, &range) && range.in_region;
}

/* ---- grants ---- */

CUresult og_grant(uint64_t bytes, uint64_t *region_off)
{
    uint64_t got;
    CUresult r;

    if (bytes == 0 || bytes > UINT64_MAX - OC_EXTENT_BYTES)
        return CUDA_ERROR_INVALID_VALUE;
    bytes = (bytes + OC_EXTENT_BYTES - 1) & ~(OC_EXTENT_BYTES - 1);
    r = og_send_orion_grant(bytes, region_off, &got);
    if (r == CUDA_ERROR_OUT_OF_MEMORY)
        og_say("the shared memory region is full: %llu KiB of pinned or staging memory were refused. Raise "
               "shm_buffer_size in /etc/orion/server.conf on the host, or region=\"MiB\" in this domain's "
               "<orion:vgpu> metadata, and start the domain again.", (unsigned long long)(bytes >> 10));
    return r;
}

void og_release(uint64_t region_off, uint64_t bytes)
{
    bytes = (bytes + OC_EXTENT_BYTES - 1) & ~(OC_EXTENT_BYTES - 1);
    if (og_send_orion_release(region_off, bytes) != CUDA_SUCCESS)
        og_log("extents at %#llx were not taken back", (unsigned long long)region_off);
}

static bool grant_add_locked(uint64_t off, uint64_t bytes)
{
    size_t at = 0;

    if (!grow((void **)&grants, &room_grants, nr_grants, sizeof(*grants)))
        return false;
    while (at < nr_grants && grants[at].off < off)
        at++;
    memmove(grants + at + 1, grants + at, (nr_grants - at) * sizeof(*grants));
    grants[at] = (struct grant){ .off = off, .bytes = bytes };
    nr_grants++;
    return true;
}

/* First hole of `bytes` between the ranges inside one grant. */
static bool fit_in_locked(const struct grant *g, uint64_t bytes, uint64_t *off)
{
    uint64_t base = (uint64_t)(uintptr_t)og_region();
    uint64_t hole = base + g->off, end = hole + g->bytes;

    for (size_t at = range_at_locked(hole); at < nr_ranges && ranges[at].start < end; at++) {
        if (ranges[at].start - hole >= bytes)
            break;
        hole = (ranges[at].start + ranges[at].bytes + PAGE - 1) & ~(PAGE - 1);
    }
    *off = hole - base;
    return hole <= end && end - hole >= bytes;
}

static struct grant *fit_locked(uint64_t bytes, uint64_t *off)
{
    for (size_t i = 0; i < nr_grants; i++)
        if (fit_in_locked(&grants[i], bytes, off))
            return &grants[i];
    return NULL;
}

static bool place_locked(uint64_t bytes, struct og_host_range *range)
{
    uint64_t off;
    struct grant *g = fit_locked((bytes + PAGE - 1) & ~(PAGE - 1), &off);

    if (!g)
        return false;
    range->start = range->region_addr = (uint64_t)(uintptr_t)og_region() + off;
    if (!range_add_locked(range))
        return false;
    g->live++;
    return true;
}

static CUresult alloc_in_region(struct og_host_range *range)
{
    CUresult r = CUDA_SUCCESS;
    uint64_t off, bytes = (range->bytes + OC_EXTENT_BYTES - 1) & ~(OC_EXTENT_BYTES - 1);
    bool placed;

    pthread_mutex_lock(&lock);
    placed = place_locked(range->bytes, range);
    pthread_mutex_unlock(&lock);
    if (placed)
        return CUDA_SUCCESS;
    /* Without the lock: a round trip. Another thread may take what we were granted; then we ask again. */
    while (!placed && r == CUDA_SUCCESS) {
        r = og_grant(bytes, &off);
        if (r != CUDA_SUCCESS)
            break;
        pthread_mutex_lock(&lock);
        if (grant_add_locked(off, bytes))
            placed = place_locked(range->bytes, range);
        else
            r = CUDA_ERROR_OUT_OF_MEMORY;
        pthread_mutex_unlock(&lock);
    }
    return r;
}

/* Over TCP: memory of ours whose copies are staged. */
static CUresult alloc_private(struct og_host_range *range)
{
    bool added;
    void *p = mmap(NULL, range->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    range->start = (uint64_t)(uintptr_t)p;
    pthread_mutex_lock(&lock);
    added = range_add_locked(range);
    pthread_mutex_unlock(&lock);
    if (!added)
        munmap(p, range->bytes);
    return added ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult og_host_alloc(uint64_t bytes, unsigned flags, bool managed, void **p)
{
    struct og_host_range range = { .bytes = bytes, .flags = flags, .managed = managed };
    CUresult r;

    *p = NULL;
    r = og_need_context();
    if (r == CUDA_SUCCESS)
        r = og_sticky();
    if (r != CUDA_SUCCESS)
        return r;
    if (bytes == 0) /* no bytes of page-locked memory are NULL */
        return managed ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    if (bytes > 1ull << 46)
        return CUDA_ERROR_OUT_OF_MEMORY;
    range.context = og_context_home(og_current());
    range.device = og_self()->device;
    range.in_region = og_shared_memory();
    if (managed && !range.in_region)
        return CUDA_ERROR_NOT_SUPPORTED; /* the two sides cannot see the same bytes over TCP */
    r = range.in_region ? alloc_in_region(&range) : alloc_private(&range);
    if (r == CUDA_SUCCESS)
        *p = (void *)(uintptr_t)range.start;
    return r;
}

/* Drops one allocation of the grant; *off, *bytes say what goes back to the host, 0: nothing. */
static void grant_put_locked(uint64_t addr, uint64_t *off, uint64_t *bytes)
{
    uint64_t at = addr - (uint64_t)(uintptr_t)og_region();

    *bytes = 0;
    for (size_t i = 0; i < nr_grants; i++) {
        if (at - grants[i].off >= grants[i].bytes)
            continue;
        if (--grants[i].live > 0 || nr_grants == 1)
            return; /* the last grant stays: alloc and free in a loop cost no round trips */
        *off = grants[i].off;
        *bytes = grants[i].bytes;
        memmove(grants + i, grants + i + 1, (nr_grants - i - 1) * sizeof(*grants));
        nr_grants--;
        return;
    }
}

/* Gives back what was allocated at range->start; the range is out of the book. */
static void give_back(const struct og_host_range *range)
{
    uint64_t off = 0, bytes = 0;

    if (!range->in_region) {
        munmap((void *)(uintptr_t)range->start, range->bytes);
        return;
    }
    pthread_mutex_lock(&lock);
    grant_put_locked(range->start, &off, &bytes);
    pthread_mutex_unlock(&lock);
    if (bytes)
        og_release(off, bytes);
}

CUresult og_host_free(void *p, bool managed)
{
    struct og_host_range range;
    CUresult r;
    size_t at;

    if (!og_host_find(p, 1, &range) || range.start != (uint64_t)(uintptr_t)p || range.registered ||
        range.managed != managed)
        return CUDA_ERROR_INVALID_VALUE;
    OG_LENT_ = og_lend_context(range.context);
    /* The driver waits for work that may use the memory, and the next owner relies on it. */
    r = og_send_orion_host_sync();
    if (r == CUDA_ERROR_DEINITIALIZED || r == CUDA_ERROR_NOT_PERMITTED)
        return r;
    pthread_mutex_lock(&lock);
    at = range_at_locked(range.start);
    if (at >= nr_ranges || ranges[at].start != range.start) {
        pthread_mutex_unlock(&lock);
        return CUDA_ERROR_INVALID_VALUE; /* another thread was faster */
    }
    range_del_locked(at);
    pthread_mutex_unlock(&lock);
    give_back(&range);
    return r;
}

void og_host_drop(void *p)
{
    size_t at;

    pthread_mutex_lock(&lock);
    at = range_at_locked((uint64_t)(uintptr_t)p);
    if (at < nr_ranges && ranges[at].start == (uint64_t)(uintptr_t)p) {
        for (size_t i = 0; i < nr_grants; i++) /* the grant stays, for the next */
            if (ranges[at].start - (uint64_t)(uintptr_t)og_region() - grants[i].off < grants[i].bytes)
                grants[i].live--;
        range_del_locked(at);
    }
    pthread_mutex_unlock(&lock);
}

/* ---- the API ---- */

OG_EXPORT CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags)
{
    if (!pp || (Flags & ~HOST_FLAGS))
        return CUDA_ERROR_INVALID_VALUE;
    return og_host_alloc(bytesize, Flags, false, pp);
}

OG_EXPORT CUresult cuMemAllocHost_v2(void **pp, size_t bytesize)
{
    if (!pp)
        return CUDA_ERROR_INVALID_VALUE;
    return og_host_alloc(bytesize, 0, false, pp);
}

OG_EXPORT CUresult cuMemFreeHost(void *p)
{
    CUresult r = og_self()->in_callback ? CUDA_ERROR_NOT_PERMITTED : og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    return p ? og_host_free(p, false) : CUDA_SUCCESS;
}

OG_EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *pdptr, void *p, unsigned int Flags)
{
    struct og_host_range range;
    CUresult r = og_need_context();

    if (!pdptr || Flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    if (!og_host_find(p, 1, &range) || !range.in_region)
        return CUDA_ERROR_INVALID_VALUE;
    *pdptr = (CUdeviceptr)(uintptr_t)p;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuMemHostGetFlags(unsigned int *pFlags, void *p)
{
    struct og_host_range range;
    CUresult r = og_need_context();

    if (!pFlags)
        return CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    if (!og_host_find(p, 1, &range))
        return CUDA_ERROR_INVALID_VALUE;
    /* With unified addressing, memory that the driver allocates is always mapped. */
    *pFlags = range.registered ? range.flags : range.flags | FLAG_DEVICEMAP;
    return CUDA_SUCCESS;
}

/* ---- what registered.c needs ---- */

static bool overlaps_locked(uint64_t start, uint64_t end)
{
    size_t at = range_at_locked(start & ~(PAGE - 1));

    /* whole pages: the driver's unit */
    return at < nr_ranges && (ranges[at].start & ~(PAGE - 1)) < ((end + PAGE - 1) & ~(PAGE - 1));
}

/* Index of the registered range that starts at p, nr_ranges: none. */
static size_t registered_at_locked(const void *p)
{
    size_t at = range_at_locked((uint64_t)(uintptr_t)p);

    return at < nr_ranges && ranges[at].start == (uint64_t)(uintptr_t)p && ranges[at].registered ? at : nr_ranges;
}

CUresult og_host_claim(const struct og_host_range *range)
{
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&lock);
    if (overlaps_locked(range->start, range->start + range->bytes))
        r = CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    else if (!range_add_locked(range))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_unlock(&lock);
    return r;
}

void og_host_settle(const void *p, uint64_t region_addr, bool between)
{
    size_t at;

    pthread_mutex_lock(&lock);
    at = registered_at_locked(p);
    if (at < nr_ranges) {
        ranges[at].in_region = true;
        ranges[at].region_addr = region_addr;
        ranges[at].between = between;
    }
    pthread_mutex_unlock(&lock);
}

bool og_host_unclaim(const void *p, struct og_host_range *range)
{
    bool had;
    size_t at;

    pthread_mutex_lock(&lock);
    at = registered_at_locked(p);
    had = at < nr_ranges;
    if (had) {
        *range = ranges[at];
        range_del_locked(at);
    }
    pthread_mutex_unlock(&lock);
    return had;
}

CUresult og_backing_take(uint64_t bytes, uint64_t *region_addr)
{
    struct og_host_range range = { .bytes = bytes, .in_region = true, .backing = true };
    CUresult r = alloc_in_region(&range);

    *region_addr = range.start;
    return r;
}

void og_backing_put(uint64_t region_addr)
{
    struct og_host_range range = { 0 };
    size_t at;

    pthread_mutex_lock(&lock);
    at = range_at_locked(region_addr);
    if (at < nr_ranges && ranges[at].start == region_addr && ranges[at].backing) {
        range = ranges[at];
        range_del_locked(at);
    }
    pthread_mutex_unlock(&lock);
    if (range.backing)
        give_back(&range);
}

/* Host memory ends with the context in which it was allocated or registered, as the driver's does. */
static bool take_of_context(uint64_t context, struct og_host_range *range)
{
    bool found = false;

    pthread_mutex_lock(&lock);
    for (size_t at = 0; at < nr_ranges && !found; at++) {
        found = ranges[at].context == context && !ranges[at].backing;
        if (found) {
            *range = ranges[at];
            range_del_locked(at);
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static void context_died(uint64_t context)
{
    struct og_host_range range;

    while (take_of_context(context, &range)) {
        if (!range.registered)
            give_back(&range);
        else if (range.in_region)
            og_registered_end(&range);
    }
}

__attribute__((constructor)) static void at_load(void)
{
    og_on_context_death(context_died);
}
