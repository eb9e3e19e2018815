/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of disjoint ranges, sorted by where they start. */
#ifndef ORION_RANGE_H
#define ORION_RANGE_H

#include <stddef.h>
#include <stdint.h>

/* Index of the first range that ends after `p`; `nr` when all end before. An element has `stride` bytes and begins with
 * two uint64_t: where its range starts, and how many bytes it has. */
static inline size_t oc_range_after(const void *table, size_t nr, size_t stride, uint64_t p)
{
    size_t low = 0, high = nr;

    while (low < high) {
        size_t mid = (low + high) / 2;
        const uint64_t *range = (const uint64_t *)((const char *)table + mid * stride);

        if (range[0] + range[1] <= p)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

#endif
