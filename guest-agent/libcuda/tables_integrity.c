/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime's integrity question: two constants by version, else an HMAC-MD2 over process, tables and devices. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "md2.h"
#include "tables.h"

static const uint8_t og_integrity_key[16] = { 0x14, 0x6a, 0xdd, 0xae, 0x53, 0xa9, 0xa7, 0x52,
                                              0xaa, 0x08, 0x41, 0x36, 0x0b, 0xf5, 0x5a, 0x9f };
static const uint8_t og_integrity_constant[16] = { 0x5c, 0x67, 0xcb, 0x03, 0x1c, 0x18, 0x41, 0x33,
                                                   0xe8, 0xd1, 0x4c, 0x1f, 0xaa, 0x83, 0xd3, 0x8e };

/* Little endian, no padding: offsets are those of the message. */
struct og_integrity_head {
    uint32_t driver_version, version, pid, thread;
    uint64_t cudart, integrity, entry, unix_seconds;
};
struct og_integrity_device {
    uint8_t uuid[16];
    int32_t domain, bus, device;
};
_Static_assert(sizeof(struct og_integrity_head) == 48, "message head");
_Static_assert(sizeof(struct og_integrity_device) == 28, "message device");
_Static_assert(48 + 28 * OC_MAX_DEVICES <= OG_HMAC_MAX, "message fits");

static CUresult og_integrity_hash(const struct og_integrity_addresses *a, uint32_t version, uint64_t unix_seconds,
                                  uint8_t result[16])
{
    uint8_t message[48 + 28 * OC_MAX_DEVICES];
    struct og_integrity_head head = {
        .version = version,
        .pid = (uint32_t)getpid(),
        .thread = (uint32_t)(uintptr_t)pthread_self(),
        .cudart = (uintptr_t)a->cudart,
        .integrity = (uintptr_t)a->integrity,
        .entry = (uintptr_t)a->entry,
        .unix_seconds = unix_seconds,
    };
    int driver_version = 0, n = og_nr_devices();
    CUresult r = cuDriverGetVersion(&driver_version);

    if (r != CUDA_SUCCESS)
        return r;
    head.driver_version = (uint32_t)driver_version;
    memcpy(message, &head, sizeof(head));
    for (int i = 0; i < n; i++) {
        struct og_integrity_device d = { .domain = 0, .bus = og_device_bus(i), .device = 0 };

        og_device_uuid(i, d.uuid);
        memcpy(message + 48 + 28 * i, &d, sizeof(d));
    }
    og_hmac_md2(og_integrity_key, sizeof(og_integrity_key), message, 48 + 28 * (size_t)n, result);
    return CUDA_SUCCESS;
}

CUresult og_integrity_answer(const struct og_integrity_addresses *a, uint32_t version, uint64_t unix_seconds,
                             uint8_t result[16])
{
    if (!result)
        return CUDA_ERROR_INVALID_VALUE;
    if (version % 10 > 1)
        return og_integrity_hash(a, version, unix_seconds, result);
    memcpy(result, og_integrity_constant, 16);
    if (version % 10 == 1)
        result[7] = 0x18;
    return CUDA_SUCCESS;
}
