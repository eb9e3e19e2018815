/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger of addresses that device code and copies may touch, and the allocator of device memory in it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <orion/layout.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "array.h"

/* Above the bases at which a driver's reservations were seen, inside what clients keep free for us. */
#define SPACE_LOW (OC_DEVICE_LOW + (1ull << 40))
#define SPACE_HIGH OC_DEVICE_HIGH
#define UNIT 512u
#define UNITS (SIM_GRANULE / UNIT)
#define SMALL (SIM_GRANULE / 2)    /* larger requests get granules of their own */

struct sim_chunk {                 /* one granule cut into units */
    uint64_t start;
    struct sim_device *device;
    unsigned used;
    uint8_t taken[UNITS];
    struct CUmemPoolHandle_st *pool;
    struct sim_chunk *next;
};
static struct sim_range **ranges;  /* sorted by start */
static size_t nr_ranges, room;
static struct sim_chunk *chunks;
static uint64_t next_address = SPACE_LOW;
static uint64_t next_id = 1;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static int memory_fd = -1;         /* all device memory: a sparse file, so that other processes can map parts of it */

bool sim_space_book(struct sim_device *device, uint64_t bytes)
{
    uint64_t used = device->used_bytes;

    do {
        if (bytes > device->total_bytes || used > device->total_bytes - bytes)
            return false;
    } while (!__atomic_compare_exchange_n((uint64_t *)&device->used_bytes, &used, used + bytes, false,
                                          __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    sim_own_note(device);
    return true;
}

void sim_space_unbook(struct sim_device *device, uint64_t bytes)
{
    device->used_bytes -= bytes;
    sim_own_note(device);
}

/* What is behind a pool's allocations is the pool's, which books each of them. */
static bool book(const void *pool, struct sim_device *device, uint64_t bytes)
{
    return pool || sim_space_book(device, bytes);
}

static void unbook(const void *pool, struct sim_device *device, uint64_t bytes)
{
    if (!pool)
        sim_space_unbook(device, bytes);
}

static uint64_t units_of(const struct sim_range *r)
{
    return (r->bytes + UNIT - 1) / UNIT;
}

/* Index of the first range that starts above `address`. */
static size_t above(uint64_t address)
{
    size_t low = 0, high = nr_ranges;

    while (low < high) {
        size_t mid = (low + high) / 2;
        if (ranges[mid]->start <= address)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct sim_range *find_locked(uint64_t address)
{
    size_t i = above(address);
    struct sim_range *r = i ? ranges[i - 1] : NULL;

    return r && address - r->start < r->bytes ? r : NULL;
}

static CUresult insert_locked(const struct sim_range *range)
{
    size_t i = above(range->start);
    struct sim_range *copy;

    if ((i && ranges[i - 1]->start + ranges[i - 1]->bytes > range->start) ||
        (i < nr_ranges && range->start + range->bytes > ranges[i]->start))
        return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    if (nr_ranges == room) {
        size_t more = room ? room * 2 : 64;
        void *p = realloc(ranges, more * sizeof(*ranges));
        if (!p)
            return CUDA_ERROR_OUT_OF_MEMORY;
        ranges = p;
        room = more;
    }
    copy = malloc(sizeof(*copy));
    if (!copy)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *copy = *range;
    copy->id = next_id++;
    memmove(&ranges[i + 1], &ranges[i], (nr_ranges - i) * sizeof(*ranges));
    ranges[i] = copy;
    nr_ranges++;
    return CUDA_SUCCESS;
}

/* Device memory's file, where the byte of address a is at a - SPACE_LOW; made at the first use. */
static int memory_file(void)
{
    int fd;

    if (memory_fd >= 0)
        return memory_fd;
    fd = memfd_create("orion-sim-memory", MFD_CLOEXEC);
    if (fd < 0 || !ftruncate(fd, (off_t)(SPACE_HIGH - SPACE_LOW)))
        return memory_fd = fd;
    close(fd);
    return -1;
}

static uint64_t map_at(uint64_t at, uint64_t bytes, int prot)
{
    int fd = prot == PROT_NONE ? -1 : memory_file();
    int how = prot == PROT_NONE ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *p = prot != PROT_NONE && fd < 0 ? MAP_FAILED
                                          : mmap((void *)(uintptr_t)at, bytes, prot, how | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
                                                 fd, fd < 0 ? 0 : (off_t)(at - SPACE_LOW));

    if (p == MAP_FAILED)
        return 0;
    if ((uint64_t)(uintptr_t)p == at)
        return at;
    munmap(p, bytes); /* a kernel without MAP_FIXED_NOREPLACE takes it as a hint */
    return 0;
}

/* A fresh mapping in the device's window; addresses are reused only after the window was used up. */
static uint64_t map_locked(uint64_t bytes, uint64_t align, int prot)
{
    for (int pass = 0; pass < 2; pass++) {
        uint64_t at = (next_address + align - 1) / align * align;
        for (; at + bytes <= SPACE_HIGH; at += align) {
            if (!map_at(at, bytes, prot))
                continue;
            next_address = at + bytes;
            return at;
        }
        next_address = SPACE_LOW;
    }
    return 0;
}

uint64_t sim_space_reserve(uint64_t bytes, uint64_t align, uint64_t hint)
{
    uint64_t at;

    pthread_rwlock_wrlock(&lock);
    at = hint && hint % SIM_GRANULE == 0 ? map_at(hint, bytes, PROT_NONE) : 0;
    if (!at)
        at = map_locked(bytes, align < SIM_GRANULE ? SIM_GRANULE : align, PROT_NONE);
    pthread_rwlock_unlock(&lock);
    return at;
}

static uint64_t chunk_take(struct sim_chunk *c, unsigned units)
{
    unsigned run = 0;

    if (UNITS - c->used < units)
        return 0;
    for (unsigned i = 0; i < UNITS; i++) {
        run = c->taken[i] ? 0 : run + 1;
        if (run < units)
            continue;
        memset(&c->taken[i + 1 - units], 1, units);
        c->used += units;
        return c->start + (uint64_t)(i + 1 - units) * UNIT;
    }
    return 0;
}

static CUresult alloc_small(struct sim_range *r)
{
    unsigned units = (unsigned)units_of(r);
    struct sim_chunk *c;

    for (c = chunks; c; c = c->next)
        if (c->device == r->device && c->pool == r->owner && (r->start = chunk_take(c, units))) {
            r->chunk = c;
            return CUDA_SUCCESS;
        }
    if (!book(r->owner, r->device, SIM_GRANULE))
        return CUDA_ERROR_OUT_OF_MEMORY;
    c = calloc(1, sizeof(*c));
    if (!c || !(c->start = map_locked(SIM_GRANULE, SIM_GRANULE, PROT_READ | PROT_WRITE))) {
        free(c);
        unbook(r->owner, r->device, SIM_GRANULE);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    c->device = r->device;
    c->pool = r->owner;
    c->next = chunks;
    chunks = c;
    r->chunk = c;
    r->start = chunk_take(c, units);
    return CUDA_SUCCESS;
}

static CUresult alloc_large(struct sim_range *r)
{
    uint64_t size = (r->bytes + SIM_GRANULE - 1) / SIM_GRANULE * SIM_GRANULE;

    if (!book(r->owner, r->device, size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    r->start = map_locked(size, SIM_GRANULE, PROT_READ | PROT_WRITE);
    if (!r->start) {
        unbook(r->owner, r->device, size);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    r->mapped = r->booked = size;
    return CUDA_SUCCESS;
}

/* Unmaps device memory and frees its pages, which are zero when it is next allocated. */
static void give_back(uint64_t at, uint64_t bytes)
{
    munmap((void *)(uintptr_t)at, bytes);
    if (fallocate(memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(at - SPACE_LOW), (off_t)bytes))
        sim_say("freed device memory keeps its pages");
}

static void release_locked(struct sim_range *r)
{
    struct CUmemPoolHandle_st *pool = r->kind == SIM_MEM_POOL ? r->owner : NULL;
    struct sim_chunk *c = r->chunk, **at;

    if (pool)
        sim_pool_unbook(pool, units_of(r) * UNIT);
    if (c) {
        unsigned units = (unsigned)units_of(r);
        memset(&c->taken[(r->start - c->start) / UNIT], 0, units);
        c->used -= units;
        if (c->used)
            return;
        give_back(c->start, SIM_GRANULE);
        unbook(c->pool, c->device, SIM_GRANULE);
        for (at = &chunks; *at != c; at = &(*at)->next)
            ;
        *at = c->next;
        free(c);
        return;
    }
    if (r->booked)
        give_back(r->start, r->mapped);
    else if (r->mapped) /* of another process it may start within a page */
        munmap((void *)(uintptr_t)(r->start & ~4095ull), r->mapped);
    if (r->booked)
        unbook(pool, r->device, r->booked);
}

static CUresult alloc(struct sim_range *r, uint64_t *address)
{
    CUresult result;

    if (!r->bytes)
        return CUDA_ERROR_INVALID_VALUE;
    if (r->bytes > SPACE_HIGH - SPACE_LOW || (r->owner && !sim_pool_book(r->owner, units_of(r) * UNIT)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_rwlock_wrlock(&lock);
    result = r->bytes <= SMALL ? alloc_small(r) : alloc_large(r);
    if (result && r->owner)
        sim_pool_unbook(r->owner, units_of(r) * UNIT);
    if (!result) {
        result = insert_locked(r);
        if (result)
            release_locked(r);
    }
    pthread_rwlock_unlock(&lock);
    *address = result ? 0 : r->start;
    return result;
}

CUresult sim_space_alloc(struct CUctx_st *ctx, struct sim_device *device, size_t bytes, enum sim_memory kind,
                         unsigned flags, uint64_t *address)
{
    struct sim_range r = { .bytes = bytes, .kind = kind, .ctx = ctx, .device = device, .flags = flags };

    return alloc(&r, address);
}

CUresult sim_space_alloc_from(struct CUmemPoolHandle_st *pool, struct CUctx_st *ctx, size_t bytes, uint64_t *address)
{
    struct sim_range r = { .bytes = bytes, .kind = SIM_MEM_POOL, .ctx = ctx, .device = pool->device, .owner = pool };

    return alloc(&r, address);
}

int sim_space_file(uint64_t address, uint64_t *offset)
{
    *offset = address - SPACE_LOW;
    return memory_fd;
}

CUresult sim_space_open(int fd, uint64_t offset, struct sim_range *range)
{
    uint64_t in_page = offset & 4095, size = (in_page + range->bytes + 4095) & ~4095ull;
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;
    uint64_t at;

    pthread_rwlock_wrlock(&lock);
    at = map_locked(size, SIM_GRANULE, PROT_NONE);
    range->mapped = size;
    range->start = at + in_page;
    if (at && mmap((void *)(uintptr_t)at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd,
                   (off_t)(offset - in_page)) != MAP_FAILED)
        r = insert_locked(range);
    if (r && at)
        munmap((void *)(uintptr_t)at, size);
    pthread_rwlock_unlock(&lock);
    return r;
}

static void remove_locked(size_t i)
{
    struct sim_range *r = ranges[i];

    memmove(&ranges[i], &ranges[i + 1], (nr_ranges - i - 1) * sizeof(*ranges));
    nr_ranges--;
    release_locked(r);
    free(r);
}

CUresult sim_space_free(uint64_t address)
{
    size_t i;
    CUresult r = CUDA_SUCCESS;

    pthread_rwlock_wrlock(&lock);
    i = above(address);
    if (!i || ranges[i - 1]->start != address)
        r = CUDA_ERROR_INVALID_VALUE;
    else
        remove_locked(i - 1);
    pthread_rwlock_unlock(&lock);
    return r;
}

bool sim_space_find(uint64_t address, struct sim_range *out)
{
    struct sim_range *r;

    pthread_rwlock_rdlock(&lock);
    r = find_locked(address);
    if (r && out)
        *out = *r;
    pthread_rwlock_unlock(&lock);
    return r != NULL;
}

uint64_t sim_space_extent(uint64_t address)
{
    struct sim_range *r;
    uint64_t bytes = 0;

    pthread_rwlock_rdlock(&lock);
    r = find_locked(address);
    if (r && r->kind != SIM_MEM_RESERVED && !(r->kind == SIM_MEM_MAPPED && !r->access))
        bytes = r->start + r->bytes - address;
    /* Mappings side by side in one reservation are one piece of memory to whoever reads it. */
    for (struct sim_range *next; bytes && r->kind == SIM_MEM_MAPPED; r = next) {
        next = find_locked(address + bytes);
        if (!next || next->kind != SIM_MEM_MAPPED || !next->access || next->reservation != r->reservation)
            break;
        bytes += next->bytes;
    }
    pthread_rwlock_unlock(&lock);
    return bytes;
}

bool sim_space_split(uint64_t at)
{
    struct sim_range *r, rest;
    bool done = true;

    pthread_rwlock_wrlock(&lock);
    r = find_locked(at);
    if (r && r->start != at) {
        rest = *r;
        rest.start = at;
        rest.bytes = rest.mapped = r->start + r->bytes - at;
        r->bytes = r->mapped = at - r->start;
        done = insert_locked(&rest) == CUDA_SUCCESS;
        if (!done)
            r->bytes = r->mapped = rest.start + rest.bytes - r->start;
    }
    pthread_rwlock_unlock(&lock);
    return done;
}

CUresult sim_space_add(const struct sim_range *range)
{
    CUresult r;

    pthread_rwlock_wrlock(&lock);
    r = insert_locked(range);
    pthread_rwlock_unlock(&lock);
    return r;
}

bool sim_space_del(uint64_t start, enum sim_memory kind)
{
    bool found;
    size_t i;

    pthread_rwlock_wrlock(&lock);
    i = above(start);
    found = i && ranges[i - 1]->start == start && ranges[i - 1]->kind == kind;
    if (found)
        remove_locked(i - 1);
    pthread_rwlock_unlock(&lock);
    return found;
}

bool sim_space_update(uint64_t start, void (*change)(struct sim_range *r, void *arg), void *arg)
{
    struct sim_range *r;

    pthread_rwlock_wrlock(&lock);
    r = find_locked(start);
    if (r)
        change(r, arg);
    pthread_rwlock_unlock(&lock);
    return r != NULL;
}

bool sim_space_replace(uint64_t start, const struct sim_range *range)
{
    struct sim_range *r;
    uint64_t id;

    pthread_rwlock_wrlock(&lock);
    r = find_locked(start);
    if (r) {
        id = r->id;
        *r = *range;
        r->id = id;
    }
    pthread_rwlock_unlock(&lock);
    return r != NULL;
}

void sim_space_drop(struct CUctx_st *ctx)
{
    pthread_rwlock_wrlock(&lock);
    for (size_t i = nr_ranges; i-- > 0;)
        if (ranges[i]->ctx == ctx)
            remove_locked(i);
    pthread_rwlock_unlock(&lock);
}

/* Arrays are no memory that a kernel can address, and a graph's is none before it is allocated. */
static uint64_t ptx_extent(void *arg, uint64_t address)
{
    struct sim_range r;

    (void)arg;
    if (sim_space_find(address, &r) && (r.kind == SIM_MEM_ARRAY || r.asleep))
        return 0;
    return sim_space_extent(address);
}

static void *ptx_alloc(void *arg, size_t bytes, int managed)
{
    enum sim_memory kind = managed ? SIM_MEM_MANAGED : SIM_MEM_GLOBAL;
    struct CUctx_st *ctx = arg;
    uint64_t at;

    if (sim_space_alloc(ctx, ctx->device, bytes ? bytes : 1, kind, 0, &at))
        return NULL;
    memset((void *)(uintptr_t)at, 0, bytes); /* a recycled unit holds old bytes */
    return (void *)(uintptr_t)at;
}

static void ptx_free(void *arg, void *p)
{
    (void)arg;
    sim_space_free((uint64_t)(uintptr_t)p);
}

static void ptx_print(void *arg, int fd, const char *text, size_t bytes)
{
    sim_output_put(arg, fd, text, bytes);
}

static const char *kind_name(enum sim_memory kind)
{
    switch (kind) {
    case SIM_MEM_GLOBAL: return "variable of a module";
    case SIM_MEM_MANAGED: return "managed allocation";
    case SIM_MEM_HOST: case SIM_MEM_REGISTERED: case SIM_MEM_MAPPED: return "host allocation";
    case SIM_MEM_RESERVED: return "reservation";
    case SIM_MEM_ARRAY: return "array";
    default: return "allocation";
    }
}

/* An access to memory that is none: where the nearest is. */
static void ptx_describe(void *arg, uint64_t address, char *text, size_t room_bytes)
{
    struct sim_range below = { 0 }, next = { 0 };

    (void)arg;
    pthread_rwlock_rdlock(&lock);
    size_t i = above(address);
    if (i)
        below = *ranges[i - 1];
    if (i < nr_ranges)
        next = *ranges[i];
    pthread_rwlock_unlock(&lock);
    uint64_t behind = i ? address - (below.start + below.bytes) : UINT64_MAX;
    uint64_t before = next.bytes ? next.start - address : UINT64_MAX;
    if (!below.bytes && !next.bytes)
        snprintf(text, room_bytes, "there is no allocation");
    else if (below.bytes && address - below.start < below.bytes)
        snprintf(text, room_bytes, "it is at byte %llu of the %s of %llu bytes at 0x%llx", (unsigned long long)(address - below.start),
                 kind_name(below.kind), (unsigned long long)below.bytes, (unsigned long long)below.start);
    else if (behind <= before)
        snprintf(text, room_bytes, "%llu bytes behind the end of the %s of %llu bytes at 0x%llx", (unsigned long long)behind,
                 kind_name(below.kind), (unsigned long long)below.bytes, (unsigned long long)below.start);
    else
        snprintf(text, room_bytes, "%llu bytes before the %s of %llu bytes at 0x%llx", (unsigned long long)before, kind_name(next.kind),
                 (unsigned long long)next.bytes, (unsigned long long)next.start);
}

static void ptx_say(const char *text)
{
    sim_say("%s", text);
}

static uint64_t ptx_heap_bytes(void *arg)
{
    return ((struct CUctx_st *)arg)->limits[CU_LIMIT_MALLOC_HEAP_SIZE];
}

const struct ptx_memory sim_ptx_memory = { .heap_bytes = ptx_heap_bytes, .say = ptx_say, .describe = ptx_describe,
                                           .extent = ptx_extent, .alloc = ptx_alloc, .free = ptx_free,
                                           .print = ptx_print, .texture = sim_texture_view };
