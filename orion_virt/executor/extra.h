/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that the driver takes for itself beside what the client asked for: code, stacks, further contexts, rounding. */
#ifndef OH_EXTRA_H
#define OH_EXTRA_H

#include "executor.h"

#define OH_EXTRA_STEP (2ull << 20) /* what the driver takes of the card at once for small things */

/* ---- report.c: what the driver says that this process has of a card ---- */
void oh_report_open(void *driver);               /* before the first context; finds who can say it */
bool oh_report(int ordinal, uint64_t *bytes);    /* false: nobody can. Nothing on the card is 0 bytes */

/* ---- extra.c ---- */
/* Before a call that makes the driver take up to `bytes` more for itself: CUDA_ERROR_OUT_OF_MEMORY where they are not left. */
OH_MUST_CHECK CUresult oh_extra_more(int device, uint64_t bytes);
/* What such a call took is gone, or the call failed. */
void oh_extra_less(int device, uint64_t bytes);
/* The same before a command that a round trip answers, or one whose sender hears nothing (`may_refuse` false). */
OH_MUST_CHECK CUresult oh_extra_step(int device, bool may_refuse);
/* Around the making of a device's first context, whose cost placement has booked: begin's answer goes to end. */
uint64_t oh_extra_base_begin(int device);
void oh_extra_base_end(int device, uint64_t before);
uint64_t oh_extra_base_bytes(int device);        /* what a context of it costs */
void oh_extra_base_gone(int device);             /* its last context has ended */
/* Of a further context: what of its cost no report shows is booked, 1, or unbooked, -1. */
void oh_extra_hidden(int device, int contexts);
/* Asks the driver now; true: the device is beyond its limit. */
bool oh_extra_over_now(int device);
bool oh_extra_measured(void);                    /* false: no report, what can be computed is booked for good */
int32_t oh_extra_how(void);                      /* as OH_USAGE tells it */
uint64_t oh_extra_bytes(int device);
uint64_t oh_extra_fresh(int device);             /* all that is taken of its limit, by a group's other processes too */
void oh_extra_settle(void);                      /* the command of this twin is done */
void oh_extra_look(void);                        /* something may have changed: look soon */
int oh_extra_start(void);                        /* the thread that looks; 0 or a negative errno */

/* ---- stack.c: local memory and malloc's heap of each context ---- */
#define OH_STACK_SLOTS 64 /* contexts that have their own account; further ones go without being foretold */
void oh_stack_begin(CUcontext context, int device);
void oh_stack_end(CUcontext context);
int oh_stack_slot(CUcontext context);            /* -1: none */
/* Before a kernel runs whose threads have so many bytes of local memory: the driver makes room for all that the card can run at once. */
OH_MUST_CHECK CUresult oh_stack_for(int slot, uint64_t bytes_a_thread);
/* Around what loads code to a device: room for its variables, `takes`, before; after it, whether it stayed within the limit.
 * A load that ends well is given back by oh_extra_less(device, takes). */
OH_MUST_CHECK CUresult oh_load_begin(int slot, int device, uint64_t takes, bool mallocs);
OH_MUST_CHECK CUresult oh_load_end(int slot, int device, uint64_t takes, bool mallocs);

#endif
