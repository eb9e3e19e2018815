/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels print: kept in their context's buffer until a call that shows it; a full buffer loses its oldest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct sim_text {
    struct sim_text *next;
    size_t bytes;
    int fd;
    char text[];
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t shown = PTHREAD_MUTEX_INITIALIZER; /* one context's text at a time, in its order */

static void drop_first_locked(struct sim_texts *t)
{
    struct sim_text *old = t->first;

    t->first = old->next;
    t->bytes -= old->bytes;
    free(old);
}

void sim_output_put(struct CUctx_st *ctx, int fd, const char *text, size_t bytes)
{
    struct sim_texts *t = &ctx->texts;
    struct sim_text *new = malloc(sizeof(*new) + bytes);

    if (!new)
        return;
    new->next = NULL;
    new->bytes = bytes;
    new->fd = fd;
    memcpy(new->text, text, bytes);
    pthread_mutex_lock(&lock);
    if (t->first)
        t->last->next = new;
    else
        t->first = new;
    t->last = new;
    t->bytes += bytes;
    while (t->first && t->bytes > ctx->limits[1])
        drop_first_locked(t);
    pthread_mutex_unlock(&lock);
}

void sim_output_show(struct CUctx_st *ctx)
{
    struct sim_text *all;

    if (!__atomic_load_n(&ctx->texts.first, __ATOMIC_ACQUIRE))
        return;
    pthread_mutex_lock(&shown);
    pthread_mutex_lock(&lock);
    all = ctx->texts.first;
    ctx->texts.first = NULL;
    ctx->texts.bytes = 0;
    pthread_mutex_unlock(&lock);
    for (struct sim_text *next; all; all = next) {
        next = all->next;
        fwrite(all->text, 1, all->bytes, all->fd == 2 ? stderr : stdout);
        free(all);
    }
    fflush(stdout);
    pthread_mutex_unlock(&shown);
}
