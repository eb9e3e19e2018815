/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the domain's shared region (a file, or BAR 2 of our ivshmem device) and maps it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core.h"
#include "maps.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

struct og_region og_shared_region = { .fd = -1 };

/* Host bytes are copied before they are believed. */
static bool copy_header(const void *mapped, uint64_t mapped_bytes, struct oc_header *h, struct og_why *why)
{
    memcpy(h, mapped, sizeof(*h));
    atomic_thread_fence(memory_order_acquire); /* magic is written last by the daemon */
    if (h->magic != OC_MAGIC) {
        og_because(why, "it is not initialised by oriond");
        return false;
    }
    if (h->version != OC_LAYOUT_VERSION) {
        og_because(why, "it has layout version %u and this library knows %u: install the client of the host's version",
                   h->version, OC_LAYOUT_VERSION);
        return false;
    }
    if (h->header_bytes < OC_SNAPSHOT_OFF || !og_inside(0, h->header_bytes, mapped_bytes) ||
        h->region_bytes < OC_EXTENT_BYTES || h->region_bytes > mapped_bytes || h->region_bytes % 4096 ||
        !og_inside(OC_SNAPSHOT_OFF, h->snapshot_bytes, h->header_bytes)) {
        og_because(why, "its header contradicts its size (%llu bytes)", (unsigned long long)mapped_bytes);
        return false;
    }
    return true;
}

/* The whole region at the first base that is free here. */
static void *map_at_a_base(int fd, uint64_t bytes)
{
    static const uint64_t bases[OC_NR_BASES] = OC_BASES;

    for (unsigned i = 0; i < OC_NR_BASES; i++) {
        void *want = (void *)(uintptr_t)bases[i];
        void *got = mmap(want, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);

        if (got == want)
            return got;
        if (got != MAP_FAILED)
            munmap(got, bytes); /* an old kernel took the address as a hint */
        else if (errno != EEXIST)
            return MAP_FAILED;
    }
    errno = EEXIST;
    return MAP_FAILED;
}

static bool note_file(const struct og_map *m, void *region)
{
    struct og_region *r = region;

    r->device = m->device;
    r->inode = m->inode;
    return true;
}

/* Checks the header through a small mapping (read() of a BAR is EIO), then maps all of it, if `whole`. */
static bool map_region(int fd, bool whole, struct og_region *r, struct og_why *why)
{
    struct stat st;
    void *head, *all;
    bool ok;

    if (fstat(fd, &st) != 0 || st.st_size < (off_t)OC_HEADER_BYTES) {
        og_because(why, "it is smaller than a region's header");
        return false;
    }
    head = mmap(NULL, OC_HEADER_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (head == MAP_FAILED) {
        og_because(why, "it cannot be mapped (%s)", strerror(errno));
        if (errno == EPERM)
            og_say("the shared memory device cannot be mapped: this kernel is locked down (Secure Boot). Switch Secure "
                   "Boot off in the domain to get the fast path; the slower TCP path is tried");
        return false;
    }
    ok = copy_header(head, (uint64_t)st.st_size, &r->header, why);
    if (ok && !whole) {
        r->base = head;
        r->bytes = (uint64_t)st.st_size;
        return true;
    }
    munmap(head, OC_HEADER_BYTES);
    if (!ok)
        return false;
    all = map_at_a_base(fd, r->header.region_bytes);
    if (all == MAP_FAILED) {
        og_because(why, "none of its addresses is free in this process (%s)", strerror(errno));
        return false;
    }
    madvise(all, r->header.region_bytes, MADV_DONTFORK);
    r->base = all;
    r->bytes = r->header.region_bytes;
    if (!og_maps_each((uint64_t)(uintptr_t)all, (uint64_t)(uintptr_t)all + 1, note_file, r))
        return true; /* then no pages of the application's move here */
    r->fd = fd;
    return true;
}

bool og_region_reread(struct og_why *why)
{
    struct oc_header h;

    if (!copy_header(og_shared_region.base, og_shared_region.bytes, &h, why))
        return false;
    og_shared_region.header = h;
    return true;
}

/* Everything that can be wrong has its one line; then TCP is tried. */
static bool open_region(const char *path, bool named, bool whole, struct og_why *why)
{
    int fd = open(path, (whole ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    bool ok;

    if (fd < 0 && errno == EACCES) {
        og_say("%s: permission denied: this user is not in group orion. `sudo usermod -aG orion $USER` and a new login "
               "cure it; until then the slower TCP path is tried", path);
        return false;
    }
    if (fd < 0) {
        og_because(why, "%s", strerror(errno));
        if (named)
            og_say("region %s (ORION_REGION) cannot be opened: %s; the slower TCP path is tried", path, why->text);
        return false;
    }
    ok = map_region(fd, whole, &og_shared_region, why);
    if (ok)
        snprintf(og_shared_region.path, sizeof(og_shared_region.path), "%s", path);
    if (og_shared_region.fd != fd)
        close(fd);
    if (!ok && named)
        og_say("region %s (ORION_REGION) is not usable: %s; the slower TCP path is tried", path, why->text);
    return ok;
}

/* It may be somebody else's device, so nobody but the log is told, unless nothing works in the end. */
static void note(const char *path, const struct og_why *why)
{
    snprintf(og_shared_region.note, sizeof(og_shared_region.note), "%.100s: %.190s", path, why->text);
    og_log_at(OG_WARNING, "%s", og_shared_region.note);
}

void og_region_find(bool whole)
{
    struct og_why why;
    char path[512];

    if (og_shared_region.base)
        return;
    if (*og_settings.region) {
        open_region(og_settings.region, true, whole, &why);
        return;
    }
    for (unsigned n = 0; og_pci_device(n, og_settings.bar_wc, path, sizeof(path)); n++) {
        if (access(path, F_OK) != 0) {
            og_say("%s: the shared memory device has no address: the domain needs a power cycle (shut down and start, "
                   "not reboot) before it can be used; the slower TCP path is tried", path);
            continue;
        }
        why.text[0] = '\0';
        if (open_region(path, false, whole, &why)) {
            snprintf(og_shared_region.bar, sizeof(og_shared_region.bar), "%.127s", path);
            return;
        }
        if (*why.text)
            note(path, &why);
    }
}
