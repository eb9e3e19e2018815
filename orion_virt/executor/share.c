/* SPDX-License-Identifier: Apache-2.0 */
/* Objects that processes of a domain share: the daemon hands handles and descriptors from worker to worker. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loop.h"
#include "share.h"

/* Held over the daemon's answers: no token comes or goes meanwhile. The watcher, who reads them, never takes it. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the list and of refs, pays */
static struct oh_share *shares;

static bool by_descriptor(uint32_t kind)
{
    return kind == OC_SHARE_ALLOCATION || kind == OC_SHARE_POOL;
}

static struct oh_share *find_locked(const uint8_t *token)
{
    struct oh_share *s = shares;

    while (s && memcmp(s->token, token, OC_TOKEN_BYTES) != 0)
        s = s->next;
    return s;
}

/* The memory has no other payer than this client. */
static void own_locked(struct oh_share *s)
{
    if (s->pays)
        return;
    s->pays = true;
    oh_book_anyway(s->device, s->bytes);
}

/* From the daemon: whoever booked this memory has let it go, and we still use it. */
static void own(const struct oh_control *m)
{
    struct oh_share *s;

    pthread_mutex_lock(&lock);
    s = find_locked((const uint8_t *)m->text);
    if (s) /* else our own word that we let it go is on its way */
        own_locked(s);
    pthread_mutex_unlock(&lock);
}

static void put(struct oh_share *s, bool owner)
{
    oh_share_put(s, owner);
}

static CUresult keep(const struct oh_share *as, struct oh_share **made)
{
    struct oh_share *s = malloc(sizeof(*s));

    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *s = *as;
    s->refs = 1;
    s->pays = false;
    pthread_mutex_lock(&lock);
    s->next = shares;
    shares = s;
    pthread_mutex_unlock(&lock);
    *made = s;
    return CUDA_SUCCESS;
}

static CUresult no_daemon(int err)
{
    if (err == -ENOENT)
        return CUDA_ERROR_NOT_FOUND;
    return err == -EOPNOTSUPP ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_OUT_OF_MEMORY;
}

static void leave(const uint8_t *token)
{
    struct oh_control m = { .kind = OH_UNSHARE };

    memcpy(m.text, token, OC_TOKEN_BYTES);
    (void)oh_control_call(&m);
}

CUresult oh_share_new(const struct oh_share *as, int fd, struct oh_share **made)
{
    struct oh_control m = { .kind = OH_SHARE, .a = as->kind, .b = as->bytes };
    struct oh_share s = *as;
    CUresult r;
    int err, got;

    if (oh_config.region_fd < 0)
        return CUDA_ERROR_NOT_SUPPORTED; /* over TCP nothing proves which processes belong together */
    atomic_store(&oh_share_gone, put);
    atomic_store(&oh_control_own, own);
    memcpy(m.text, as->handle, OC_TOKEN_BYTES);
    pthread_mutex_lock(&turn);
    err = oh_control_call_fd(&m, fd, &got);
    if (got >= 0)
        close(got);
    memcpy(s.token, m.text, OC_TOKEN_BYTES);
    s.ours = true;
    r = err ? no_daemon(err) : keep(&s, made);
    if (!err && r != CUDA_SUCCESS)
        leave(s.token);
    pthread_mutex_unlock(&turn);
    return r;
}

/* One that this client has already needs no question, unless a descriptor is wanted. */
static struct oh_share *known(uint32_t kind, const uint8_t *token)
{
    struct oh_share *s;

    pthread_mutex_lock(&lock);
    s = find_locked(token);
    if (s && s->kind == kind)
        s->refs++;
    else
        s = NULL;
    pthread_mutex_unlock(&lock);
    return s;
}

static CUresult ask(uint32_t kind, const uint8_t *token, int device, int *fd, struct oh_share **found)
{
    struct oh_control m = { .kind = OH_OPEN, .a = kind };
    struct oh_share s = { .kind = kind, .device = device };
    CUresult r;
    int err;

    memcpy(m.text, token, OC_TOKEN_BYTES);
    memcpy(s.token, token, OC_TOKEN_BYTES);
    err = oh_control_call_fd(&m, -1, fd);
    if (err)
        return no_daemon(err);
    s.bytes = m.b;
    memcpy(s.handle, m.text, OC_TOKEN_BYTES);
    if (*found)
        return CUDA_SUCCESS;
    r = keep(&s, found);
    if (r != CUDA_SUCCESS)
        leave(token);
    return r;
}

CUresult oh_share_find(uint32_t kind, const uint8_t *token, int device, int *fd, struct oh_share **found)
{
    CUresult r = CUDA_SUCCESS;

    *fd = -1;
    *found = NULL;
    if (oh_config.region_fd < 0)
        return CUDA_ERROR_NOT_SUPPORTED;
    atomic_store(&oh_share_gone, put);
    atomic_store(&oh_control_own, own);
    pthread_mutex_lock(&turn);
    *found = known(kind, token);
    if (!*found || by_descriptor(kind))
        r = ask(kind, token, device, fd, found);
    pthread_mutex_unlock(&turn);
    if (r == CUDA_SUCCESS && by_descriptor(kind) && *fd < 0)
        r = CUDA_ERROR_NOT_FOUND;
    if (r != CUDA_SUCCESS) {
        if (*fd >= 0)
            close(*fd);
        if (*found)
            oh_share_put(*found, false);
        *found = NULL;
    }
    return r;
}

bool oh_share_look(const struct oh_share *s, struct oh_share *copy)
{
    const struct oh_share *at;

    pthread_mutex_lock(&lock);
    for (at = shares; at && at != s; at = at->next)
        ;
    if (at)
        *copy = *at;
    pthread_mutex_unlock(&lock);
    return at != NULL;
}

void oh_share_put(struct oh_share *s, bool owner)
{
    struct oh_share **at;
    bool last;

    pthread_mutex_lock(&turn);
    pthread_mutex_lock(&lock);
    last = --s->refs == 0;
    if (!last && owner && s->bytes) /* it lives on in what this client opened itself */
        own_locked(s);
    if (last) {
        for (at = &shares; *at != s; at = &(*at)->next)
            ;
        *at = s->next;
        if (s->pays)
            oh_unbook(s->device, s->bytes);
    }
    pthread_mutex_unlock(&lock);
    if (last) {
        leave(s->token);
        free(s);
    }
    pthread_mutex_unlock(&turn);
}
