/* SPDX-License-Identifier: Apache-2.0 */
/* What the memory, stream and graph families of the executor share. */
#ifndef OH_MEMORY_H
#define OH_MEMORY_H

#include <orion/bulk.h>

#include "executor.h"
#include "gen/ops.h"

/* ---- copy.c ---- */
/* One side of a copy, checked: the address that the driver gets. */
struct oh_place {
    enum oc_side side; /* DEVICE, ARRAY, or REGION for any host memory */
    uint64_t addr;     /* of an array the driver's handle */
};
/* INVALID_VALUE unless all bytes are this client's. */
OH_MUST_CHECK CUresult oh_place_get(uint32_t side, uint64_t addr, uint64_t bytes, struct oh_place *place);
/* Bytes from the first to the last that `rows` x `depth` rows touch; false: overflow. */
bool oh_span(uint64_t width, uint64_t pitch, uint64_t height, uint64_t slice_rows, uint64_t depth, uint64_t *bytes);
/* Checks a 3D copy and fills what the driver takes. */
OH_MUST_CHECK CUresult oh_copy_nd_get(const struct oc_copy_nd *nd, CUDA_MEMCPY3D *p);

/* ---- fence.c ---- */
/* `fence` is done when all that `stream` holds now is; to_guest: then [off, off+bytes) is sent first.
 * `issued` false: nothing was, the fence is done at once. */
void oh_fence_add(uint64_t fence, CUstream stream, bool issued, uint64_t off, uint64_t to_guest_bytes);
/* Waits until no fence is pending; before a context ends, whose events they are. */
void oh_fence_drain(void);

/* ---- pool.c ---- */
/* Bytes that a pool holds of the card; `spare` of them are free. */
uint64_t oh_pool_reserved(CUmemoryPool pool, uint64_t *spare);
/* Before an allocation from it. */
OH_MUST_CHECK CUresult oh_pool_book(int device, CUmemoryPool pool, uint64_t bytes);

/* ---- stream.c ---- */
extern _Atomic int oh_captures;                     /* begun and not ended, of any stream */
bool oh_is_capturing(CUstream real);
/* Between the two the calling thread may do what a capture of the application forbids it: our own
 * bookkeeping is no part of what is recorded. Returns the mode to restore. */
CUstreamCaptureMode oh_relax(void);
void oh_unrelax(CUstreamCaptureMode mode);

/* ---- callback.c ---- */
struct oh_host_call { /* what a trampoline is given; a graph keeps its own */
    uint64_t fn, data, stream;
    uint32_t kind;
    bool keep;
};
OH_MUST_CHECK CUresult oh_host_call_make(uint64_t fn, uint64_t data, uint64_t stream, uint32_t kind, bool keep,
                                         struct oh_host_call **call);
void oh_trampoline(void *call); /* a CUhostFn */
void oh_host_call_free(void *call);
/* Has the guest run it; `wait`: until it has. Any thread. */
void oh_deliver(const struct oh_host_call *call, uint32_t status, bool wait);

/* ---- vmm.c ---- */
/* The reservation of addresses that holds ptr; false: none. */
bool oh_reservation_find(uint64_t ptr, uint64_t *start, uint64_t *bytes);
/* The physical allocation behind a client's number, whose booking stays until it is let go; NULL: none. */
void *oh_memory_hold(uint64_t id, void **handle);
void oh_memory_let_go(void *memory);

#endif
