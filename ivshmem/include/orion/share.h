/* SPDX-License-Identifier: Apache-2.0 */
/* What one guest process shows another: kinds of objects, and the token that stands for one in the guest. */
#ifndef ORION_SHARE_H
#define ORION_SHARE_H

/* A guest never sees a handle or descriptor of the host: it gets random bytes that mean something to the daemon,
 * for processes of the same domain. As long as CUipcMemHandle, CUipcEventHandle and CUmemPoolPtrExportData. */
#define OC_TOKEN_BYTES 64u

/* Numbers are ours and stay. */
enum oc_share {
    OC_SHARE_MEMORY = 1,     /* an allocation of cuMemAlloc: cuIpcGetMemHandle */
    OC_SHARE_EVENT = 2,      /* cuIpcGetEventHandle */
    OC_SHARE_ALLOCATION = 3, /* physical memory of cuMemCreate, by descriptor */
    OC_SHARE_POOL = 4,       /* a memory pool, by descriptor */
    OC_SHARE_POINTER = 5,    /* memory of a pool: cuMemPoolExportPointer */
};
#define OC_SHARE_LAST OC_SHARE_POINTER

/* Behind the region memory of pages that processes share, for what they know of the file: 15 pages and their list. */
#define OC_PIECE_TAIL (64u << 10)

/* What a guest's descriptor for shared memory or a pool holds: a file of these bytes. */
#define OC_SHARE_MAGIC 0x3130455241485301ull
struct oc_share_file {
    unsigned long long magic;
    unsigned int kind, bytes; /* enum oc_share; of this struct */
    unsigned char token[OC_TOKEN_BYTES];
};

#endif
