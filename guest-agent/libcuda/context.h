/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts of the guest process as the families see them; what everybody needs is in client.h. */
#ifndef OG_CONTEXT_H
#define OG_CONTEXT_H

#include "client.h"

#define OG_LIMITS 16u

struct og_context {
    uint64_t handle;
    int device;
    bool primary;
    _Atomic bool active;      /* the host has it; a primary one is known before and after */
    unsigned retained;        /* cuDevicePrimaryCtxRetain less Release */
    unsigned attached;        /* cuCtxAttach less Detach */
    unsigned flags;
    unsigned api_version;
    _Atomic uint64_t number;  /* of this incarnation, from 1; 0 while not active */
    _Atomic uint32_t life;    /* counts incarnations, tags og_thread.host_ctx */
    _Atomic uint64_t limit[OG_LIMITS]; /* value + 1 as the host told it in this incarnation, 0: not asked */
    uint64_t green;           /* the green context that this stands for, 0: none */
    uint64_t limits_number;   /* the incarnation that limit[] belongs to */
};

/* NULL: not a context. */
struct og_context *og_context(uint64_t handle);
/* 0 and -1 mean the calling thread's current one; 0: there is none. */
uint64_t og_context_resolve(uint64_t handle);
/* The context that owns what is made in this one: itself, or of a green one the primary that it is part of. */
uint64_t og_context_home(uint64_t handle);
/* ---- green.c ---- */
uint64_t og_green_context(uint64_t green); /* what stands for it as a CUcontext; 0: no green context */

/* ---- context.c ---- */
/* A context that stands for a green one, and its end; NULL: no memory. */
struct og_context *og_context_green(int device);
void og_context_green_end(struct og_context *c);
/* The primary context's handle, made at the first question and the same for ever after; 0: table full. */
uint64_t og_primary_handle(int device);
/* As the sender of a call that needs a live current context: NULL and *r otherwise. */
struct og_context *og_context_live(CUresult *r);

#endif
