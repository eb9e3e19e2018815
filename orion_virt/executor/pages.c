/* SPDX-License-Identifier: Apache-2.0 */
/* Region memory that several processes of a domain have, in place of pages that they share by a file of theirs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <orion/share.h>

#include "gen/ops.h"
#include "loop.h"

struct pages {
    uint64_t off, bytes;
    uint64_t key[3], asked; /* device, inode and offset of the guest's file, and how much of it */
    bool filled;
    unsigned refs; /* times that the client took them */
    struct pages *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* held over the daemon's answers */
static pthread_mutex_t list = PTHREAD_MUTEX_INITIALIZER; /* of `all` and what is told of it; never held over an answer */
static struct pages *all; /* changed under both */

static struct pages **find_locked(uint64_t off)
{
    struct pages **at = &all;

    while (*at && (*at)->off != off)
        at = &(*at)->next;
    return at;
}

static int tell(uint32_t kind, uint64_t off)
{
    struct oh_control m = { .kind = kind, .a = off };

    return oh_control_call(&m);
}

static bool tell_all(void)
{
    bool ok = true;

    pthread_mutex_lock(&list);
    for (const struct pages *p = all; ok && p; p = p->next) {
        struct oh_control m = { .kind = OH_HAVE_PAGES, .status = !p->filled, .a = p->off, .b = p->bytes };

        memcpy(m.text, p->key, sizeof(p->key));
        memcpy(m.text + sizeof(p->key), &p->asked, sizeof(p->asked));
        ok = oh_control_have(&m, -1);
    }
    pthread_mutex_unlock(&list);
    return ok;
}

static int enter_locked(struct pages *p)
{
    int err = 0;

    atomic_store(&oh_pages_tell, tell_all);
    pthread_mutex_lock(&list);
    if (oh_control_stale()) {
        err = -ESTALE;
    } else {
        p->next = all;
        all = p;
    }
    pthread_mutex_unlock(&list);
    return err;
}

/* Takes the part that the daemon granted; `m` is its answer. -ESTALE: it has ended, and nothing is taken. */
static int hold_locked(const struct oh_control *m, const struct ow_orion_pages_take_in *in)
{
    struct pages *p = *find_locked(m->a);
    int err;

    if (p) {
        p->refs++;
        return 0;
    }
    p = malloc(sizeof(*p));
    err = !p ? -ENOMEM : m->b >= in->bytes + OC_PIECE_TAIL ? oh_extents_hold(m->a, m->b) : -EINVAL;
    if (!err) {
        *p = (struct pages){ m->a, m->b, { in->device, in->inode, in->offset }, in->bytes, m->status == 0, 1, NULL };
        err = enter_locked(p);
        if (err)
            oh_extents_let_go(m->a, m->b);
    }
    if (err) {
        free(p);
        if (err != -ESTALE)
            tell(OH_PAGES_END, m->a);
    }
    return err;
}

static CUresult failed(int err)
{
    if (err == -EAGAIN)
        return CUDA_ERROR_NOT_READY;
    return err == -EEXIST ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult oh_orion_pages_take(struct oh_twin *t, const struct ow_orion_pages_take_in *in, uint32_t bytes,
                             struct ow_orion_pages_take_out *out, uint32_t *out_bytes)
{
    const uint64_t key[3] = { in->device, in->inode, in->offset };
    struct oh_control m;
    int err;

    (void)t, (void)bytes;
    if (oh_config.region_fd < 0)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!in->bytes || in->bytes > oh_config.region_bytes || (in->bytes | in->offset) & 4095)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    do {
        m = (struct oh_control){ .kind = OH_PAGES, .a = in->bytes };
        memcpy(m.text, key, sizeof(key));
        err = oh_control_call(&m);
        out->fill = err == 1;
        if (err == 0 || err == 1)
            err = hold_locked(&m, in);
    } while (err == -ESTALE);
    pthread_mutex_unlock(&lock);
    out->off = m.a;
    *out_bytes = sizeof(*out);
    return err ? failed(err) : CUDA_SUCCESS;
}

CUresult oh_orion_pages_filled(struct oh_twin *t, const struct ow_orion_pages_filled_in *in, uint32_t bytes,
                               struct ow_orion_pages_filled_out *out, uint32_t *out_bytes)
{
    CUresult r = CUDA_ERROR_INVALID_VALUE;
    struct pages *p;

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    pthread_mutex_lock(&lock);
    p = *find_locked(in->off);
    if (p) {
        pthread_mutex_lock(&list);
        p->filled = true;
        pthread_mutex_unlock(&list);
        r = tell(OH_PAGES_FILLED, in->off) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return r;
}

CUresult oh_orion_pages_end(struct oh_twin *t, const struct ow_orion_pages_end_in *in, uint32_t bytes,
                            struct ow_orion_pages_end_out *out, uint32_t *out_bytes)
{
    struct pages **at, *p;

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    pthread_mutex_lock(&lock);
    at = find_locked(in->off);
    p = *at;
    if (p && --p->refs == 0) {
        oh_extents_let_go(p->off, p->bytes); /* before another daemon could be told that we have it no more */
        pthread_mutex_lock(&list);
        *at = p->next;
        pthread_mutex_unlock(&list);
        tell(OH_PAGES_END, p->off);
        free(p);
    }
    pthread_mutex_unlock(&lock);
    return p ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
