/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the test's own operations, as generated senders make them. */
#ifndef CLIENT_CALLS_H
#define CLIENT_CALLS_H

#include "fake.h"

uint32_t echo(const void *in, uint32_t bytes, void *out); /* bytes of the answer */
CUresult send_value(uint32_t op, uint64_t value);         /* one way */
CUresult ask_value(uint32_t op, uint64_t value);          /* round trip */
CUresult count_item(uint32_t thread, uint32_t number, uint32_t bytes);
CUresult begin_and_abandon(uint32_t op);
struct fake_totals totals(void);
void *map_hint(uint64_t addr);

#endif
