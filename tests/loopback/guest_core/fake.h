/* SPDX-License-Identifier: Apache-2.0 */
/* What fake server and client program agree on; operations have meanings of the test's own. */
#ifndef FAKE_H
#define FAKE_H

#include "core.h"

#define FAKE_REGION_BYTES (8u << 20)
#define FAKE_DOMAIN "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
#define FAKE_TOKEN "0123456789abcdef"
#define FAKE_ALLOCATION "fda38164-711b-4809-9984-2759a3a2165b"

enum fake_op {
    FAKE_ECHO = OW_OP_orion_ping,         /* round trip: the payload comes back */
    FAKE_COUNT = OW_OP_orion_nop,         /* one way: struct fake_item, checked for order */
    FAKE_SLEEP = OW_OP_orion_grant,       /* u64 ms, either way */
    FAKE_END = OW_OP_orion_release,       /* u64 enum fake_end */
    FAKE_TOTALS = OW_OP_orion_host_sync,  /* struct fake_totals comes back */
    FAKE_STICKY = OW_OP_orion_pointer,    /* u64: becomes device_error[0] */
    FAKE_FENCE = OW_OP_orion_fence_wait,  /* one way: fence_done = u64 after 50 ms, by another thread */
};

enum fake_end { FAKE_CLOSE, FAKE_CLOSE_PROTOCOL, FAKE_BAD_BYTE };

struct fake_item {
    uint32_t thread, number; /* numbers of a thread rise by one */
};

#define FAKE_SLOW_THREAD 63u /* its items take 1 us each */

struct fake_totals {
    uint64_t counted, disordered, exits, wakes;
};

void fake_execute(int fd, struct oc_channel *c, uint64_t off, bool shm);

#endif
