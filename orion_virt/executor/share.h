/* SPDX-License-Identifier: Apache-2.0 */
/* What this client shows other processes of its domain, and what it was shown: tokens, and who books the memory. */
#ifndef OH_SHARE_H
#define OH_SHARE_H

#include <orion/share.h>

#include "executor.h"

struct oh_share {
    uint8_t token[OC_TOKEN_BYTES];
    uint8_t handle[OC_TOKEN_BYTES]; /* the driver's; of kinds that go by descriptor nothing */
    uint32_t kind;                  /* enum oc_share */
    uint64_t bytes;
    int device;                     /* that books it, if this client has to */
    bool ours;                      /* made here */
    bool pays;                      /* booked here beside the object: whoever made it is gone */
    unsigned refs;                  /* objects of this client that are it */
    int fd;                         /* of kinds that go by descriptor a copy, for a daemon that follows this one; -1: none */
    struct oh_share *next;
};

/* Tells the daemon of an object and gets its token; with one reference. `handle` or `fd`, by kind. */
OH_MUST_CHECK CUresult oh_share_new(const struct oh_share *as, int fd, struct oh_share **made);
/* The object behind a token, with one more reference; *fd is the caller's, where its kind has one. CUDA_ERROR_NOT_FOUND:
 * no process of this domain shows that. */
OH_MUST_CHECK CUresult oh_share_find(uint32_t kind, const uint8_t *token, int device, int *fd, struct oh_share **found);
/* What a share says now, for who holds no reference; false: it is gone. */
OH_MUST_CHECK bool oh_share_look(const struct oh_share *s, struct oh_share *copy);
/* Gives a reference back; `owner`: of the object that was made and booked here. */
void oh_share_put(struct oh_share *s, bool owner);

/* ---- ipc.c ---- */
/* What was opened in a context that ends is no more mapped. */
void oh_ipc_drop_context(CUcontext context);

/* ---- vmm.c ---- */
/* As the driver's functions, for the client's numbers. */
OH_MUST_CHECK CUresult oh_vmm_export(uint64_t id, unsigned long long flags, uint8_t token[OC_TOKEN_BYTES]);
OH_MUST_CHECK CUresult oh_vmm_import(struct oh_twin *t, uint64_t id, const uint8_t *token);

/* ---- pool.c ---- */
OH_MUST_CHECK CUresult oh_pool_export(uint64_t id, unsigned long long flags, uint8_t token[OC_TOKEN_BYTES]);
OH_MUST_CHECK CUresult oh_pool_import(uint64_t id, unsigned long long flags, const uint8_t *token);

#endif
