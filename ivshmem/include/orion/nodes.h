/* SPDX-License-Identifier: Apache-2.0 */
/* What commands about graph nodes carry after their fixed part: both sides agree on it here. */
#ifndef ORION_NODES_H
#define ORION_NODES_H

#include <orion/bulk.h>

/* Node kinds; numbers are ours. What follows an answer has the same form as what a command carries. */
enum oc_node {
    OC_NODE_EMPTY = 0,  /* nothing */
    OC_NODE_KERNEL = 1, /* struct oc_node_kernel, then params_bytes of packed parameters */
    OC_NODE_COPY = 2,   /* struct oc_copy_nd; answers: CUDA_MEMCPY3D */
    OC_NODE_MEMSET = 3, /* struct oc_node_memset */
    OC_NODE_HOST = 4,   /* struct oc_node_host */
    OC_NODE_CHILD = 5,  /* struct oc_node_child */
    OC_NODE_RECORD = 6, /* u64 event */
    OC_NODE_WAIT = 7,   /* u64 event */
    OC_NODE_ALLOC = 8,  /* CUDA_MEM_ALLOC_NODE_PARAMS, then accessDescCount CUmemAccessDesc */
    OC_NODE_FREE = 9,   /* u64 address */
    OC_NODE_BATCH = 10, /* struct oc_node_batch, then count CUstreamBatchMemOpParams */
    OC_NODE_COND = 11,  /* struct oc_node_cond, then a handle for each of `size` bodies */
    OC_NODE_SHADOW = 12, /* struct oc_node_shadow */
};

struct oc_node_kernel {
    uint64_t function;  /* CUfunction or CUkernel handle */
    uint64_t kernel;    /* CUkernel handle given beside it, or 0; used if function is 0 */
    uint32_t grid[3], block[3];
    uint32_t shared_bytes;
    uint32_t params_bytes;
};

struct oc_node_memset {
    uint64_t dst, pitch, width, height;
    uint32_t value, element_bytes;
};

struct oc_node_host {
    uint64_t fn, data; /* guest pointers */
};

struct oc_node_child {
    uint64_t graph;
    uint32_t move;     /* the parent becomes its owner */
    uint32_t reserved;
};

struct oc_node_batch {
    uint32_t count, flags;
};

struct oc_node_cond {
    uint64_t handle;   /* the driver's own */
    uint32_t type, size;
};

/* A copy of ordinary memory is a node that holds a small graph: a host function that fills the shadow, the copy, or
 * the copy and a host function that empties it, or, between two pieces of ordinary memory, the host function alone. */
enum oc_shadow { OC_SHADOW_UP = 0, OC_SHADOW_DOWN = 1, OC_SHADOW_HOST = 2 };
struct oc_node_shadow {
    struct oc_copy_nd nd;  /* the ordinary side is packed rows: over shared memory at a region offset, over TCP 0 */
    uint64_t fn, end;      /* guest functions: moves the bytes; the last use is over */
    uint64_t data;
    uint64_t bytes;        /* of the packed rows */
    uint64_t bounce_off;   /* over TCP: region offset and length of the piece through which they pass */
    uint32_t bounce_bytes; /* 0: over shared memory */
    uint32_t way;          /* enum oc_shadow */
};

/* enum oc_node COPY and SHADOW are answered by this; a shadow's `data` is the guest's, else 0. */
struct oc_node_copied {
    uint64_t data;
};

/* oc_callback.kind beyond those of layout.h */
enum {
    OC_CALLBACK_END = 2,   /* fn(data), and may call us: nobody waits for it */
    OC_CALLBACK_PIECE = 3, /* fn(data) moves `status` bytes at `stream` through the bounce piece */
};

_Static_assert(sizeof(struct oc_node_kernel) == 48, "no padding");
_Static_assert(sizeof(struct oc_node_memset) == 40, "no padding");
_Static_assert(sizeof(struct oc_node_shadow) == 136, "no padding");

#endif
