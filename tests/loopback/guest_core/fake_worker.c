/* SPDX-License-Identifier: Apache-2.0 */
/* The fake worker: reads the ring, answers, parks; over TCP mirrors the block by frames. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake.h"

struct frame {
    uint32_t type, bytes;
    uint64_t offset;
};

struct worker {
    int fd;
    bool shm, ended;
    uint64_t off, fence;
    struct oc_channel *c;
    struct oc_consumer ring;
    struct fake_totals totals;
    uint32_t next[64]; /* number expected from each thread */
    uint8_t payload[OC_CMD_MAX_LINES * OC_LINE];
};

static void send_frame(struct worker *w, uint64_t at, uint32_t bytes)
{
    struct frame f = { 1, bytes, w->off + at };

    w->ended |= !og_send_all(w->fd, &f, sizeof(f)) || !og_send_all(w->fd, (uint8_t *)w->c + at, bytes);
}

static void send_words(struct worker *w)
{
    if (!w->shm)
        send_frame(w, offsetof(struct oc_channel, head),
                   offsetof(struct oc_channel, callback_parked) - offsetof(struct oc_channel, head));
}

static void send_wake(struct worker *w)
{
    struct frame f = { 2, 0, 0 };

    if (w->shm)
        og_send_all(w->fd, "\1", 1);
    else
        og_send_all(w->fd, &f, sizeof(f));
}

static void reply(struct worker *w, const struct oc_cmd *h, const void *out, uint32_t bytes)
{
    uint64_t at = w->c->slots_off + (uint64_t)h->thread * OC_SLOT_BYTES;
    struct oc_slot *s = (void *)((uint8_t *)w->c + at);

    if (!(h->flags & OC_CMD_REPLY))
        return;
    s->result = 0;
    s->bytes = bytes;
    memcpy(s->out, out, bytes);
    atomic_store_explicit(&s->done, h->seq, memory_order_release);
    send_words(w);
    if (!w->shm) {
        send_frame(w, at, (uint32_t)offsetof(struct oc_slot, out) + bytes);
        return;
    }
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&s->parked)) {
        w->totals.wakes++;
        send_wake(w);
    }
}

static void *fence_later(void *arg)
{
    struct worker *w = arg;

    usleep(50000);
    atomic_store_explicit(&w->c->fence_done, w->fence, memory_order_release);
    send_words(w);
    send_wake(w);
    return NULL;
}

static void end(struct worker *w, uint64_t how)
{
    if (how == FAKE_BAD_BYTE)
        og_send_all(w->fd, "?", 1);
    if (how == FAKE_CLOSE_PROTOCOL)
        atomic_store(&w->c->closed, OC_CLOSED_PROTOCOL);
    send_words(w);
    w->ended = true;
}

static void count(struct worker *w)
{
    struct fake_item item;

    memcpy(&item, w->payload, sizeof(item));
    w->totals.counted++;
    for (uint64_t until = og_now_ns() + 1000; item.thread == FAKE_SLOW_THREAD && og_now_ns() < until;)
        ; /* about the time of a driver's launch */
    if (item.number != w->next[item.thread % 64]++)
        w->totals.disordered++;
}

static void execute(struct worker *w, const struct oc_cmd *h)
{
    uint64_t value;
    pthread_t t;

    memcpy(&value, w->payload, sizeof(value));
    if (h->op == FAKE_COUNT)
        count(w);
    else if (h->op == FAKE_SLEEP)
        usleep((useconds_t)value * 1000);
    else if (h->op == FAKE_END)
        end(w, value);
    else if (h->op == FAKE_STICKY)
        atomic_store(&w->c->device_error[0], (uint32_t)value);
    else if (h->op == OW_OP_orion_thread_exit)
        w->totals.exits++;
    if (h->op == FAKE_FENCE) {
        w->fence = value;
        if (!pthread_create(&t, NULL, fence_later, w))
            pthread_detach(t);
    }
    if (w->ended)
        return;
    if (h->op == FAKE_TOTALS)
        reply(w, h, &w->totals, sizeof(w->totals));
    else
        reply(w, h, w->payload, h->bytes <= OC_SLOT_OUT_BYTES ? h->bytes : 0);
}

static bool receive_frame(struct worker *w)
{
    uint8_t *to = (uint8_t *)w->c;
    struct frame f;

    if (recv(w->fd, &f, sizeof(f), MSG_WAITALL) != sizeof(f))
        return false;
    if (f.type == 2)
        return true;
    if (f.type != 1 || f.offset < w->off + offsetof(struct oc_channel, callback_parked) ||
        !og_inside(f.offset - w->off, f.bytes, OC_CHANNEL_BYTES))
        abort();
    return recv(w->fd, to + (f.offset - w->off), f.bytes, MSG_WAITALL) == (ssize_t)f.bytes;
}

/* Sleeps until the client sends something; false: it is gone. */
static bool park(struct worker *w)
{
    struct pollfd p = { w->fd, POLLIN, 0 };
    uint8_t bytes[64];
    ssize_t n;

    if (!w->shm)
        return receive_frame(w);
    atomic_store(&w->c->consumer_parked, 1);
    usleep(OC_PARK_GRACE_NS / 1000);
    if (!oc_ring_peek(&w->ring))
        poll(&p, 1, 1000);
    atomic_store(&w->c->consumer_parked, 0);
    n = recv(w->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    return n != 0;
}

void fake_execute(int fd, struct oc_channel *c, uint64_t off, bool shm)
{
    struct worker *w = calloc(1, sizeof(*w));

    w->fd = fd;
    w->shm = shm;
    w->off = off;
    w->c = c;
    w->ring = (struct oc_consumer){ .channel = c, .lines = (uint8_t *)c + c->ring_off };
    while (!w->ended) {
        const struct oc_cmd *cmd = oc_ring_peek(&w->ring);
        struct oc_cmd h;

        if (!cmd) {
            if (!park(w))
                break;
            continue;
        }
        if (!oc_ring_header(&w->ring, cmd, &h))
            abort();
        oc_ring_take(&w->ring, cmd, &h, w->payload);
        oc_ring_release(&w->ring);
        send_words(w);
        if (h.op != OC_OP_PAD)
            execute(w, &h);
    }
    shutdown(fd, SHUT_RDWR);
    usleep(100000); /* fence_later may still use w */
    free(w);
}
