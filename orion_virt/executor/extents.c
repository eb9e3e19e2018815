/* SPDX-License-Identifier: Apache-2.0 */
/* Region memory of this channel: its block and its grants, mapped at the client's addresses. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <orion/range.h>

#include "loop.h"

#define REGISTER_FLAGS 3u        /* CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP */
#define TCP_WINDOW (1ull << 30)  /* private stand-in for a region: what a client without one may be granted */
#define MAX_GRANTS 65536u
#define LOWEST_BASE (1ull << 32) /* never near NULL: the base comes from the guest */

struct extent {
    uint64_t off, bytes; /* first, for oc_range_after */
    bool registered;
    bool shared; /* with other channels: not ours to wipe */
    bool leaving; /* given back: no more used, and not anybody else's yet */
};

/* Sorted by off. Readers look up at every copy; grants change seldom. */
static struct extent *extents;
static uint32_t nr_extents, room;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static uint64_t tcp_next;        /* end of what was granted so far over TCP; [lock] */
static bool have_context;        /* a context exists: new grants are registered at once; [lock] */

static void *address(uint64_t off)
{
    return (void *)(uintptr_t)(oh_config.base + off);
}

/* Index of the first extent that ends after `off`. The lock is held. */
static uint32_t find_locked(uint64_t off)
{
    return (uint32_t)oc_range_after(extents, nr_extents, sizeof(*extents), off);
}

void *oh_region(uint64_t off, uint64_t bytes)
{
    void *p = NULL;
    uint32_t i;

    pthread_rwlock_rdlock(&lock);
    i = find_locked(off);
    if (i < nr_extents && off >= extents[i].off && off - extents[i].off < extents[i].bytes &&
        bytes <= extents[i].bytes - (off - extents[i].off) && !extents[i].leaving)
        p = address(off);
    pthread_rwlock_unlock(&lock);
    return p;
}

bool oh_is_ours(const void *p, uint64_t bytes)
{
    if ((uintptr_t)p >= oh_config.base && oh_region((uintptr_t)p - oh_config.base, bytes))
        return true;
    return oh_alias_has((uintptr_t)p, bytes);
}

static void *map(uint64_t off, uint64_t bytes)
{
    if (oh_config.region_fd < 0)
        return mmap(address(off), bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return mmap(address(off), bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, oh_config.region_fd, (off_t)off);
}

static void unmap(uint64_t off, uint64_t bytes)
{
    mmap(address(off), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static bool grow_locked(void)
{
    struct extent *more;

    if (nr_extents < room)
        return true;
    more = nr_extents < MAX_GRANTS ? realloc(extents, (room * 2 + 16) * sizeof(*extents)) : NULL;
    if (!more)
        return false;
    extents = more;
    room = room * 2 + 16;
    return true;
}

/* The range must be whole, inside the region and no part of it ours already. */
static bool acceptable_locked(uint64_t off, uint64_t bytes)
{
    uint32_t i = find_locked(off);

    return bytes && !((off | bytes) & 4095) && off < oh_config.region_bytes && bytes <= oh_config.region_bytes - off &&
           (i == nr_extents || extents[i].off >= off + bytes);
}

static int add(uint64_t off, uint64_t bytes, bool shared)
{
    uint32_t i;
    int err = -ENOMEM;

    pthread_rwlock_wrlock(&lock);
    if (oh_config.region_fd >= 0 && oh_control_stale()) {
        err = -ESTALE;
    } else if (!acceptable_locked(off, bytes)) {
        err = -EINVAL;
    } else if (grow_locked()) {
        err = map(off, bytes) == MAP_FAILED ? -errno : 0;
        if (!err) {
            i = find_locked(off);
            memmove(&extents[i + 1], &extents[i], (nr_extents - i) * sizeof(*extents));
            extents[i] = (struct extent){ .off = off, .bytes = bytes, .shared = shared };
            nr_extents++;
        }
    }
    pthread_rwlock_unlock(&lock);
    return err;
}

/* ---- registration with the driver: what makes copies fast and kernels able to read it ---- */

static CUresult register_locked(struct extent *e)
{
    CUresult r;

    if (!oh_drv.cuMemHostRegister_v2)
        return CUDA_ERROR_NOT_SUPPORTED;
    r = oh_drv.cuMemHostRegister_v2(address(e->off), e->bytes, REGISTER_FLAGS);
    e->registered = r == CUDA_SUCCESS || r == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    return e->registered ? CUDA_SUCCESS : r;
}

/* Without registration everything still works (the driver stages copies itself), so it never fails a context. */
CUresult oh_extents_register(void)
{
    CUresult r, first = CUDA_SUCCESS;

    pthread_rwlock_wrlock(&lock);
    have_context = true;
    for (uint32_t i = 0; i < nr_extents; i++) {
        r = register_locked(&extents[i]);
        if (r != CUDA_SUCCESS && first == CUDA_SUCCESS)
            first = r;
    }
    pthread_rwlock_unlock(&lock);
    oh_alias_register();
    if (first != CUDA_SUCCESS)
        oh_log("region memory is not registered with the driver (error %d): copies are slower and kernels cannot "
               "reach pinned memory", (int)first);
    return CUDA_SUCCESS;
}

/* Any context will do, registrations are portable; the calling thread may have none. */
static CUcontext some_context(void)
{
    CUcontext current = NULL;

    if (oh_drv.cuCtxGetCurrent && oh_drv.cuCtxGetCurrent(&current) == CUDA_SUCCESS && current)
        return current;
    for (uint32_t i = 0; i < oh_nr_devices; i++)
        if (oh_devices[i].context)
            return oh_devices[i].context;
    return NULL;
}

bool oh_borrow_context(CUcontext *old)
{
    CUcontext use = some_context();

    *old = NULL;
    if (!use || !oh_drv.cuCtxSetCurrent || oh_drv.cuCtxGetCurrent(old) != CUDA_SUCCESS)
        return false;
    return *old == use || oh_drv.cuCtxSetCurrent(use) == CUDA_SUCCESS;
}

void oh_return_context(CUcontext old)
{
    CUcontext now = NULL;

    if (oh_drv.cuCtxGetCurrent(&now) == CUDA_SUCCESS && now != old)
        oh_drv.cuCtxSetCurrent(old);
}

/* Waits for copies that use it; the guest's thread may have no context. */
static void unregister(const struct extent *e)
{
    CUcontext old;
    CUresult r;

    if (!e->registered || !oh_drv.cuMemHostUnregister || !oh_borrow_context(&old))
        return;
    r = oh_drv.cuMemHostUnregister(address(e->off));
    oh_return_context(old);
    if (r != CUDA_SUCCESS && r != CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED) /* the end of a context took it with it */
        oh_log("the driver keeps region memory at offset 0x%llx registered: error %d", (unsigned long long)e->off, (int)r);
}

static void register_one(uint64_t off)
{
    CUcontext old;
    CUresult r = CUDA_SUCCESS;
    uint32_t i;

    if (!oh_borrow_context(&old))
        return;
    pthread_rwlock_wrlock(&lock);
    i = find_locked(off);
    if (have_context && i < nr_extents && extents[i].off == off)
        r = register_locked(&extents[i]);
    pthread_rwlock_unlock(&lock);
    oh_return_context(old);
    if (r != CUDA_SUCCESS)
        oh_log("grant at region offset 0x%llx is not registered with the driver (error %d): copies are slower",
               (unsigned long long)off, (int)r);
}

/* ---- grants ---- */

/* Over TCP grants are private memory, never reused: both sides hold a copy and agree on offsets. */
static int grant_private(struct oh_control *m)
{
    uint64_t bytes = (m->a + OC_EXTENT_BYTES - 1) & ~(OC_EXTENT_BYTES - 1);

    pthread_rwlock_wrlock(&lock);
    m->a = tcp_next;
    m->b = bytes;
    m->status = bytes && bytes <= oh_config.region_bytes - tcp_next ? 0 : -ENOSPC;
    if (!m->status)
        tcp_next += bytes;
    pthread_rwlock_unlock(&lock);
    return m->status;
}

CUresult oh_extents_grant(uint64_t bytes, uint64_t *off, uint64_t *got)
{
    struct oh_control m;
    int err;

    if (!bytes || bytes > oh_config.region_bytes)
        return bytes ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    do {
        m = (struct oh_control){ .kind = OH_GRANT, .a = bytes };
        err = oh_config.region_fd < 0 ? grant_private(&m) : oh_control_call(&m);
        if (!err)
            err = m.b >= bytes ? add(m.a, m.b, false) : -EINVAL;
    } while (err == -ESTALE);
    if (err) {
        oh_log("no grant of %llu bytes of region memory: %s%s; shm_buffer_size in server.conf or region= in the "
               "domain's metadata sets the region's size", (unsigned long long)bytes, strerror(-err),
               err == -EINVAL ? " (the daemon's answer is unusable)" : "");
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    register_one(m.a);
    *off = m.a;
    *got = m.b;
    return CUDA_SUCCESS;
}

/* The entry is no more used; false: no grant of exactly this range (the block is none). It stays in the list until `drop`:
 * a new daemon must not grant it to others while we still clear it. */
static bool take(uint64_t off, uint64_t bytes, bool shared, struct extent *e)
{
    bool found = false;
    uint32_t i;

    pthread_rwlock_wrlock(&lock);
    i = find_locked(off);
    if (off != oh_config.block_off && i < nr_extents && extents[i].off == off && extents[i].bytes == bytes &&
        extents[i].shared == shared && !extents[i].leaving) {
        *e = extents[i];
        extents[i].leaving = true;
        found = true;
    }
    pthread_rwlock_unlock(&lock);
    return found;
}

static void drop(uint64_t off)
{
    uint32_t i;

    pthread_rwlock_wrlock(&lock);
    i = find_locked(off);
    memmove(&extents[i], &extents[i + 1], (nr_extents - i - 1) * sizeof(*extents));
    nr_extents--;
    pthread_rwlock_unlock(&lock);
}

CUresult oh_extents_release(uint64_t off, uint64_t bytes)
{
    struct oh_control m = { .kind = OH_RELEASE, .a = off, .b = bytes };
    struct extent e;

    if (!take(off, bytes, false, &e))
        return CUDA_ERROR_INVALID_VALUE;
    oh_alias_drop(off, bytes);
    unregister(&e);
    memset(address(off), 0, bytes); /* the next owner is another process; holes would leave DMA on old pages */
    unmap(off, bytes);
    drop(off);
    if (oh_config.region_fd >= 0)
        oh_control_tell(&m);
    return CUDA_SUCCESS;
}

bool oh_extents_tell(void)
{
    bool ok = true;

    if (oh_config.region_fd < 0)
        return true;
    pthread_rwlock_rdlock(&lock);
    for (uint32_t i = 0; ok && i < nr_extents; i++) {
        struct oh_control m = { .kind = OH_HAVE_EXTENT, .a = extents[i].off, .b = extents[i].bytes };

        if (!extents[i].shared)
            ok = oh_control_have(&m, -1);
    }
    pthread_rwlock_unlock(&lock);
    return ok;
}

int oh_extents_hold(uint64_t off, uint64_t bytes)
{
    int err = add(off, bytes, true);

    if (!err)
        register_one(off);
    return err;
}

void oh_extents_let_go(uint64_t off, uint64_t bytes)
{
    struct extent e;

    if (!take(off, bytes, true, &e))
        return;
    oh_alias_drop(off, bytes);
    unregister(&e);
    unmap(off, bytes);
    drop(off);
}

/* ---- start ---- */

static int start_private(void)
{
    void *p = mmap(NULL, TCP_WINDOW, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return -errno;
    if (oh_config.block_off > TCP_WINDOW - OC_CHANNEL_BYTES || oh_config.block_off % OC_EXTENT_BYTES)
        return -EINVAL;
    oh_config.base = (uintptr_t)p;
    oh_config.region_bytes = TCP_WINDOW;
    tcp_next = oh_config.block_off + OC_CHANNEL_BYTES;
    return 0;
}

/* MAP_FIXED below goes over our own reservation only: over oh_reserve_bases', or over this one. */
static int reserve_region(void)
{
    void *want = address(0), *p;

    if (oh_base_reserved(oh_config.base) && oh_config.region_bytes <= OC_BASE_WINDOW)
        return 0;
    if (oh_config.base < LOWEST_BASE)
        return -EINVAL;
    p = mmap(want, oh_config.region_bytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (p != MAP_FAILED && p != want)
        munmap(p, oh_config.region_bytes);
    return p == want ? 0 : -EEXIST;
}

/* A region of a single extent holds its header too: the block is shorter there, at the cost of staging. */
static uint64_t block_bytes(void)
{
    uint64_t left = oh_config.block_off < oh_config.region_bytes ? oh_config.region_bytes - oh_config.block_off : 0;

    if (left <= OC_STAGING_OFF)
        return 0;
    return left < OC_CHANNEL_BYTES ? left : OC_CHANNEL_BYTES;
}

int oh_extents_start(void)
{
    int err = oh_config.region_fd < 0 ? start_private() : reserve_region();

    if (err) {
        oh_set_error("the region cannot be mapped at 0x%llx in the worker: %s", (unsigned long long)oh_config.base,
                     strerror(-err));
        return err;
    }
    err = add(oh_config.block_off, block_bytes(), false);
    if (err)
        oh_set_error("the channel block at region offset 0x%llx cannot be mapped: %s",
                     (unsigned long long)oh_config.block_off, strerror(-err));
    oh_channel = address(oh_config.block_off);
    return err;
}
