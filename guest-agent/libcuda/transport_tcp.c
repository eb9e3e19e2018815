/* SPDX-License-Identifier: Apache-2.0 */
/* TCP: the block is private memory that both sides mirror by frames; a receiver thread applies the host's. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core.h"

enum { FRAME_DATA = 1, FRAME_WAKE = 2 };
struct frame {
    uint32_t type, bytes;
    uint64_t offset; /* as region offset: block_off is that of the block's first byte */
};
#define FRAME_MAX (256u << 10)

static _Atomic int send_lock; /* one frame at a time; taken under the submission lock, never the reverse */
static uint64_t sent;         /* ring lines sent, free running; under the submission lock */
static uint8_t *incoming;     /* FRAME_MAX bytes */

/* ---- sending ---- */

static bool send_pieces(struct iovec *v, int n)
{
    while (n) {
        struct msghdr m = { .msg_iov = v, .msg_iovlen = (size_t)n };
        ssize_t bytes = sendmsg(og_link.fd, &m, MSG_NOSIGNAL);

        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes <= 0)
            return false; /* the receiver sees the end and says so */
        for (; n && (size_t)bytes >= v->iov_len; v++, n--)
            bytes -= (ssize_t)v->iov_len;
        if (n) {
            v->iov_base = (uint8_t *)v->iov_base + bytes;
            v->iov_len -= (size_t)bytes;
        }
    }
    return true;
}

void og_tcp_send(uint64_t off, uint64_t bytes)
{
    uint64_t at = off - og_link.block_off;

    if (off < og_link.block_off || !og_inside(at, bytes, OC_CHANNEL_BYTES))
        return; /* nothing of the block: the worker would not take it either */
    while (bytes) {
        uint32_t piece = bytes < FRAME_MAX ? (uint32_t)bytes : FRAME_MAX;
        struct frame f = { FRAME_DATA, piece, og_link.block_off + at };
        struct iovec v[2] = { { &f, sizeof(f) }, { (uint8_t *)og_link.channel + at, piece } };
        bool ok;

        og_lock(&send_lock);
        ok = send_pieces(v, 2);
        og_unlock(&send_lock);
        if (!ok)
            return;
        at += piece;
        bytes -= piece;
    }
}

/* Everything between the last publication and the tail, and before it the zeroed seq of the line behind. */
void og_tcp_publish(void)
{
    uint64_t ring = og_link.block_off + og_link.layout.ring_off;
    uint64_t tail = og_link.ring.tail;

    og_tcp_send(ring + (tail & (OC_RING_LINES - 1)) * OC_LINE, 8);
    while (sent != tail) {
        uint64_t at = sent & (OC_RING_LINES - 1), lines = tail - sent;

        if (lines > OC_RING_LINES - at)
            lines = OC_RING_LINES - at;
        og_tcp_send(ring + at * OC_LINE, lines * OC_LINE);
        sent += lines;
    }
}

/* ---- receiving ---- */

static bool receive(void *to, size_t bytes)
{
    uint8_t *p = to;

    while (bytes) {
        ssize_t n = recv(og_link.fd, p, bytes, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

/* Words of the guest's that no frame may change: callback_parked and what the ring holds. */
static bool host_may_write(const struct frame *f)
{
    uint64_t at = f->offset - og_link.block_off;
    uint64_t ring = og_link.layout.ring_off;

    if (f->offset < og_link.block_off || !og_inside(at, f->bytes, OC_CHANNEL_BYTES))
        return false;
    if (at < OC_LINE || (at < sizeof(struct oc_channel) &&
                         at + f->bytes > offsetof(struct oc_channel, callback_parked)))
        return false;
    return at + f->bytes <= ring || at >= ring + (uint64_t)OC_RING_LINES * OC_LINE;
}

/* From the last word to the first, so that `done` or `seq` appears after what it announces. */
static void store_backwards(uint8_t *to, const uint8_t *from, uint32_t bytes)
{
    uint32_t words = bytes / 8;

    if (((uintptr_t)to | bytes) & 7) {
        while (bytes--)
            __atomic_store_n(&to[bytes], from[bytes], __ATOMIC_RELEASE);
        return;
    }
    while (words--) {
        uint64_t word;

        memcpy(&word, from + words * 8, 8);
        __atomic_store_n((uint64_t *)(void *)to + words, word, __ATOMIC_RELEASE); /* pairs with og_wait's readers */
    }
}

/* False: the end, or a fault that has been reported. */
static bool one_frame(void)
{
    struct frame f;

    if (!receive(&f, sizeof(f)))
        return false;
    if (f.type == FRAME_WAKE && f.bytes == 0)
        return true;
    if (f.type != FRAME_DATA || f.bytes == 0 || f.bytes > FRAME_MAX || !host_may_write(&f)) {
        og_lost("the worker sent a malformed frame", "host and guest versions differ? Start the program again");
        return false;
    }
    if (!receive(incoming, f.bytes))
        return false;
    store_backwards((uint8_t *)og_link.channel + (f.offset - og_link.block_off), incoming, f.bytes);
    return true;
}

static void *receiver(void *unused)
{
    (void)unused;
    while (one_frame())
        og_wake_waiters();
    og_lost_by_close();
    return NULL;
}

/* No signal of the application's is for this thread. */
static int start_receiver(void)
{
    sigset_t all, old;
    pthread_attr_t attr;
    pthread_t thread;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    error = pthread_create(&thread, &attr, receiver, NULL);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return error;
}

CUresult og_tcp_open(struct og_why *why)
{
    void *block = mmap(NULL, OC_CHANNEL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    incoming = block == MAP_FAILED ? NULL : malloc(FRAME_MAX);
    if (!incoming) {
        og_because(why, "no memory for the channel");
        if (block != MAP_FAILED)
            munmap(block, OC_CHANNEL_BYTES);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    madvise(block, OC_CHANNEL_BYTES, MADV_DONTFORK);
    og_link.channel = block;
    oc_channel_init(og_link.channel, og_link.channel_id);
    sent = 0;
    return CUDA_SUCCESS;
}

CUresult og_tcp_start(struct og_why *why)
{
    int error = start_receiver();

    if (!error)
        return CUDA_SUCCESS;
    og_because(why, "cannot start the receiving thread: %s", strerror(error));
    return CUDA_ERROR_OPERATING_SYSTEM;
}
