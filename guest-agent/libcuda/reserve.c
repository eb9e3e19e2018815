/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps the application's own maps out of the addresses that device memory has on the host. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* What the driver itself reserves at cuInit, pools and address reservations included. */
#define DRIVER_LOW 0x200000000ull
#define DRIVER_HIGH 0x6a9a000000ull
#define SMALLEST (1ull << 20) /* gaps below this hold no allocation of the driver's */

/* Kernels before 4.17 ignore NOREPLACE and may answer another address. */
static bool reserve(uint64_t low, uint64_t high)
{
    void *want = (void *)(uintptr_t)low;
    void *got = mmap(want, high - low, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
                     -1, 0);

    if (got == MAP_FAILED)
        return false;
    if (got != want) {
        munmap(got, high - low);
        errno = EEXIST;
        return false;
    }
    return true;
}

/* Something is in the way: reserve the gaps between this process's maps. */
static void reserve_gaps(uint64_t low, uint64_t high)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    unsigned long long from, to;
    char line[512];

    while (maps && low < high && fgets(line, sizeof(line), maps)) {
        if (sscanf(line, "%llx-%llx", &from, &to) != 2 || to <= low)
            continue;
        if (from > low && (from < high ? from : high) - low >= SMALLEST)
            reserve(low, from < high ? from : high);
        low = to;
    }
    if (maps)
        fclose(maps);
    if (low < high && high - low >= SMALLEST)
        reserve(low, high);
}

void og_reserve_device_ranges(void)
{
    static const uint64_t ranges[][2] = { { OC_DEVICE_LOW, OC_DEVICE_HIGH }, { DRIVER_LOW, DRIVER_HIGH } };

    for (unsigned i = 0; i < 2; i++) {
        if (reserve(ranges[i][0], ranges[i][1]))
            continue;
        if (errno == EEXIST)
            reserve_gaps(ranges[i][0], ranges[i][1]);
        else
            og_log_at(OG_WARNING, "cannot reserve addresses %#llx-%#llx (%s; is there a limit on address space, "
                      "ulimit -v?): a host address may coincide with a device address",
                      (unsigned long long)ranges[i][0], (unsigned long long)ranges[i][1], strerror(errno));
    }
}
