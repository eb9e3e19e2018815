/* SPDX-License-Identifier: Apache-2.0 */
/* The device's doorbell: a store to its register BAR wakes the host's worker, without the network. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core.h"

/* QEMU's docs/specs/ivshmem-spec.txt, register "Doorbell"; what is stored there names peer and vector. */
#define DOORBELL_REG 12u
#define REGISTERS_BYTES 256u
#define PAGE 4096u

static volatile uint32_t *reg;
static _Atomic bool in_use;
static uint32_t ring_value;

static bool sibling(const char *name, char *path, size_t room)
{
    const char *slash = strrchr(og_shared_region.bar, '/');

    return slash && snprintf(path, room, "%.*s/%s", (int)(slash - og_shared_region.bar), og_shared_region.bar, name) < (int)room;
}

/* Where the registers lie in their page: the first line of `resource` begins with their address. */
static uint32_t offset_in_page(void)
{
    char path[160], text[32] = "";
    int fd = sibling("resource", path, sizeof(path)) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        close(fd);
    return n > 0 ? (uint32_t)(strtoull(text, NULL, 16) % PAGE) : 0;
}

static volatile uint32_t *map_registers(const char *path)
{
    uint32_t off = offset_in_page();
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat st;
    void *page;

    if (fd < 0)
        return NULL;
    page = fstat(fd, &st) || st.st_size < REGISTERS_BYTES || off + REGISTERS_BYTES > PAGE
               ? MAP_FAILED
               : mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED)
        return NULL;
    madvise(page, PAGE, MADV_DONTFORK);
    return (volatile uint32_t *)(void *)((uint8_t *)page + off + DOORBELL_REG);
}

bool og_doorbell_map(void)
{
    char path[160];

    if (reg || !(og_shared_region.header.features & OC_FEATURE_DOORBELL) || !*og_shared_region.bar ||
        !sibling("resource0", path, sizeof(path)))
        return reg;
    errno = 0;
    reg = map_registers(path);
    if (!reg)
        og_log("%s: the doorbell cannot be used (%s): the host is woken over the network. Is install-client's udev rule of "
               "this version?", path, errno ? strerror(errno) : "unknown registers");
    return reg;
}

void og_doorbell_use(uint64_t value)
{
    if (!reg || value > UINT32_MAX)
        return;
    ring_value = (uint32_t)value;
    atomic_store(&in_use, true);
}

bool og_doorbell_ring(void)
{
    if (!atomic_load_explicit(&in_use, memory_order_relaxed))
        return false;
    atomic_thread_fence(memory_order_release); /* the command before the ring; the processor keeps that order */
    *reg = ring_value;
    return atomic_load_explicit(&og_link.channel->doorbell_heard, memory_order_relaxed);
}
