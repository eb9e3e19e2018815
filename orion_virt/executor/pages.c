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
    unsigned refs; /* times that the client took them */
    struct pages *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* held over the daemon's answers */
static struct pages *all;

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

/* Takes the part that the daemon granted; `m` is its answer. */
static int hold_locked(const struct oh_control *m, uint64_t bytes)
{
    struct pages *p = *find_locked(m->a);
    int err;

    if (p) {
        p->refs++;
        return 0;
    }
    p = malloc(sizeof(*p));
    err = !p ? -ENOMEM : m->b >= bytes + OC_PIECE_TAIL ? oh_extents_hold(m->a, m->b) : -EINVAL;
    if (err) {
        free(p);
        tell(OH_PAGES_END, m->a);
        return err;
    }
    *p = (struct pages){ m->a, m->b, 1, all };
    all = p;
    return 0;
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
    struct oh_control m = { .kind = OH_PAGES, .a = in->bytes };
    int err;

    (void)t, (void)bytes;
    if (oh_config.region_fd < 0)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!in->bytes || in->bytes > oh_config.region_bytes || (in->bytes | in->offset) & 4095)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(m.text, key, sizeof(key));
    pthread_mutex_lock(&lock);
    err = oh_control_call(&m);
    out->fill = err == 1;
    if (err == 0 || err == 1)
        err = hold_locked(&m, in->bytes);
    pthread_mutex_unlock(&lock);
    out->off = m.a;
    *out_bytes = sizeof(*out);
    return err ? failed(err) : CUDA_SUCCESS;
}

CUresult oh_orion_pages_filled(struct oh_twin *t, const struct ow_orion_pages_filled_in *in, uint32_t bytes,
                               struct ow_orion_pages_filled_out *out, uint32_t *out_bytes)
{
    CUresult r = CUDA_ERROR_INVALID_VALUE;

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    pthread_mutex_lock(&lock);
    if (*find_locked(in->off))
        r = tell(OH_PAGES_FILLED, in->off) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
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
        *at = p->next;
        oh_extents_let_go(p->off, p->bytes);
        tell(OH_PAGES_END, p->off);
        free(p);
    }
    pthread_mutex_unlock(&lock);
    return p ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
