/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime's private tables: what their files share. */
#ifndef OG_TABLES_H
#define OG_TABLES_H

#include "client.h"

/* Addresses that the integrity answer covers. */
struct og_integrity_addresses {
    const void *cudart, *integrity, *entry;
};

/* Answers the runtime's question whether driver and runtime fit; `result` 16 bytes. */
OG_MUST_CHECK CUresult og_integrity_answer(const struct og_integrity_addresses *a, uint32_t version,
                                           uint64_t unix_seconds, uint8_t result[16]);

#endif
