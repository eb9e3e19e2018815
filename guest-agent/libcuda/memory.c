/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory as the guest sees it: managed memory in the region, and addresses of pools. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "gen/send.h"

#define MANAGED_FLAGS 3u /* CU_MEM_ATTACH_GLOBAL or CU_MEM_ATTACH_HOST */

/* Device memory outside OC_DEVICE_LOW..HIGH, where pools live: few and long-lived. A copy whose
 * pointers do not say what they are is classified by it. */
struct range {
    uint64_t start, bytes; /* first, for oc_range_after */
    bool kept;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range *ranges; /* sorted */
static size_t nr_ranges, room;
static _Atomic size_t nr_live;

/* Index of the first range that ends after p. */
static size_t at_locked(uint64_t p)
{
    return oc_range_after(ranges, nr_ranges, sizeof(*ranges), p);
}

static bool room_locked(void)
{
    size_t want = room ? room * 2 : 64;
    struct range *bigger;

    if (nr_ranges < room)
        return true;
    bigger = realloc(ranges, want * sizeof(*ranges));
    if (!bigger)
        return false;
    ranges = bigger;
    room = want;
    return true;
}

/* Addresses that the driver gives anew: those of graphs that ended there are gone. `at` is the first range that ends after p;
 * returns where one from p on belongs. */
static size_t clear_locked(size_t at, uint64_t p, uint64_t end)
{
    size_t gone = 0;

    if (at < nr_ranges && ranges[at].start < p) {
        ranges[at].bytes = p - ranges[at].start;
        at++;
    }
    while (at + gone < nr_ranges && ranges[at + gone].start < end)
        gone++;
    memmove(ranges + at, ranges + at + gone, (nr_ranges - at - gone) * sizeof(*ranges));
    nr_ranges -= gone;
    return at;
}

static void add(uint64_t p, uint64_t bytes, bool kept)
{
    size_t at;

    if (p >= OC_DEVICE_LOW && p < OC_DEVICE_HIGH)
        return;
    pthread_mutex_lock(&lock);
    at = at_locked(p);
    if (at < nr_ranges && ranges[at].start == p && ranges[at].bytes >= bytes) {
        ranges[at].kept |= kept; /* the address of a graph that ended */
    } else if (room_locked()) {
        at = clear_locked(at, p, p + bytes);
        memmove(ranges + at + 1, ranges + at, (nr_ranges - at) * sizeof(*ranges));
        ranges[at] = (struct range){ p, bytes, kept };
        atomic_store_explicit(&nr_live, ++nr_ranges, memory_order_release); /* pairs with og_is_device */
    }
    pthread_mutex_unlock(&lock);
}

void og_device_add(uint64_t p, uint64_t bytes)
{
    add(p, bytes, false);
}

void og_device_keep(uint64_t p, uint64_t bytes)
{
    add(p, bytes, true);
}

void og_device_del(uint64_t p)
{
    size_t at;

    if (atomic_load_explicit(&nr_live, memory_order_acquire) == 0)
        return;
    pthread_mutex_lock(&lock);
    at = at_locked(p);
    if (at < nr_ranges && ranges[at].start == p && !ranges[at].kept) {
        memmove(ranges + at, ranges + at + 1, (nr_ranges - at - 1) * sizeof(*ranges));
        atomic_store_explicit(&nr_live, --nr_ranges, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
}

bool og_is_device(uint64_t p)
{
    size_t at;
    bool is;

    if (p >= OC_DEVICE_LOW && p < OC_DEVICE_HIGH)
        return true;
    /* Not connected: a forked child, whose copy of the lock may be held for ever. */
    if (atomic_load_explicit(&nr_live, memory_order_acquire) == 0 || atomic_load(&og_life) != OG_CONNECTED)
        return false;
    pthread_mutex_lock(&lock);
    at = at_locked(p);
    is = at < nr_ranges && ranges[at].start <= p;
    pthread_mutex_unlock(&lock);
    return is;
}

OG_EXPORT CUresult cuMemFree_v2(CUdeviceptr dptr)
{
    struct og_host_range range;
    CUresult r;

    if (dptr && og_host_find((void *)(uintptr_t)dptr, 1, &range))
        return range.managed ? og_host_free((void *)(uintptr_t)dptr, true) : CUDA_ERROR_INVALID_VALUE;
    if (!dptr)
        return og_self()->in_callback ? CUDA_ERROR_NOT_PERMITTED : og_check_init();
    r = og_send_cuMemFree_v2(dptr);
    if (r == CUDA_SUCCESS)
        og_device_del(dptr);
    return r;
}

OG_EXPORT CUresult cuMemGetAddressRange_v2(CUdeviceptr *pbase, size_t *psize, CUdeviceptr dptr)
{
    struct og_host_range range;
    CUresult r = og_need_context();

    if (pbase)
        *pbase = 0;
    if (psize)
        *psize = 0;
    if (r != CUDA_SUCCESS)
        return r;
    if (!og_host_find((void *)(uintptr_t)dptr, 1, &range))
        return og_send_cuMemGetAddressRange_v2(pbase, psize, dptr);
    if (!range.in_region)
        return CUDA_ERROR_NOT_FOUND;
    if (pbase)
        *pbase = range.start;
    if (psize)
        *psize = range.bytes;
    return CUDA_SUCCESS;
}

/* Managed memory cannot fault across machines. It lies in the region, where CPU and GPU see the same
 * bytes at the same address: right, and coherent, but every access of the GPU crosses PCIe. */
OG_EXPORT CUresult cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned int flags)
{
    void *p;
    CUresult r;

    if (!dptr || (flags != 1 && flags != 2) || (flags & ~MANAGED_FLAGS))
        return CUDA_ERROR_INVALID_VALUE;
    r = og_host_alloc(bytesize, flags, true, &p);
    if (r == CUDA_ERROR_NOT_SUPPORTED)
        og_log("cuMemAllocManaged: managed memory needs the shared memory region; this channel is TCP");
    if (r == CUDA_SUCCESS)
        *dptr = (CUdeviceptr)(uintptr_t)p;
    return r;
}

OG_EXPORT CUresult cuMemHostRegister(void *p, size_t bytesize, unsigned int Flags)
{
    return cuMemHostRegister_v2(p, bytesize, Flags);
}
