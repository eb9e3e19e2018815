/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA arrays and what reads them: what the files of the executor share. */
#ifndef OH_ARRAY_H
#define OH_ARRAY_H

#include "memory.h"

/* ---- array.c ---- */
struct oh_hold;
struct oh_array {           /* data of an ARRAY or MIPMAPPED_ARRAY; constant but for `held` once it is put */
    uint64_t context;
    uint64_t owner;         /* the handle whose storage this is a part of, 0: its own */
    uint64_t booked;
    int device;
    struct oh_hold *held;   /* array_map.c: memory mapped into it */
};
/* Those of a context (as the client calls it) that ends. */
void oh_drop_arrays(uint64_t context);

/* ---- array_map.c ---- */
void oh_array_let_go(struct oh_array *a); /* of the memory mapped into an array that ends */

/* ---- texture.c ---- */
void oh_drop_textures(uint64_t context);
/* ---- texref.c ---- */
void oh_drop_references(uint64_t owner); /* of a module */

#endif
