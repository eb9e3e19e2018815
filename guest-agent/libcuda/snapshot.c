/* SPDX-License-Identifier: Apache-2.0 */
/* What is known before a channel exists: cards, memory, bus ids and UUIDs of this process's vGPUs. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core.h"

#define FIRST_BUS 0xa0 /* above what QEMU's machines number, room for OC_MAX_DEVICES */

static struct oc_snapshot snapshot;
static struct {
    int physical;   /* -1: not granted yet */
    uint64_t bytes;
} granted[OC_MAX_DEVICES];

/* The host's bytes are copied, then checked, then made tidy: names end, counts fit. */
bool og_snapshot_set(const void *bytes, size_t nr_bytes, struct og_why *why)
{
    static struct oc_snapshot s; /* under og_init_lock; too large for a small stack */
    size_t fixed = offsetof(struct oc_snapshot, gpu);

    memset(&s, 0, sizeof(s));
    memcpy(&s, bytes, nr_bytes < sizeof(s) ? nr_bytes : sizeof(s));
    if (nr_bytes < fixed || s.nr_gpus > OC_SNAP_MAX_GPUS || nr_bytes - fixed < s.nr_gpus * sizeof(s.gpu[0])) {
        og_because(why, "the host's description of its GPUs is malformed (%zu bytes)", nr_bytes);
        return false;
    }
    if (s.nr_gpus == 0) {
        og_because(why, "the host has no GPU to share");
        return false;
    }
    for (unsigned i = 0; i < s.nr_gpus; i++)
        s.gpu[i].name[sizeof(s.gpu[i].name) - 1] = '\0';
    if (s.vgpu_count == 0)
        s.vgpu_count = 1;
    snapshot = s;
    for (unsigned i = 0; i < OC_MAX_DEVICES; i++)
        granted[i].physical = -1;
    return true;
}

const struct oc_snapshot *og_snapshot(void)
{
    return snapshot.nr_gpus ? &snapshot : NULL;
}

static uint64_t asked_bytes(const struct oc_snap_gpu *gpu)
{
    return og_settings.gmem_bytes ? og_settings.gmem_bytes : gpu->default_bytes;
}

/* Where placement on idle cards would put the index-th vGPU: it fills one card, then the next. */
static unsigned expected_card(int index)
{
    for (unsigned card = 0; card < snapshot.nr_gpus; card++) {
        const struct oc_snap_gpu *gpu = &snapshot.gpu[card];
        uint64_t each = asked_bytes(gpu);
        uint64_t fit = each ? gpu->total_bytes / each : snapshot.vgpu_count;

        if (fit > snapshot.vgpu_count)
            fit = snapshot.vgpu_count;
        if ((uint64_t)index < fit)
            return card;
        index -= (int)fit;
    }
    return snapshot.nr_gpus - 1;
}

const struct oc_snap_gpu *og_device_gpu(int device)
{
    int physical = granted[device].physical;

    return &snapshot.gpu[physical >= 0 ? (unsigned)physical : expected_card(og_visible(device))];
}

uint64_t og_device_bytes(int device)
{
    return granted[device].bytes ? granted[device].bytes : asked_bytes(og_device_gpu(device));
}

void og_device_granted(int device, int physical, uint64_t bytes)
{
    if (physical >= 0 && (uint32_t)physical < snapshot.nr_gpus)
        granted[device].physical = physical;
    granted[device].bytes = bytes;
}

/* The domain's uuid, or over TCP the machine's id: the same for every process of this machine. */
static void machine(uint8_t id[16])
{
    char text[33] = "";
    ssize_t n = -1;
    int fd;

    memset(id, 0, 16);
    if (og_shared_region.base) {
        memcpy(id, og_shared_region.header.domain_uuid, 16);
        return;
    }
    fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, text, 32);
        close(fd);
    }
    if (n != 32 || og_unhex(text, id, 16) != 16)
        memset(id, 0, 16);
}

/* What names this machine's processes to the server over TCP, where no region does; "-": it has no id. */
void og_machine_text(char to[33])
{
    static const char key[] = "orion machine";
    uint8_t mac[32], id[16];
    static const uint8_t none[16];

    machine(id);
    og_hmac_sha256(key, sizeof(key) - 1, id, sizeof(id), NULL, 0, mac);
    if (memcmp(id, none, sizeof(id)))
        og_hex(mac, 16, to);
    else
        strcpy(to, "-");
}

/* First 16 bytes of HMAC-SHA256("orion vgpu", machine id || index), so that parents, children and NVML agree. */
void og_visible_uuid(int index, uint8_t uuid[16])
{
    static const char key[] = "orion vgpu";
    uint8_t mac[32], id[16], at = (uint8_t)index;

    machine(id);
    og_hmac_sha256(key, sizeof(key) - 1, id, sizeof(id), &at, 1, mac);
    memcpy(uuid, mac, 16);
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* looks like a random UUID, as cards' do */
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

void og_device_uuid(int device, uint8_t uuid[16])
{
    og_visible_uuid(og_visible(device), uuid);
}

int og_device_bus(int device)
{
    return FIRST_BUS + og_visible(device);
}
