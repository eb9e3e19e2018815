/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that share an allocation share its memory: each has a row of counters in a page that all of them map.
 * The daemon clears the row of one that has ended, however it did; a row is written by nobody else but its process. */
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "loop.h"

static _Atomic uint64_t alone[OC_MAX_DEVICES];
static _Atomic uint64_t (*rows)[OC_MAX_DEVICES]; /* NULL: no group */

int oh_group_start(void)
{
    _Atomic uint64_t *own = alone;

    if (oh_config.group_fd >= 0) {
        void *p = mmap(NULL, sizeof(alone) * OH_GROUP_ROWS, PROT_READ | PROT_WRITE, MAP_SHARED, oh_config.group_fd, 0);

        if (p == MAP_FAILED || oh_config.group_row >= OH_GROUP_ROWS) {
            oh_set_error("the group's page cannot be used");
            return -EINVAL;
        }
        rows = p;
        own = rows[oh_config.group_row];
    }
    for (uint32_t i = 0; i < oh_nr_devices; i++)
        oh_devices[i].used_bytes = &own[i];
    return 0;
}

uint64_t oh_others_bytes(int device)
{
    uint64_t sum = 0;

    for (unsigned i = 0; rows && i < OH_GROUP_ROWS; i++)
        if (i != oh_config.group_row)
            sum += atomic_load(&rows[i][device]);
    return sum;
}

uint64_t oh_used_bytes(int device)
{
    return atomic_load(oh_devices[device].used_bytes) + oh_others_bytes(device);
}
