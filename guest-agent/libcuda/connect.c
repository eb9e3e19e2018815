/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets with time limits, and the handshake's blocks of text. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "core.h"

uint64_t og_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void og_because(struct og_why *why, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why->text, sizeof(why->text), format, args);
    va_end(args);
}

/* "host:port" or "[v6]:port" in two pieces. */
static bool split(const char *addr, char host[OG_ADDR_BYTES], char port[8])
{
    const char *colon = strrchr(addr, ':');
    size_t bytes = colon ? (size_t)(colon - addr) : 0;

    if (bytes >= 2 && *addr == '[' && addr[bytes - 1] == ']') {
        addr++;
        bytes -= 2;
    }
    if (!bytes || bytes >= OG_ADDR_BYTES || strlen(colon + 1) >= 8)
        return false;
    memcpy(host, addr, bytes);
    host[bytes] = '\0';
    strcpy(port, colon + 1);
    return true;
}

static int connected(int fd, const struct addrinfo *to, unsigned timeout_ms)
{
    struct pollfd p = { fd, POLLOUT, 0 };
    socklen_t bytes = sizeof(int);
    int error = 0;

    if (connect(fd, to->ai_addr, to->ai_addrlen) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    while ((error = poll(&p, 1, (int)timeout_ms)) < 0 && errno == EINTR)
        ;
    if (error == 0)
        return ETIMEDOUT;
    if (error < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0)
        return errno;
    return error;
}

void og_set_timeout(int fd, unsigned timeout_ms)
{
    struct timeval tv = { (time_t)(timeout_ms / 1000), (suseconds_t)(timeout_ms % 1000) * 1000 };

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

/* From here on the socket blocks, and every read and write of the handshake ends within timeout_ms. */
static void make_blocking(int fd, unsigned timeout_ms)
{
    int one = 1;

    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    og_set_timeout(fd, timeout_ms);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

int og_dial(const char *addr, unsigned timeout_ms, struct og_why *why)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *list = NULL;
    char host[OG_ADDR_BYTES], port[8];
    int fd = -1, error = EINVAL, lookup;

    if (!split(addr, host, port)) {
        og_because(why, "%s: not ip:port", addr);
        return -1;
    }
    lookup = getaddrinfo(host, port, &hints, &list);
    if (lookup != 0) {
        og_because(why, "%s: %s", addr, gai_strerror(lookup));
        return -1;
    }
    for (struct addrinfo *a = list; a && error; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        error = fd < 0 ? errno : connected(fd, a, timeout_ms);
        if (error && fd >= 0)
            close(fd);
    }
    freeaddrinfo(list);
    if (error) {
        og_because(why, "%s: %s", addr, strerror(error));
        return -1;
    }
    make_blocking(fd, timeout_ms);
    return fd;
}

bool og_send_all(int fd, const void *bytes, size_t nr_bytes)
{
    const char *p = bytes;

    while (nr_bytes) {
        ssize_t n = send(fd, p, nr_bytes, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        nr_bytes -= (size_t)n;
    }
    return true;
}

/* Where the empty line ends, given that text[0..before) has been searched; 0: not yet. */
static size_t end_of_block(const char *text, size_t before, size_t bytes)
{
    for (size_t i = before > 1 ? before - 1 : 1; i < bytes; i++)
        if (text[i] == '\n' && text[i - 1] == '\n')
            return i + 1;
    return 0;
}

/* Bytes behind the block belong to the channel: look first, then take exactly the block. */
bool og_read_block(int fd, char *to, size_t room, struct og_why *why)
{
    size_t have = 0;

    while (have + 1 < room) {
        ssize_t n = recv(fd, to + have, room - 1 - have, MSG_PEEK);
        size_t end, take;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            og_because(why, n == 0 ? "it closed the connection" : "it does not answer (%s)",
                       errno == EAGAIN ? "timed out" : strerror(errno));
            return false;
        }
        end = end_of_block(to, have, have + (size_t)n);
        take = end ? end - have : (size_t)n;
        if (recv(fd, to + have, take, MSG_WAITALL) != (ssize_t)take) {
            og_because(why, "the connection broke");
            return false;
        }
        have += take;
        to[have] = '\0';
        if (end)
            return true;
    }
    og_because(why, "its answer is longer than %zu bytes", room);
    return false;
}

void og_text_add(struct og_text *t, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(t->text + t->bytes, sizeof(t->text) - t->bytes, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(t->text) - t->bytes)
        t->overflow = true;
    else
        t->bytes += (size_t)n;
}

bool og_block_is(const char *block, const char *verb)
{
    size_t n = strlen(verb);

    return !strncmp(block, "ORION/1 ", 8) && !strncmp(block + 8, verb, n) && block[8 + n] == '\n';
}

bool og_block_get(const char *block, const char *key, char *to, size_t room)
{
    size_t n = strlen(key);

    for (const char *line = strchr(block, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
        size_t bytes;

        if (strncmp(line + 1, key, n) || line[1 + n] != ':')
            continue;
        line += 2 + n;
        line += strspn(line, " ");
        bytes = strcspn(line, "\n");
        if (bytes >= room)
            return false;
        memcpy(to, line, bytes);
        to[bytes] = '\0';
        return true;
    }
    return false;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t og_unhex(const char *hex, uint8_t *to, size_t room)
{
    size_t n = strlen(hex);

    if (n % 2 || n / 2 > room)
        return (size_t)-1;
    for (size_t i = 0; i < n / 2; i++) {
        int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);

        if (high < 0 || low < 0)
            return (size_t)-1;
        to[i] = (uint8_t)(high << 4 | low);
    }
    return n / 2;
}

void og_hex(const uint8_t *bytes, size_t nr_bytes, char *to)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < nr_bytes; i++) {
        to[2 * i] = digits[bytes[i] >> 4];
        to[2 * i + 1] = digits[bytes[i] & 15];
    }
    to[2 * nr_bytes] = '\0';
}

void og_uuid_text(const uint8_t uuid[16], char to[37])
{
    static const uint8_t dashes[] = { 4, 2, 2, 2, 6 };
    size_t at = 0;

    for (unsigned i = 0; i < sizeof(dashes); i++) {
        og_hex(uuid + at, dashes[i], to);
        at += dashes[i];
        to += 2 * dashes[i];
        *to++ = i == 4 ? '\0' : '-';
    }
}
