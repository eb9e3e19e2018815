/* SPDX-License-Identifier: Apache-2.0 */
/* The way back to the guest: completion slots, wake-up bytes, and over TCP the frames that mirror the block. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "loop.h"

enum { FRAME_DATA = 1, FRAME_WAKE = 2 };
struct frame {
    uint32_t type, bytes;
    uint64_t offset; /* in the region; the block lies at block_off */
};
#define FRAME_MAX (256u << 10)     /* what we send at once */
#define IN_MAX OC_STAGING_OFF      /* of a frame that may hold commands; bulk data goes straight to its place */
/* Host-written words of struct oc_channel: head up to the guest's callback_parked. */
#define HOST_WORDS offsetof(struct oc_channel, head)
#define HOST_WORDS_BYTES (offsetof(struct oc_channel, callback_parked) - HOST_WORDS)

static struct oc_slot *slots;
static pthread_mutex_t send_lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t mirrored[HOST_WORDS_BYTES]; /* as last sent */

static struct frame in;      /* frame being read */
static uint64_t in_got;      /* bytes of header and data read so far */
static uint8_t *in_data;     /* IN_MAX bytes */

static bool over_tcp(void)
{
    return oh_config.region_fd < 0;
}

struct oc_slot *oh_slot(uint32_t slot)
{
    return &slots[slot];
}

/* ---- sending ---- */

static void peer_gone(void)
{
    oh_end(OC_CLOSED_BY_GUEST, "the client's connection broke: %s", strerror(errno));
}

static void send_all(struct iovec *v, int n)
{
    struct pollfd p = { .fd = oh_config.socket_fd, .events = POLLOUT };

    for (int last = 0; n && last < 3; last += atomic_load(&oh_ending) != OC_OPEN) {
        struct msghdr m = { .msg_iov = v, .msg_iovlen = (size_t)n };
        ssize_t sent = sendmsg(p.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            poll(&p, 1, 100); /* the client does not read: it waits for itself alone */
            continue;
        }
        if (sent < 0) {
            peer_gone();
            return;
        }
        for (; n && (size_t)sent >= v->iov_len; v++, n--)
            sent -= (ssize_t)v->iov_len;
        if (n) {
            v->iov_base = (uint8_t *)v->iov_base + sent;
            v->iov_len -= (size_t)sent;
        }
    }
}

/* send_lock is held. `data` NULL: a wake-up. */
static void send_frame_locked(uint64_t offset, const void *data, uint32_t bytes)
{
    struct frame f = { .type = data ? FRAME_DATA : FRAME_WAKE, .bytes = bytes, .offset = offset };
    struct iovec v[2] = { { &f, sizeof(f) }, { (void *)(uintptr_t)data, bytes } };

    send_all(v, bytes ? 2 : 1);
}

static void mirror_words_locked(void)
{
    uint8_t now[HOST_WORDS_BYTES];

    memcpy(now, (uint8_t *)oh_channel + HOST_WORDS, sizeof(now));
    if (!memcmp(now, mirrored, sizeof(now)))
        return;
    memcpy(mirrored, now, sizeof(now));
    send_frame_locked(oh_config.block_off + HOST_WORDS, now, sizeof(now));
}

static void wake_byte(void)
{
    if (oh_config.polled)
        return;
    /* A full socket holds enough wake-ups already. */
    if (send(oh_config.socket_fd, "\1", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
        peer_gone();
}

void oh_wake(void)
{
    if (!over_tcp()) {
        wake_byte();
        return;
    }
    pthread_mutex_lock(&send_lock);
    mirror_words_locked();
    send_frame_locked(0, NULL, 0);
    pthread_mutex_unlock(&send_lock);
}

void oh_flush(uint64_t region_off, uint64_t bytes)
{
    const uint8_t *p = oh_region(region_off, bytes);

    if (!over_tcp() || !p)
        return;
    while (bytes) {
        uint32_t piece = bytes < FRAME_MAX ? (uint32_t)bytes : FRAME_MAX;

        pthread_mutex_lock(&send_lock);
        send_frame_locked(region_off, p, piece);
        pthread_mutex_unlock(&send_lock);
        region_off += piece;
        p += piece;
        bytes -= piece;
    }
}

void oh_transport_head(void)
{
    if (!over_tcp())
        return;
    pthread_mutex_lock(&send_lock);
    mirror_words_locked();
    pthread_mutex_unlock(&send_lock);
}

void oh_transport_reply(uint32_t slot, const struct oc_cmd *h, CUresult r, const void *out, uint32_t bytes)
{
    struct oc_slot *s = &slots[slot];

    s->result = (int32_t)r;
    s->bytes = bytes;
    memcpy(s->out, out, bytes);
    atomic_store_explicit(&s->done, h->seq, memory_order_release); /* pairs with og_wait */
    if (!over_tcp()) {
        atomic_thread_fence(memory_order_seq_cst); /* `done` before the look at `parked`: pairs with the parker */
        if (atomic_load_explicit(&s->parked, memory_order_relaxed))
            wake_byte();
        return;
    }
    pthread_mutex_lock(&send_lock);
    mirror_words_locked();
    send_frame_locked(oh_config.block_off + (uint64_t)((uint8_t *)s - (uint8_t *)oh_channel), s,
                      (uint32_t)offsetof(struct oc_slot, out) + bytes);
    pthread_mutex_unlock(&send_lock);
}

/* ---- receiving: the watcher only ---- */

static int bad(const char *why)
{
    oh_end(OC_CLOSED_PROTOCOL, "malformed frame on the connection: %s", why);
    return -1;
}

/* From the last word to the first, so that a command's seq appears after its payload. */
static void store_backwards(uint8_t *to, const uint8_t *from, uint32_t bytes)
{
    if (((uintptr_t)to | bytes) & 7) {
        while (bytes--)
            __atomic_store_n(&to[bytes], from[bytes], __ATOMIC_RELEASE);
        return;
    }
    for (bytes /= 8; bytes--;) {
        uint64_t word;

        memcpy(&word, from + bytes * 8, 8);
        __atomic_store_n((uint64_t *)(void *)to + bytes, word, __ATOMIC_RELEASE);
    }
}

/* Host-written words are not the guest's to change, in a block of our own. */
static bool guest_may_write(uint64_t offset, uint32_t bytes)
{
    uint64_t first = oh_config.block_off + offsetof(struct oc_channel, callback_parked);

    return offset >= first && oh_region(offset, bytes);
}

/* Staging and grants: order does not matter there, the commands that name them come later. */
static bool is_bulk(void)
{
    return in.offset >= oh_config.block_off + OC_STAGING_OFF;
}

static int apply(void)
{
    if (in.type == FRAME_WAKE || is_bulk())
        return 1;
    store_backwards(oh_region(in.offset, in.bytes), in_data, in.bytes);
    return 1;
}

static int check_header(void)
{
    if (in.type == FRAME_WAKE)
        return in.bytes ? bad("a wake-up with data") : 0;
    if (in.type != FRAME_DATA)
        return bad("unknown type");
    if (!in.bytes || (!is_bulk() && in.bytes > IN_MAX))
        return bad("length of data");
    return guest_may_write(in.offset, in.bytes) ? 0 : bad("data outside the client's memory");
}

static ssize_t receive(void *to, size_t bytes)
{
    ssize_t n = recv(oh_config.socket_fd, to, bytes, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    return n < 0 ? 0 : n; /* a reset is an end too */
}

static ssize_t receive_data(uint64_t got)
{
    uint8_t *to = is_bulk() ? oh_region(in.offset + got, in.bytes - got) : in_data + got;

    return to ? receive(to, in.bytes - got) : bad("memory was released while it was written");
}

/* One step: 1 a whole frame was applied or more is to come, 0 end, -1 fault, -EAGAIN nothing there. */
static int read_frame(void)
{
    uint32_t head = sizeof(in);
    ssize_t n;

    if (in_got < head) {
        n = receive((uint8_t *)&in + in_got, head - in_got);
        if (n <= 0)
            return (int)n;
        in_got += (uint64_t)n;
        if (in_got < head)
            return 1;
        if (check_header())
            return -1;
    }
    if (in_got - head < in.bytes) {
        n = receive_data(in_got - head);
        if (n <= 0)
            return (int)n;
        in_got += (uint64_t)n;
    }
    if (in_got - head < in.bytes)
        return 1;
    in_got = 0;
    return apply();
}

static int read_bytes(void)
{
    uint8_t buffer[256];
    ssize_t n = receive(buffer, sizeof(buffer));

    for (ssize_t i = 0; i < n; i++)
        if (buffer[i] != 1)
            return bad("a byte that is no wake-up");
    return n == -EAGAIN ? 1 : n > 0;
}

int oh_transport_read(void)
{
    int r;

    if (!over_tcp())
        return read_bytes();
    for (int i = 0; i < 256; i++) { /* then the control socket gets its turn */
        r = read_frame();
        if (r == -EAGAIN)
            return 1;
        if (r <= 0)
            return r;
        oh_baton_kick();
    }
    return 1;
}

int oh_transport_start(void)
{
    slots = (void *)((uint8_t *)oh_channel + OC_SLOTS_OFF);
    if (!over_tcp())
        return 0;
    in_data = malloc(IN_MAX);
    if (!in_data)
        return -ENOMEM;
    oc_channel_init(oh_channel, oh_config.channel_id);
    return 0;
}
