/* SPDX-License-Identifier: Apache-2.0 */
/* One mapping of this process, and a walk over them. */
#ifndef OG_MAPS_H
#define OG_MAPS_H

#include <stdbool.h>
#include <stdint.h>

struct og_map {
    uint64_t start, end, offset, device, inode;
    bool read, write, execute, is_private;
    bool is_stack;   /* the main thread's */
    bool is_special; /* the kernel's: vdso and the like */
    bool is_memory;  /* a file that lives in memory: POSIX and System V shared memory, memfd, shared anonymous pages */
};

/* Visits the mappings that have a byte in [from, to), in order, until one returns false; then, or where the kernel
 * tells nothing, false. */
bool og_maps_each(uint64_t from, uint64_t to, bool (*visit)(const struct og_map *m, void *arg), void *arg);

#endif
