/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels print: the driver's stdout and stderr lead into a queue, from which the guest takes the text. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"

#define HELD_MAX (32u << 20) /* of text that the guest has not taken; what comes then is lost, nobody waits */
#define HELD_MIN (64u << 10)
#define NAP_MIN_NS 20000
#define NAP_MAX_NS 1000000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER; /* held bytes did not fit into the guest's ring */
static FILE *out;          /* the driver's stdout, NULL: not redirected */
static uint8_t *held;      /* ring of `room` bytes that holds [put, made) */
static uint64_t room, made, put;
static uint64_t lost;      /* bytes since the last record that was taken in */
static bool pumping;       /* the thread that refills the guest's ring exists */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- records that wait ---- */

/* Room for `bytes` more; false: the guest takes nothing, or there is no memory. */
static bool grow_locked(uint64_t bytes)
{
    uint64_t want = room ? room : HELD_MIN, n;
    uint8_t *bigger;

    while (want < made - put + bytes)
        want *= 2;
    if (want == room)
        return true;
    bigger = want <= HELD_MAX ? malloc(want) : NULL;
    if (!bigger)
        return false;
    for (uint64_t at = put; at < made; at += n) {
        n = least(made - at, least(room - at % room, want - at % want));
        memcpy(bigger + at % want, held + at % room, n);
    }
    free(held);
    held = bigger;
    room = want;
    return true;
}

static void append_locked(const void *bytes, uint64_t nr)
{
    uint64_t first = least(nr, room - made % room);

    memcpy(held + made % room, bytes, first);
    memcpy(held, (const uint8_t *)bytes + first, nr - first);
    made += nr;
}

static bool record_locked(uint32_t fd, const void *text, uint32_t bytes)
{
    static const uint8_t zeros[8];
    struct oc_output head = { bytes, fd };
    uint32_t pad = -bytes & 7;

    if (!grow_locked(sizeof(head) + bytes + pad))
        return false;
    append_locked(&head, sizeof(head));
    append_locked(text, bytes);
    append_locked(zeros, pad);
    return true;
}

static void tell_loss_locked(void)
{
    if (!lost || !record_locked(0, &lost, sizeof(lost)))
        return;
    oh_log("%llu bytes that kernels printed were dropped: the client took none for too long", (unsigned long long)lost);
    lost = 0;
}

static void take_in_locked(uint32_t fd, const char *text, size_t bytes)
{
    for (uint32_t n; bytes; text += n, bytes -= n) {
        n = bytes < OC_OUTPUT_TEXT ? (uint32_t)bytes : OC_OUTPUT_TEXT;
        tell_loss_locked();
        if (lost || !record_locked(fd, text, n))
            lost += n;
    }
}

/* ---- the guest's ring ---- */

/* Moves what fits; the guest's word is only a number, and one that cannot be leaves no room. */
static bool move_locked(void)
{
    uint64_t taken = atomic_load_explicit(&oh_channel->output_taken, memory_order_acquire), before = put, n, at;
    uint64_t free_ = taken <= put && put - taken <= OC_OUTPUT_BYTES ? OC_OUTPUT_BYTES - (put - taken) : 0;

    for (; free_ && put < made; put += n, free_ -= n) {
        at = put % OC_OUTPUT_BYTES;
        n = least(least(made - put, free_), least(room - put % room, OC_OUTPUT_BYTES - at));
        memcpy((uint8_t *)oh_channel + OC_OUTPUT_OFF + at, held + put % room, n);
        oh_flush(oh_config.block_off + OC_OUTPUT_OFF + at, n);
    }
    atomic_store_explicit(&oh_channel->output_put, put, memory_order_release); /* pairs with og_output_show */
    atomic_store_explicit(&oh_channel->output_made, made, memory_order_release);
    return put != before;
}

/* Refills the ring while the guest reads it. */
static void *pump(void *unused)
{
    struct timespec nap = { 0, NAP_MIN_NS };

    (void)unused;
    pthread_mutex_lock(&lock);
    for (;;) {
        bool moved = move_locked();

        if (moved)
            oh_transport_head(); /* over TCP the words travel too */
        if (put == made)
            tell_loss_locked();
        if (put == made) {
            pthread_cond_wait(&more, &lock);
            continue;
        }
        pthread_mutex_unlock(&lock);
        nap.tv_nsec = moved ? NAP_MIN_NS : (long)least((uint64_t)nap.tv_nsec * 2, NAP_MAX_NS);
        nanosleep(&nap, NULL);
        pthread_mutex_lock(&lock);
    }
    return NULL;
}

static void pump_locked(void)
{
    pthread_t thread;

    if (!pumping && pthread_create(&thread, NULL, pump, NULL) == 0) {
        pthread_detach(thread);
        pumping = true;
    }
    pthread_cond_signal(&more);
}

/* ---- the driver's side ---- */

/* Of a stream: `cookie` is its descriptor. Never fails and never waits: it runs inside the driver. */
static ssize_t write_text(void *cookie, const char *text, size_t bytes)
{
    int fd = (int)(intptr_t)cookie;

    if (!oh_channel)
        return write(fd, text, bytes) < 0 ? 0 : (ssize_t)bytes; /* the worker's own log */
    pthread_mutex_lock(&lock);
    take_in_locked((uint32_t)fd, text, bytes);
    move_locked();
    if (put != made)
        pump_locked();
    pthread_mutex_unlock(&lock);
    return (ssize_t)bytes;
}

static FILE *stream_to(int fd, int mode)
{
    FILE *f = fopencookie((void *)(intptr_t)fd, "w", (cookie_io_functions_t){ .write = write_text });

    if (f)
        setvbuf(f, NULL, mode, OC_OUTPUT_TEXT);
    return f;
}

void oh_output_redirect(void)
{
    FILE *err = stream_to(STDERR_FILENO, _IONBF);

    out = stream_to(STDOUT_FILENO, _IOFBF);
    if (out)
        stdout = out;
    if (err)
        stderr = err;
}

void oh_output_flush(void)
{
    if (out && __fpending(out))
        fflush(out);
}
