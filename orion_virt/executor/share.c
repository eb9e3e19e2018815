/* SPDX-License-Identifier: Apache-2.0 */
/* Objects that processes of a domain share: the daemon hands handles and descriptors from worker to worker. */
#include <errno.h>
#include <fcntl.h>
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

static bool tell_all(void)
{
    bool ok = true;

    pthread_mutex_lock(&lock);
    for (const struct oh_share *s = shares; ok && s; s = s->next) {
        struct oh_control m = { .kind = OH_HAVE_SHARE, .a = s->kind, .b = s->bytes };

        m.status = (s->ours ? OH_PART_MADE : 0) | (s->pays ? OH_PART_PAYS : 0);
        memcpy(m.text, s->token, OC_TOKEN_BYTES);
        memcpy(m.text + OC_TOKEN_BYTES, s->handle, OC_TOKEN_BYTES);
        ok = oh_control_have(&m, s->fd);
    }
    pthread_mutex_unlock(&lock);
    return ok;
}

/* 0, -ENOMEM, or -ESTALE: the daemon that answered has ended, and nothing is kept. */
static int keep(const struct oh_share *as, int fd, struct oh_share **made)
{
    struct oh_share *s = malloc(sizeof(*s));
    int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3), err = !s || (fd >= 0 && copy < 0) ? -ENOMEM : 0;

    pthread_mutex_lock(&lock);
    if (!err && oh_control_stale())
        err = -ESTALE;
    if (!err) {
        *s = *as;
        s->refs = 1;
        s->pays = false;
        s->fd = copy;
        s->next = shares;
        shares = s;
        *made = s;
    }
    pthread_mutex_unlock(&lock);
    if (err) {
        free(s);
        if (copy >= 0)
            close(copy);
    }
    return err;
}

static CUresult no_daemon(int err)
{
    if (!err)
        return CUDA_SUCCESS;
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
    struct oh_control m;
    struct oh_share s = *as;
    int err, got;

    if (oh_config.region_fd < 0)
        return CUDA_ERROR_NOT_SUPPORTED; /* over TCP nothing proves which processes belong together */
    atomic_store(&oh_share_gone, put);
    atomic_store(&oh_control_own, own);
    atomic_store(&oh_shares_tell, tell_all);
    s.ours = true;
    pthread_mutex_lock(&turn);
    do {
        m = (struct oh_control){ .kind = OH_SHARE, .a = as->kind, .b = as->bytes };
        memcpy(m.text, as->handle, OC_TOKEN_BYTES);
        err = oh_control_call_fd(&m, fd, &got);
        if (got >= 0)
            close(got);
        memcpy(s.token, m.text, OC_TOKEN_BYTES);
        if (!err && (err = keep(&s, fd, made)) == -ENOMEM)
            leave(s.token);
    } while (err == -ESTALE);
    pthread_mutex_unlock(&turn);
    return no_daemon(err);
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

/* One question; -ESTALE: to be put again. */
static int ask_once(uint32_t kind, const uint8_t *token, int device, int *fd, struct oh_share **found)
{
    struct oh_control m = { .kind = OH_OPEN, .a = kind };
    struct oh_share s = { .kind = kind, .device = device };
    int err;

    memcpy(m.text, token, OC_TOKEN_BYTES);
    memcpy(s.token, token, OC_TOKEN_BYTES);
    err = oh_control_call_fd(&m, -1, fd);
    if (err || *found)
        return err;
    s.bytes = m.b;
    memcpy(s.handle, m.text, OC_TOKEN_BYTES);
    err = keep(&s, *fd, found);
    if (err == -ENOMEM)
        leave(token);
    return err;
}

static CUresult ask(uint32_t kind, const uint8_t *token, int device, int *fd, struct oh_share **found)
{
    int err;

    while ((err = ask_once(kind, token, device, fd, found)) == -ESTALE)
        if (*fd >= 0)
            close(*fd);
    return no_daemon(err);
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
    atomic_store(&oh_shares_tell, tell_all);
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
        if (s->fd >= 0)
            close(s->fd);
        free(s);
    }
    pthread_mutex_unlock(&turn);
}
