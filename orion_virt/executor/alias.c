/* SPDX-License-Identifier: Apache-2.0 */
/* Region memory at a second address: that of the guest's own pages which moved there to be registered. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <orion/range.h>

#include "loop.h"

#include "gen/ops.h"

#define REGISTER_FLAGS 3u /* CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP */
#define MAX_ALIASES 16384u /* each is a mapping, of which a process may have 65530 */
#define LOWEST 65536u
#define HIGHEST (1ull << 47)

struct alias {
    uint64_t addr, bytes; /* first, for oc_range_after */
    uint64_t off;
};

/* One change at a time; a grant that is released waits for it, so that no alias of it comes to be afterwards. */
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER; /* of the table */
static struct alias *aliases; /* sorted by addr */
static uint32_t nr_aliases, room;
static uint64_t total_bytes;  /* under `changing` */

static void *at(uint64_t addr)
{
    return (void *)(uintptr_t)addr;
}

/* Index of the first alias that ends after addr. */
static uint32_t find_locked(uint64_t addr)
{
    return (uint32_t)oc_range_after(aliases, nr_aliases, sizeof(*aliases), addr);
}

bool oh_alias_has(uint64_t addr, uint64_t bytes)
{
    bool has;
    uint32_t i;

    if (!__atomic_load_n(&nr_aliases, __ATOMIC_RELAXED))
        return false;
    pthread_rwlock_rdlock(&lock);
    i = find_locked(addr);
    has = i < nr_aliases && aliases[i].addr <= addr && bytes <= aliases[i].bytes - (addr - aliases[i].addr);
    pthread_rwlock_unlock(&lock);
    return has;
}

static bool insert(const struct alias *a)
{
    struct alias *more = aliases;
    uint32_t i;

    pthread_rwlock_wrlock(&lock);
    if (nr_aliases == room)
        more = nr_aliases < MAX_ALIASES ? realloc(aliases, (room * 2 + 16) * sizeof(*aliases)) : NULL;
    if (more) {
        room = nr_aliases == room ? room * 2 + 16 : room;
        aliases = more;
        i = find_locked(a->addr);
        memmove(&aliases[i + 1], &aliases[i], (nr_aliases - i) * sizeof(*aliases));
        aliases[i] = *a;
        nr_aliases++;
    }
    pthread_rwlock_unlock(&lock);
    return more != NULL;
}

/* Takes one out: the one at `addr`, or any that shows a byte of [off, off + bytes). */
static bool take(uint64_t addr, uint64_t off, uint64_t bytes, struct alias *a)
{
    uint32_t i = 0;

    pthread_rwlock_wrlock(&lock);
    while (i < nr_aliases && aliases[i].addr != addr &&
           (aliases[i].off >= off + bytes || off >= aliases[i].off + aliases[i].bytes))
        i++;
    if (i < nr_aliases) {
        *a = aliases[i];
        memmove(&aliases[i], &aliases[i + 1], (nr_aliases - i - 1) * sizeof(*aliases));
        nr_aliases--;
        pthread_rwlock_unlock(&lock);
        return true;
    }
    pthread_rwlock_unlock(&lock);
    return false;
}

/* The guest names the address: only one that is free here, and no place of the driver's or the region's. */
static bool acceptable(const struct ow_orion_alias_in *in)
{
    uint64_t end = in->addr + in->bytes, region_end = oh_config.base + oh_config.region_bytes;

    if (!in->bytes || (in->addr | in->off | in->bytes) & 4095 || in->addr < LOWEST || end < in->addr || end > HIGHEST)
        return false;
    if (in->addr < OC_DEVICE_HIGH && end > OC_DEVICE_LOW)
        return false;
    if (in->addr < region_end && end > oh_config.base)
        return false;
    return in->bytes <= oh_config.region_bytes - total_bytes && oh_region(in->off, in->bytes);
}

static CUresult map(const struct alias *a)
{
    void *p = mmap(at(a->addr), a->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE,
                   oh_config.region_fd, (off_t)a->off);

    if (p == at(a->addr))
        return CUDA_SUCCESS;
    oh_log("the client's memory at 0x%llx cannot be mapped here as well: %s", (unsigned long long)a->addr,
           p == MAP_FAILED ? strerror(errno) : "the kernel took another address");
    if (p != MAP_FAILED)
        munmap(p, a->bytes); /* before 4.17 the address was a hint */
    return CUDA_ERROR_NOT_SUPPORTED;
}

/* Kernels are given the guest's address, so the driver's must be equal. */
static CUresult register_with_driver(const struct alias *a)
{
    CUdeviceptr device = 0;
    CUresult r = OH_CALL(cuMemHostRegister_v2, at(a->addr), a->bytes, REGISTER_FLAGS);

    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuMemHostGetDevicePointer_v2, &device, at(a->addr), 0);
    if (r == CUDA_SUCCESS && device == a->addr)
        return CUDA_SUCCESS;
    OH_CALL(cuMemHostUnregister, at(a->addr));
    oh_log("the driver sees registered memory at 0x%llx as 0x%llx (error %d)", (unsigned long long)a->addr,
           (unsigned long long)device, (int)r);
    return r == CUDA_SUCCESS ? CUDA_ERROR_NOT_SUPPORTED : r;
}

static CUresult make_locked(const struct alias *a)
{
    CUresult r = map(a);

    if (r != CUDA_SUCCESS)
        return r;
    r = register_with_driver(a);
    if (r == CUDA_SUCCESS && !insert(a)) {
        OH_CALL(cuMemHostUnregister, at(a->addr));
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (r == CUDA_SUCCESS)
        total_bytes += a->bytes;
    else
        munmap(at(a->addr), a->bytes);
    return r;
}

CUresult oh_orion_alias(struct oh_twin *t, const struct ow_orion_alias_in *in, uint32_t bytes,
                        struct ow_orion_alias_out *out, uint32_t *out_bytes)
{
    struct alias a = { .addr = in->addr, .off = in->off, .bytes = in->bytes };
    CUresult r;

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    if (oh_config.region_fd < 0)
        return CUDA_ERROR_NOT_SUPPORTED;
    pthread_mutex_lock(&changing);
    r = acceptable(in) ? make_locked(&a) : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_unlock(&changing);
    return r;
}

/* Waits for work that uses it; a context that has ended took the registration with it. */
static void end_locked(const struct alias *a)
{
    CUcontext old;

    if (oh_borrow_context(&old)) {
        OH_CALL(cuMemHostUnregister, at(a->addr));
        oh_return_context(old);
    }
    munmap(at(a->addr), a->bytes);
    total_bytes -= a->bytes;
}

CUresult oh_orion_unalias(struct oh_twin *t, const struct ow_orion_unalias_in *in, uint32_t bytes,
                          struct ow_orion_unalias_out *out, uint32_t *out_bytes)
{
    struct alias a;
    bool had;

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    pthread_mutex_lock(&changing);
    had = take(in->addr, 0, 0, &a);
    if (had)
        end_locked(&a);
    pthread_mutex_unlock(&changing);
    return had ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
}

void oh_alias_drop(uint64_t off, uint64_t bytes)
{
    struct alias a;

    pthread_mutex_lock(&changing);
    while (take(0, off, bytes, &a))
        end_locked(&a);
    pthread_mutex_unlock(&changing);
}

void oh_alias_register(void)
{
    CUresult r;

    pthread_mutex_lock(&changing);
    for (uint32_t i = 0; i < nr_aliases; i++) {
        r = OH_CALL(cuMemHostRegister_v2, at(aliases[i].addr), aliases[i].bytes, REGISTER_FLAGS);
        if (r != CUDA_SUCCESS && r != CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED)
            oh_log("memory at 0x%llx is not registered again: error %d", (unsigned long long)aliases[i].addr, (int)r);
    }
    pthread_mutex_unlock(&changing);
}
