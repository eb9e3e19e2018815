/* SPDX-License-Identifier: Apache-2.0 */
/* Staging memory: pieces of the region through which bulk bytes of ordinary memory pass, and fences. */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "memory.h"
#include "gen/send.h"

#define PIECE_BYTES (512ull << 10) /* DMA of one takes about 10 us, the memcpy of one 50 us */
#define MAX_PIECES 24              /* the block's own and 8 MiB of extents */
#define SPIN_NS 50000ull

enum piece_state { PIECE_FREE, PIECE_HELD, PIECE_FENCED };
struct piece {
    uint64_t off, bytes, fence;
    enum piece_state state;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t freed = PTHREAD_COND_INITIALIZER;
static struct piece pieces[MAX_PIECES];
static int nr_pieces;
static bool refused; /* the region gave no more: stay with what we have */

/* Held from taking a fence number to sending its command, so that numbers arrive in order. */
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static uint64_t last_fence;

static void add_pieces_locked(uint64_t off, uint64_t bytes)
{
    while (bytes >= OC_LINE && nr_pieces < MAX_PIECES) {
        uint64_t part = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;

        pieces[nr_pieces++] = (struct piece){ .off = off, .bytes = part };
        off += part;
        bytes -= part;
    }
}

static void init_locked(void)
{
    struct oc_channel *channel = og_channel();

    if (nr_pieces == 0)
        add_pieces_locked(og_block_off() + channel->staging_off, channel->staging_bytes);
}

bool og_fence_done(uint64_t fence)
{
    /* pairs with the executor's publication of fences */
    return atomic_load_explicit(&og_channel()->fence_done, memory_order_acquire) >= fence;
}

static struct piece *find_locked(void)
{
    for (int i = 0; i < nr_pieces; i++) {
        struct piece *p = &pieces[i];

        if (p->state == PIECE_FREE || (p->state == PIECE_FENCED && og_fence_done(p->fence)))
            return p;
    }
    return NULL;
}

static void take_locked(struct piece *p, uint64_t *bytes, uint64_t *region_off, void **address)
{
    p->state = PIECE_HELD;
    if (*bytes > p->bytes)
        *bytes = p->bytes;
    *region_off = p->off;
    *address = (uint8_t *)og_region() + p->off;
}

bool og_staging_try(uint64_t *bytes, uint64_t *region_off, void **p)
{
    struct piece *piece;

    pthread_mutex_lock(&lock);
    init_locked();
    piece = find_locked();
    if (piece)
        take_locked(piece, bytes, region_off, p);
    pthread_mutex_unlock(&lock);
    return piece != NULL;
}

/* Doubles the staging memory step by step while copies are large: 2 MiB at a time. */
void og_staging_grow(uint64_t bytes_wanted)
{
    uint64_t have = 0, off;
    CUresult r;
    bool stop;

    if (!og_shared_memory())
        return;
    pthread_mutex_lock(&lock);
    init_locked();
    for (int i = 0; i < nr_pieces; i++)
        have += pieces[i].bytes;
    stop = refused || have >= bytes_wanted || nr_pieces + 4 > MAX_PIECES;
    pthread_mutex_unlock(&lock);
    if (stop)
        return;
    r = og_grant(OC_EXTENT_BYTES, &off);
    if (r != CUDA_SUCCESS) {
        refused = r == CUDA_ERROR_OUT_OF_MEMORY;
        return;
    }
    pthread_mutex_lock(&lock);
    add_pieces_locked(off, OC_EXTENT_BYTES);
    pthread_cond_broadcast(&freed);
    pthread_mutex_unlock(&lock);
}

/* Oldest fence that holds a piece, 0: all pieces are in other threads' hands. */
static uint64_t oldest_locked(void)
{
    uint64_t oldest = 0;

    for (int i = 0; i < nr_pieces; i++)
        if (pieces[i].state == PIECE_FENCED && (oldest == 0 || pieces[i].fence < oldest))
            oldest = pieces[i].fence;
    return oldest;
}

static void wait_for_holder_locked(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 10 * 1000 * 1000; /* a holder's fence may be done before it says so */
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&freed, &lock, &until);
}

static void free_fence_locked(uint64_t fence)
{
    for (int i = 0; i < nr_pieces; i++)
        if (pieces[i].state == PIECE_FENCED && pieces[i].fence == fence)
            pieces[i].state = PIECE_FREE;
}

CUresult og_staging_get(uint64_t *bytes, uint64_t *region_off, void **p)
{
    CUresult r = og_connect();
    struct piece *piece;

    if (r != CUDA_SUCCESS)
        return r;
    pthread_mutex_lock(&lock);
    init_locked();
    while ((piece = find_locked()) == NULL && r == CUDA_SUCCESS) {
        uint64_t fence = oldest_locked();

        if (fence == 0) {
            wait_for_holder_locked();
            r = og_connect(); /* a lost channel ends the wait */
            continue;
        }
        pthread_mutex_unlock(&lock);
        r = og_fence_wait(fence);
        pthread_mutex_lock(&lock);
        if (r == CUDA_SUCCESS)
            free_fence_locked(fence);
    }
    if (piece)
        take_locked(piece, bytes, region_off, p);
    pthread_mutex_unlock(&lock);
    return piece ? CUDA_SUCCESS : r;
}

void og_staging_fence(uint64_t region_off, uint64_t fence)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < nr_pieces; i++) {
        if (pieces[i].off != region_off)
            continue;
        pieces[i].state = fence ? PIECE_FENCED : PIECE_FREE;
        pieces[i].fence = fence;
    }
    pthread_cond_broadcast(&freed);
    pthread_mutex_unlock(&lock);
}

uint64_t og_fence_begin(void)
{
    pthread_mutex_lock(&order);
    return ++last_fence;
}

void og_fence_end(void)
{
    pthread_mutex_unlock(&order);
}

uint64_t og_fence_next(void)
{
    uint64_t fence = og_fence_begin();

    og_fence_end();
    return fence;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* Spins a little, as most fences are a DMA of microseconds; then asks the host, which waits for this
 * fence alone. Over TCP the host sends the piece's bytes before it answers, so it is always asked. */
CUresult og_fence_wait(uint64_t fence)
{
    uint64_t end;

    if (og_shared_memory() && !og_fence_done(fence)) {
        for (end = now_ns() + SPIN_NS; now_ns() < end;) {
            if (og_fence_done(fence))
                return CUDA_SUCCESS;
            __builtin_ia32_pause();
        }
    } else if (og_shared_memory()) {
        return CUDA_SUCCESS;
    }
    return og_send_orion_fence_wait(fence);
}
