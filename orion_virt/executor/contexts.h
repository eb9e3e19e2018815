/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts of the client: what their files share. */
#ifndef OH_CONTEXTS_H
#define OH_CONTEXTS_H

#include "executor.h"

struct oh_context {           /* data of a CONTEXT handle, one for each device and kind */
    int device;
    bool primary;
    bool green;               /* a green context's: it ends with that alone */
};

/* ---- green.c ---- */
/* The green contexts of a device end: their card's primary context does. */
void oh_green_end_all(struct oh_twin *t, int device);

#endif
