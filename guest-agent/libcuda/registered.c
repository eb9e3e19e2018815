/* SPDX-License-Identifier: Apache-2.0 */
/* Registered memory: pages of the application move into the region, those of files on disks are staged. */
#include <time.h>

#include "context.h"
#include "memory.h"
#include "moved.h"
#include "gen/send.h"

#define PAGE 4096ull
#define REGISTER_FLAGS 15u /* PORTABLE, DEVICEMAP, IOMEMORY, READ_ONLY */
#define FLAG_DEVICEMAP 2u
#define FLAG_IOMEMORY 4u
#define FLAG_READ_ONLY 8u

/* The whole pages that hold a range, and the region memory behind them. */
struct pages {
    uint64_t start, bytes, region_addr;
    bool read_only;
};

static struct pages pages_of(const struct og_host_range *range)
{
    struct pages p = { .start = range->start & ~(PAGE - 1), .read_only = range->flags & FLAG_READ_ONLY };

    p.bytes = ((range->start + range->bytes + PAGE - 1) & ~(PAGE - 1)) - p.start;
    return p;
}

/* In the guest, then in the worker, where kernels use the same address. Region memory that must stay is never put back. */
static CUresult move_there(const struct pages *p)
{
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;

    if (og_moved_there(p->start, p->bytes, p->region_addr, p->read_only))
        r = og_send_orion_alias(p->start, p->region_addr - (uint64_t)(uintptr_t)og_region(), p->bytes);
    if (r == CUDA_SUCCESS)
        return r;
    if (og_moved_back(p->start))
        og_backing_put(p->region_addr);
    else
        og_log("memory at %#llx stays in the region", (unsigned long long)p->start);
    return r;
}

/* Makes the range as good as memory that we allocated; *region_addr is its first byte's. */
static CUresult move(const struct og_host_range *range, uint64_t *region_addr)
{
    struct pages p = pages_of(range);
    CUresult r;
    if (!og_shared_memory() || !og_peer_knows(OW_OP_orion_alias) || !og_moved_possible(p.start, p.bytes, p.read_only))
        return CUDA_ERROR_NOT_SUPPORTED;
    r = og_backing_take(p.bytes, &p.region_addr);
    if (r != CUDA_SUCCESS)
        return r;
    r = move_there(&p);
    *region_addr = p.region_addr + (range->start - p.start);
    return r;
}

/* ---- pages that processes share: all of them must show the same region memory ---- */

#define FILL_MS 5000 /* for another process to put the bytes in */

static CUresult take_piece(const struct og_piece *piece, uint64_t bytes, uint64_t *off, bool *fill)
{
    struct timespec ms = { 0, 1000000 };
    uint32_t first = 0;
    CUresult r = CUDA_ERROR_NOT_READY;

    for (unsigned i = 0; i < FILL_MS && r == CUDA_ERROR_NOT_READY; i++) {
        if (i)
            nanosleep(&ms, NULL);
        r = og_send_orion_pages_take(piece->device, piece->inode, piece->offset, bytes, off, &first);
    }
    *fill = first;
    return r;
}

static void end_piece(uint64_t off)
{
    if (og_send_orion_pages_end(off) != CUDA_SUCCESS)
        og_log("the host did not know the shared memory at region offset %#llx", (unsigned long long)off);
}

/* As move(), for memory that other processes have too and register as well: kernels and all of them see it then. */
static CUresult move_shared(const struct og_host_range *range, uint64_t *region_addr)
{
    struct pages p = pages_of(range);
    uint64_t base = (uint64_t)(uintptr_t)og_region(), off;
    struct og_piece piece;
    bool fill;
    CUresult r;

    if (!og_shared_memory() || !og_peer_knows(OW_OP_orion_pages_take) || !og_moved_shareable(p.start, p.bytes, &piece))
        return CUDA_ERROR_NOT_SUPPORTED;
    r = take_piece(&piece, p.bytes, &off, &fill);
    if (r != CUDA_SUCCESS)
        return r;
    if (!og_moved_shared(p.start, p.bytes, base + off, fill)) {
        end_piece(off);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (fill)
        r = og_send_orion_pages_filled(off);
    if (r == CUDA_SUCCESS)
        r = og_send_orion_alias(p.start, off, p.bytes);
    if (r != CUDA_SUCCESS) {
        og_moved_back(p.start);
        end_piece(off);
    }
    *region_addr = base + off + (range->start - p.start);
    return r;
}

/* Where pages cannot move (shared ones, files, a stack, a full region), copies from and to them go through staging
 * memory, in stream order, and kernels cannot see them: an application that needs that is told. */
static CUresult stays(CUresult why, unsigned flags)
{
    if (!(flags & FLAG_DEVICEMAP))
        return CUDA_SUCCESS;
    og_log("cuMemHostRegister: CU_MEMHOSTREGISTER_DEVICEMAP needs private memory of this process and room in the shared "
           "memory region; allocate with cuMemHostAlloc instead");
    return why == CUDA_ERROR_OUT_OF_MEMORY ? why : CUDA_ERROR_NOT_SUPPORTED;
}

OG_EXPORT CUresult cuMemHostRegister_v2(void *p, size_t bytesize, unsigned int Flags)
{
    struct og_host_range range = { .start = (uint64_t)(uintptr_t)p, .bytes = bytesize, .flags = Flags, .registered = true };
    uint64_t region_addr;
    CUresult r = og_need_context();

    if (!p || !bytesize || (Flags & ~REGISTER_FLAGS) || range.start + bytesize < range.start)
        return CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = og_sticky();
    if (r != CUDA_SUCCESS)
        return r;
    if (Flags & FLAG_IOMEMORY) {
        og_log("cuMemHostRegister: memory of another device (CU_MEMHOSTREGISTER_IOMEMORY) is not on the GPU's host");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    range.context = og_context_home(og_current());
    range.device = og_self()->device;
    r = og_host_claim(&range);
    if (r != CUDA_SUCCESS)
        return r;
    r = move(&range, &region_addr);
    if (r == CUDA_ERROR_NOT_SUPPORTED && Flags & FLAG_DEVICEMAP) {
        r = move_shared(&range, &region_addr);
        range.between = r == CUDA_SUCCESS;
    }
    if (r == CUDA_SUCCESS) {
        og_host_settle(p, region_addr, range.between);
        return CUDA_SUCCESS;
    }
    r = stays(r, Flags);
    if (r != CUDA_SUCCESS)
        og_host_unclaim(p, &range);
    return r;
}

void og_registered_end(const struct og_host_range *range)
{
    struct pages p = pages_of(range);

    p.region_addr = range->region_addr - (range->start - p.start);
    if (og_send_orion_unalias(p.start) != CUDA_SUCCESS)
        og_log("the worker did not know the memory at %#llx", (unsigned long long)p.start);
    if (og_moved_back(p.start)) {
        if (range->between)
            end_piece(p.region_addr - (uint64_t)(uintptr_t)og_region());
        else
            og_backing_put(p.region_addr);
    } else
        og_log("no memory for pages of its own: what was registered at %p stays in the region", (void *)(uintptr_t)p.start);
}

/* Work that may use the memory is waited for, as the driver does. */
static CUresult move_back(const struct og_host_range *range)
{
    CUresult r = og_send_orion_host_sync();

    og_registered_end(range);
    return r;
}

OG_EXPORT CUresult cuMemHostUnregister(void *p)
{
    struct og_host_range range;
    CUresult r = og_need_context();

    if (r != CUDA_SUCCESS)
        return r;
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    if (!og_host_unclaim(p, &range)) /* inside one, or nowhere near */
        return og_host_find(p, 1, &range) && range.registered ? CUDA_ERROR_INVALID_VALUE
                                                              : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    return range.in_region ? move_back(&range) : CUDA_SUCCESS; /* staged copies were done when they returned */
}
