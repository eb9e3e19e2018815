/* SPDX-License-Identifier: Apache-2.0 */
/* The application's own pages in the region: moved there to be registered, and back. */
#define _GNU_SOURCE
#include "moved.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core.h"
#include "maps.h"

#define CHUNK (2ull << 20) /* moved at once: what other threads write into it meanwhile is lost */

/* Pages [start, start + bytes) of the application show region memory at region_addr. */
struct moved {
    uint64_t start, bytes, region_addr;
    void *file; /* of shared pages: another mapping of them, for the way back; NULL: private ones */
    struct moved *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* never held across a command */
static struct moved *all;

static void *at(uint64_t addr)
{
    return (void *)(uintptr_t)addr;
}

/* ---- may these pages move? ---- */

struct question {
    uint64_t next, end;
    bool read_only;
};

static bool may_move(const struct og_map *m, void *arg)
{
    struct question *q = arg;

    if (m->start > q->next || !m->is_private || !m->read || m->execute || m->is_stack || m->is_special)
        return false;
    if (!m->write && !q->read_only)
        return false;
    q->next = m->end;
    return true;
}

/* A thread's stack cannot move while the thread runs on it. */
static bool on_own_stack(uint64_t start, uint64_t end)
{
    pthread_attr_t attr;
    void *stack = NULL;
    size_t bytes = 0;

    if (pthread_getattr_np(pthread_self(), &attr) != 0)
        return true;
    pthread_attr_getstack(&attr, &stack, &bytes);
    pthread_attr_destroy(&attr);
    return start < (uint64_t)(uintptr_t)stack + bytes && end > (uint64_t)(uintptr_t)stack;
}

bool og_moved_possible(uint64_t start, uint64_t bytes, bool read_only)
{
    struct question q = { start, start + bytes, read_only };

    return og_shared_region.fd >= 0 && !on_own_stack(start, q.end) && og_maps_each(start, q.end, may_move, &q) &&
           q.next >= q.end;
}

struct shared_question {
    uint64_t start, end;
    struct og_piece *piece;
    bool yes;
};

static bool is_shareable(const struct og_map *m, void *arg)
{
    struct shared_question *q = arg;

    q->yes = m->start <= q->start && m->end >= q->end && !m->is_private && m->is_memory && m->read && m->write &&
             (m->device != og_shared_region.device || m->inode != og_shared_region.inode);
    *q->piece = (struct og_piece){ m->device, m->inode, m->offset + (q->start - m->start) };
    return false;
}

bool og_moved_shareable(uint64_t start, uint64_t bytes, struct og_piece *piece)
{
    struct shared_question q = { start, start + bytes, piece, false };

    og_maps_each(start, q.end, is_shareable, &q);
    return q.yes && og_shared_region.fd >= 0;
}

/* ---- back ---- */

/* Private pages with the same bytes in place of [start, end); the swap itself is atomic. */
static bool make_private(uint64_t start, uint64_t end, const struct og_map *m)
{
    int prot = (m->read ? PROT_READ : 0) | (m->write ? PROT_WRITE : 0) | (m->execute ? PROT_EXEC : 0);

    for (uint64_t n; start < end; start += n) {
        void *page;

        n = end - start < CHUNK ? end - start : CHUNK;
        page = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED || (!m->read && mprotect(at(start), n, PROT_READ) != 0))
            return false;
        memcpy(page, at(start), n);
        if ((prot != (PROT_READ | PROT_WRITE) && mprotect(page, n, prot) != 0) ||
            mremap(page, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, at(start)) == MAP_FAILED) {
            munmap(page, n);
            return false;
        }
    }
    return true;
}

struct undo {
    const struct moved *v;
    uint64_t start[64], end[64];
    struct og_map map[64];
    unsigned nr;
};

/* What of the pages still shows its region memory: the application may have mapped something else over it. */
static bool note_ours(const struct og_map *m, void *arg)
{
    struct undo *u = arg;
    uint64_t start = m->start > u->v->start ? m->start : u->v->start, end = u->v->start + u->v->bytes;
    uint64_t off = u->v->region_addr - (uint64_t)(uintptr_t)og_shared_region.base + (start - u->v->start);

    if (m->device != og_shared_region.device || m->inode != og_shared_region.inode || m->is_private ||
        m->offset + (start - m->start) != off)
        return true;
    u->start[u->nr] = start;
    u->end[u->nr] = m->end < end ? m->end : end;
    u->map[u->nr] = *m;
    return ++u->nr < 64;
}

/* The file's pages with the present bytes, unless the application has mapped something else there. */
static bool undo_shared_locked(const struct moved *v)
{
    struct undo u = { .v = v };

    og_maps_each(v->start, v->start + v->bytes, note_ours, &u);
    memcpy(v->file, at(v->region_addr), v->bytes);
    if (u.nr == 1 && u.start[0] == v->start && u.end[0] == v->start + v->bytes)
        return mremap(v->file, v->bytes, v->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at(v->start)) != MAP_FAILED;
    munmap(v->file, v->bytes);
    return true;
}

/* In steps of 64 mappings, each of which is private afterwards. */
static bool undo_locked(const struct moved *v)
{
    struct undo u = { .v = v };
    bool all_seen;

    if (v->file)
        return undo_shared_locked(v);
    do {
        u.nr = 0;
        all_seen = og_maps_each(v->start, v->start + v->bytes, note_ours, &u);
        for (unsigned i = 0; i < u.nr; i++)
            if (!make_private(u.start[i], u.end[i], &u.map[i]))
                return false;
    } while (!all_seen && u.nr);
    return true;
}

static struct moved **find_locked(uint64_t start)
{
    struct moved **p = &all;

    while (*p && (*p)->start != start)
        p = &(*p)->next;
    return p;
}

bool og_moved_back(uint64_t start)
{
    struct moved **p, *v;
    bool done = true;

    pthread_mutex_lock(&lock);
    p = find_locked(start);
    v = *p;
    if (v) {
        done = undo_locked(v);
        if (done) {
            *p = v->next;
            free(v);
        }
    }
    pthread_mutex_unlock(&lock);
    return done;
}

/* The process ends, has lost its vGPU, or is a child: nothing is freed any more. */
static bool all_back_locked(void)
{
    bool done = true;

    for (; all; all = all->next)
        done = undo_locked(all) && done;
    return done;
}

void og_moved_all_back(void)
{
    bool done;

    pthread_mutex_lock(&lock);
    done = all_back_locked();
    pthread_mutex_unlock(&lock);
    if (!done)
        og_log("some registered memory stays in the region: there was no memory for pages of its own");
}

/* ---- there ---- */

/* A chunk at a time: its bytes, then its pages. */
static bool show_region(const struct moved *v, int prot)
{
    uint64_t off = v->region_addr - (uint64_t)(uintptr_t)og_shared_region.base;

    for (uint64_t done = 0, n; done < v->bytes; done += n) {
        n = v->bytes - done < CHUNK ? v->bytes - done : CHUNK;
        memcpy(at(v->region_addr + done), at(v->start + done), n);
        if (mmap(at(v->start + done), n, prot, MAP_SHARED | MAP_FIXED, og_shared_region.fd, (off_t)(off + done)) ==
            MAP_FAILED)
            return false;
    }
    return true;
}

bool og_moved_there(uint64_t start, uint64_t bytes, uint64_t region_addr, bool read_only)
{
    struct moved *v = malloc(sizeof(*v));
    bool done;

    if (!v)
        return false;
    pthread_mutex_lock(&lock);
    *v = (struct moved){ start, bytes, region_addr, NULL, all };
    done = show_region(v, read_only ? PROT_READ : PROT_READ | PROT_WRITE);
    all = v;
    pthread_mutex_unlock(&lock);
    return done;
}

bool og_moved_shared(uint64_t start, uint64_t bytes, uint64_t region_addr, bool fill)
{
    struct moved *v = malloc(sizeof(*v));
    off_t off = (off_t)(region_addr - (uint64_t)(uintptr_t)og_shared_region.base);
    bool done = false;

    if (!v)
        return false;
    pthread_mutex_lock(&lock);
    *v = (struct moved){ start, bytes, region_addr, NULL, all };
    v->file = mremap(at(start), 0, bytes, MREMAP_MAYMOVE); /* of length 0: a second mapping of shared pages */
    if (v->file != MAP_FAILED) {
        (fill ? og_piece_fill : og_piece_merge)(at(region_addr), v->file, bytes);
        done = mmap(at(start), bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, og_shared_region.fd, off) !=
               MAP_FAILED;
    }
    if (done) {
        all = v;
    } else {
        if (v->file != MAP_FAILED)
            munmap(v->file, bytes);
        free(v);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

/* ---- fork: the child gets pages of its own, as of any private memory ---- */

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void in_parent(void)
{
    pthread_mutex_unlock(&lock);
}

static void in_child(void)
{
    all_back_locked();
    pthread_mutex_init(&lock, NULL);
}

__attribute__((constructor)) static void at_load(void)
{
    pthread_atfork(before_fork, in_parent, in_child);
}
