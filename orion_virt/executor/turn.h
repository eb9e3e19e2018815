/* SPDX-License-Identifier: Apache-2.0 */
/* Turns on a card, where compute limits are on: what loop, handles, contexts and control tell turn.c. */
#ifndef OH_TURN_H
#define OH_TURN_H

#include "executor.h"

extern bool oh_turns_on;                     /* set once, before any command */
OH_MUST_CHECK int oh_turns_start(void);       /* -errno */
/* Around a command that brings work: enter waits for this worker's turn on the twin's card. Holds the baton, so that the
 * order of commands stays as the guest gave it. */
void oh_turn_enter(struct oh_twin *t);
void oh_turn_leave(void);
void oh_turn_stream(void *stream);           /* the command in hand works on this stream of the driver's */
void oh_turn_stream_ends(void *stream);      /* before the driver destroys it */
void oh_turn_context_ends(CUcontext context);
void oh_turn_order(const struct oh_control *m); /* OH_TURN came */
/* Any answer but NOT_READY, since after a fault nothing runs any more; also while another thread captures. For limit.c too. */
bool oh_event_is_complete(CUevent event);
void oh_turns_free(bool on); /* nobody gives turns now, so nobody waits for any; false: somebody does again */

#endif
