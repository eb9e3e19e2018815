/* SPDX-License-Identifier: Apache-2.0 */
/* The longest that a kernel may run, where the host limits it: what loop, handles and contexts tell limit.c. */
#ifndef OH_LIMIT_H
#define OH_LIMIT_H

#include "executor.h"

extern bool oh_limit_on;                      /* set once, before any command */
OH_MUST_CHECK int oh_limit_start(void);       /* -errno; reads oh_config.kernel_seconds */
bool oh_limit_counts(uint32_t op);            /* whether the operation launches kernels */
/* Around such a command, which holds the baton. */
void oh_limit_enter(struct oh_twin *t);
void oh_limit_leave(void);
void oh_limit_stream(void *stream);           /* the command in hand launches on this stream of the driver's, next */
void oh_limit_context_ends(CUcontext context);  /* before the driver ends it, which waits for its kernels, */
void oh_limit_context_ended(CUcontext context); /* and after */

#endif
