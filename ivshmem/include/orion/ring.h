/* SPDX-License-Identifier: Apache-2.0 */
/* The submission ring: one producer (the guest process, under its lock), one consumer (the executor). */
#ifndef ORION_RING_H
#define ORION_RING_H

#include <stdbool.h>
#include <string.h>

#include "layout.h"

/* There is no shared tail. The first line of a command carries its own index + 1
 * as `seq`, stored last; the consumer waits for that value on the line at its
 * head, so a command crosses with one cache-line transfer. Payload bytes left on
 * a line by the lap before could look like a seq: the producer therefore zeroes
 * the seq of the line after a command before it publishes the command. */

struct oc_producer {
    struct oc_channel *channel;
    uint8_t *lines;
    uint64_t tail;      /* next line to write, free running */
    uint64_t head_seen; /* last value read from channel->head */
};

struct oc_consumer {
    struct oc_channel *channel;
    uint8_t *lines;
    uint64_t head;           /* next line to read, free running */
    uint64_t head_published; /* last value stored to channel->head */
};

/* A consumer that is about to sleep sets consumer_parked and goes on watching the
 * ring for this long. A producer's load of consumer_parked may pass its own store
 * of seq (no locked instruction on the hot path); a store drains within far less. */
#define OC_PARK_GRACE_NS 20000u

static inline struct oc_cmd *oc_line(uint8_t *lines, uint64_t index)
{
    return (struct oc_cmd *)(lines + (index & (OC_RING_LINES - 1)) * OC_LINE);
}

static inline uint32_t oc_cmd_lines(uint32_t payload_bytes)
{
    uint32_t first = sizeof(((struct oc_cmd *)0)->payload);

    return payload_bytes <= first ? 1 : 1 + (payload_bytes - first + OC_LINE - 1) / OC_LINE;
}

/* Lines that a command of `lines` occupies counting the pad before it, if any. */
static inline uint32_t oc_ring_need(const struct oc_producer *p, uint32_t lines)
{
    uint32_t at = (uint32_t)(p->tail & (OC_RING_LINES - 1));

    return at + lines > OC_RING_LINES ? OC_RING_LINES - at + lines : lines;
}

/* True when a command of `lines` (1..OC_CMD_MAX_LINES) can be written now. */
static inline bool oc_ring_has_room(struct oc_producer *p, uint32_t lines)
{
    uint64_t end = p->tail + oc_ring_need(p, lines) + 1;

    if (end - p->head_seen <= OC_RING_LINES)
        return true;
    /* pairs with oc_ring_release */
    p->head_seen = atomic_load_explicit(&p->channel->head, memory_order_acquire);
    return end - p->head_seen <= OC_RING_LINES;
}

/* The line to fill, or NULL when the ring is full. Emits the pad if one is needed. */
static inline struct oc_cmd *oc_ring_reserve(struct oc_producer *p, uint32_t lines)
{
    uint32_t at = (uint32_t)(p->tail & (OC_RING_LINES - 1));

    if (!oc_ring_has_room(p, lines))
        return NULL;
    if (at + lines > OC_RING_LINES) {
        struct oc_cmd *pad = oc_line(p->lines, p->tail);

        pad->op = OC_OP_PAD;
        pad->lines = (uint16_t)(OC_RING_LINES - at);
        pad->bytes = pad->thread = pad->flags = 0;
        atomic_store_explicit(&oc_line(p->lines, 0)->seq, 0, memory_order_relaxed);
        atomic_store_explicit(&pad->seq, p->tail + 1, memory_order_release);
        p->tail += pad->lines;
    }
    return oc_line(p->lines, p->tail);
}

/* The consumer's cache holds the lines since it read them a lap ago: they are fetched for the next command while the
 * application computes, else its stores wait for each (measured: 128 ns a launch without, 102 with). */
static inline void oc_ring_fetch(const struct oc_producer *p, uint32_t lines)
{
    for (uint32_t i = 1; i <= lines && i <= 4; i++)
        __asm__ volatile("prefetchw %0" : : "m"(*(const uint8_t *)oc_line(p->lines, p->tail + i)));
}

/* Publishes the command that oc_ring_reserve returned (its fields but seq are filled).
 * *seq receives its sequence. True: the consumer sleeps, send it a wake byte. */
static inline bool oc_ring_publish(struct oc_producer *p, struct oc_cmd *cmd, uint64_t *seq)
{
    uint32_t lines = cmd->lines;

    *seq = p->tail + 1;
    atomic_store_explicit(&oc_line(p->lines, p->tail + lines)->seq, 0, memory_order_relaxed);
    atomic_store_explicit(&cmd->seq, *seq, memory_order_release); /* pairs with oc_ring_peek */
    p->tail += lines;
    oc_ring_fetch(p, lines);
    return atomic_load_explicit(&p->channel->consumer_parked, memory_order_relaxed) != 0;
}

/* The published command at the head, or NULL. What it points at is the guest's to
 * change at any time: copy, then check, then use. */
static inline const struct oc_cmd *oc_ring_peek(const struct oc_consumer *c)
{
    struct oc_cmd *cmd = oc_line(c->lines, c->head);

    return atomic_load_explicit(&cmd->seq, memory_order_acquire) == c->head + 1 ? cmd : NULL;
}

/* Copies the header of `cmd` (from oc_ring_peek) to *h and checks it against the ring's
 * rules; false: malformed, end the channel. The payload is copied by oc_ring_take. */
static inline bool oc_ring_header(const struct oc_consumer *c, const struct oc_cmd *cmd, struct oc_cmd *h)
{
    uint32_t at = (uint32_t)(c->head & (OC_RING_LINES - 1));

    h->seq = c->head + 1;
    h->op = *(const volatile uint16_t *)&cmd->op;
    h->lines = *(const volatile uint16_t *)&cmd->lines;
    h->bytes = *(const volatile uint32_t *)&cmd->bytes;
    h->thread = *(const volatile uint32_t *)&cmd->thread;
    h->flags = *(const volatile uint32_t *)&cmd->flags;
    if (h->lines == 0 || at + h->lines > OC_RING_LINES || h->thread >= OC_NR_SLOTS)
        return false;
    if (h->op == OC_OP_PAD)
        return at + h->lines == OC_RING_LINES;
    return h->lines <= OC_CMD_MAX_LINES && h->bytes <= OC_CMD_MAX_LINES * OC_LINE &&
           oc_cmd_lines(h->bytes) == h->lines;
}

/* Copies h->bytes of payload to `to` (room for OC_CMD_MAX_LINES * OC_LINE) and consumes the command. */
static inline void oc_ring_take(struct oc_consumer *c, const struct oc_cmd *cmd, const struct oc_cmd *h, void *to)
{
    memcpy(to, cmd->payload, h->bytes);
    c->head += h->lines;
}

/* Tells the producer what has been consumed; cheap enough to call every few commands. */
static inline void oc_ring_release(struct oc_consumer *c)
{
    if (c->head == c->head_published)
        return;
    c->head_published = c->head;
    atomic_store_explicit(&c->channel->head, c->head, memory_order_release); /* pairs with oc_ring_has_room */
}

#endif
