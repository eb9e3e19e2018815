/* SPDX-License-Identifier: Apache-2.0 */
/* What the memory modules of the guest library share: kinds of addresses, pinned memory, transfers. */
#ifndef OG_MEMORY_H
#define OG_MEMORY_H

#include <orion/bulk.h>
#include <orion/range.h>

#include "client.h"

/* A live host allocation of this process, as CUDA knows it. */
struct og_host_range {
    uint64_t start, bytes; /* first, for oc_range_after */
    uint64_t context;  /* that was current when it was made */
    uint64_t id;       /* CU_POINTER_ATTRIBUTE_BUFFER_ID */
    int device;
    unsigned flags;    /* as cuMemHostAlloc or cuMemHostRegister got them */
    bool registered;   /* the application's own pages */
    bool managed;
    bool in_region;    /* zero copy; else copies are staged: over TCP, and of registered pages that could not move */
    bool backing;      /* region memory behind registered pages: no address of the application's */
    bool between;      /* registered pages that other processes have too */
    uint64_t region_addr; /* of its first byte, where it is in the region */
};

/* ---- pinned.c ---- */
/* The live range that holds [p, p+bytes); false: none. */
bool og_host_find(const void *p, uint64_t bytes, struct og_host_range *found);
OG_MUST_CHECK CUresult og_host_alloc(uint64_t bytes, unsigned flags, bool managed, void **p);
OG_MUST_CHECK CUresult og_host_free(void *p, bool managed);
/* For registered.c. Claims [start, start + bytes) whole pages at a time: HOST_MEMORY_ALREADY_REGISTERED. */
OG_MUST_CHECK CUresult og_host_claim(const struct og_host_range *range);
void og_host_settle(const void *p, uint64_t region_addr, bool between); /* its pages have moved */
bool og_host_unclaim(const void *p, struct og_host_range *range);
OG_MUST_CHECK CUresult og_backing_take(uint64_t bytes, uint64_t *region_addr);
void og_backing_put(uint64_t region_addr);
/* Gives memory of ours back that no work uses any more, without a word to the host: any thread. */
void og_host_drop(void *p);
/* Connected and a context is current; what every memory call checks first. */
OG_MUST_CHECK CUresult og_need_context(void);

/* ---- registered.c ---- */
/* Moved pages are the application's alone again; the range is out of the book. */
void og_registered_end(const struct og_host_range *range);

/* ---- memory.c: device addresses outside OC_DEVICE_LOW..OC_DEVICE_HIGH ---- */
void og_device_add(uint64_t p, uint64_t bytes);
void og_device_del(uint64_t p);
void og_device_keep(uint64_t p, uint64_t bytes); /* memory of a graph: a free is not its end */
bool og_is_device(uint64_t p);

/* ---- event.c ---- */
/* Other processes see this event: from now on records and waits are done when their calls return, as natively. */
void og_event_between(CUevent event);

/* ---- staging.c ---- */
/* As og_staging_get; false: none is free just now. `hint` grows the staging memory for large copies. */
bool og_staging_try(uint64_t *bytes, uint64_t *region_off, void **p);
void og_staging_grow(uint64_t bytes_wanted);
/* Fence numbers reach the host in order: take one, send its command, end. */
uint64_t og_fence_begin(void);
void og_fence_end(void);
bool og_fence_done(uint64_t fence);

/* ---- bulk.c: for large copies out of staging memory ---- */
void og_copy_past_cache(void *to, const void *from, size_t bytes);

/* ---- copy.c ---- */
enum og_side { OG_SIDE_DEVICE, OG_SIDE_PINNED, OG_SIDE_PAGEABLE, OG_SIDE_REGISTERED, OG_SIDE_ARRAY };
struct og_place {
    enum og_side side;
    uint64_t addr; /* of an array its handle */
};
/* What a host pointer (or, `device_only`, a CUdeviceptr) of `bytes` is. */
struct og_place og_classify(uint64_t addr, uint64_t bytes, bool device_only);
bool og_place_is_host(struct og_place place); /* the worker cannot reach it */
enum oc_side og_wire_side(struct og_place place);
uint64_t og_wire_addr(struct og_place place);
/* One command of a copy whose sides the worker reaches; staged if fence != 0. */
OG_MUST_CHECK CUresult og_copy_direct(const struct oc_copy_nd *copy, CUstream stream, bool sync, uint64_t fence);
/* cuStreamSynchronize for the ordering of copies; `stream` may be 0, 1, 2. */
OG_MUST_CHECK CUresult og_copy_drain(CUstream stream);
/* True when a copy on `stream` would be recorded rather than executed. */
bool og_is_capturing(CUstream stream);

#endif
