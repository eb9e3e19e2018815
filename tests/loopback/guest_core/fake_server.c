/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for controller, oriond and worker on one port: allocation, handshake, and a reader of the ring. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake.h"

static int listener;
static char region_path[256];
static uint8_t *region;
static struct oc_snapshot snapshot = { .nr_gpus = 1, .driver_version = 13000, .simulated = 1, .vgpu_count = 4 };

static void fill_snapshot(void)
{
    snprintf(snapshot.gpu[0].name, sizeof(snapshot.gpu[0].name), "Fake GPU");
    snapshot.gpu[0].total_bytes = 16ull << 30;
    snapshot.gpu[0].default_bytes = 4ull << 30;
}

#define SNAPSHOT_BYTES (offsetof(struct oc_snapshot, gpu) + sizeof(struct oc_snap_gpu))

/* ORION_REGION of the test: header, snapshot, then blocks at 2, 4 and 6 MiB. */
static void make_region(int port)
{
    struct oc_header *h;
    int fd = open(region_path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    if (fd < 0 || ftruncate(fd, FAKE_REGION_BYTES))
        exit(2);
    region = mmap(NULL, FAKE_REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    h = (void *)region;
    h->version = OC_LAYOUT_VERSION;
    h->header_bytes = OC_HEADER_BYTES;
    h->region_bytes = FAKE_REGION_BYTES;
    memcpy(h->domain_uuid, FAKE_DOMAIN, 16);
    memcpy(h->token, FAKE_TOKEN, 16);
    h->generation = 7;
    snprintf(h->server_addr[0], OC_ADDR_BYTES, "127.0.0.1:%d", port);
    snprintf(h->controller_addr, OC_ADDR_BYTES, "127.0.0.1:%d", port);
    memcpy(region + OC_SNAPSHOT_OFF, &snapshot, SNAPSHOT_BYTES);
    h->snapshot_bytes = SNAPSHOT_BYTES;
    atomic_thread_fence(memory_order_release);
    h->magic = OC_MAGIC;
    close(fd);
}

static void say(int fd, const char *text)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        return;
}

static void http(int fd, const char *request)
{
    char answer[256], body[128];
    const char *count = strstr(request, "nvidia_vgpu=");
    struct sockaddr_in a;
    socklen_t n = sizeof(a);

    getsockname(fd, (struct sockaddr *)&a, &n);
    if (!count || atoi(count + 12) > 4) {
        say(fd, "HTTP/1.1 409 Conflict\r\nContent-Length: 24\r\n\r\nonly 4 vGPU are free now");
        return;
    }
    snprintf(body, sizeof(body), FAKE_ALLOCATION ",127.0.0.1:%d/0/0", ntohs(a.sin_port));
    snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    say(fd, answer);
}

static void info(int fd)
{
    static char text[3 * SNAPSHOT_BYTES];
    char hex[2 * SNAPSHOT_BYTES + 1];

    og_hex((void *)&snapshot, SNAPSHOT_BYTES, hex);
    snprintf(text, sizeof(text), "ORION/1 INFO\nsnapshot: %s\n\n", hex);
    say(fd, text);
}

static bool proven(int fd, const char *hello, bool shm)
{
    char block[4096], want[65], got[80];
    uint8_t mac[32];
    struct og_why why;

    say(fd, "ORION/1 CHALLENGE\nnonce: 000102030405060708090a0b0c0d0e0f\n\n");
    if (!og_read_block(fd, block, sizeof(block), &why) || !og_block_get(block, "hmac", got, sizeof(got)))
        return false;
    og_hmac_sha256(FAKE_TOKEN, 16, "\0\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17", 16, hello, strlen(hello), mac);
    og_hex(mac, 32, want);
    return !strcmp(got, shm ? want : "-");
}

/* Channels take turns on three blocks. */
static struct oc_channel *new_block(uint64_t *off)
{
    static _Atomic uint32_t next;
    struct oc_channel *c;

    if (!region)
        region = mmap(NULL, FAKE_REGION_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *off = (1 + atomic_fetch_add(&next, 1) % 3) * OC_EXTENT_BYTES;
    c = (void *)(region + *off);
    memset(c, 0, OC_STAGING_OFF);
    oc_channel_init(c, 1);
    return c;
}

static void hello(int fd, const char *block)
{
    bool shm = strstr(block, "\ntransport: shm\n") != NULL;
    char text[2048], ops[2 * OG_OPS_BYTES + 1];
    struct oc_channel *c;
    uint64_t off;

    if (strstr(block, "\nenv.CUDA_MODULE_LOADING: REFUSE\n")) {
        say(fd, "ORION/1 REFUSED\ncode: 2\nreason: the region is full\nhint: Raise shm_buffer_size\n\n");
        return;
    }
    if (!proven(fd, block, shm)) {
        say(fd, "ORION/1 REFUSED\ncode: 999\nreason: the proof does not match\nhint: none\n\n");
        return;
    }
    c = new_block(&off);
    memset(ops, 'f', sizeof(ops) - 1);
    ops[sizeof(ops) - 1] = '\0';
    snprintf(text, sizeof(text),
             "ORION/1 WELCOME\nchannel: 1\nblock: %llu\nops: %s\nboot: -\ndevices: 4\ndevice.0: 0,%llu\n%s\n",
             (unsigned long long)off, ops, 5ull << 30, strstr(block, "\ndoorbell: yes\n") ? "doorbell: 65543\n" : "");
    say(fd, text);
    fake_execute(fd, c, off, shm);
}

static void *serve(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char first[8] = "", *block = calloc(1, OG_BLOCK_MAX);
    struct og_why why;
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (recv(fd, first, 4, MSG_PEEK | MSG_WAITALL) == 4 && !memcmp(first, "GET ", 4)) {
        if (recv(fd, block, 4096, 0) > 0)
            http(fd, block);
    } else if (og_read_block(fd, block, OG_BLOCK_MAX, &why)) {
        if (og_block_is(block, "INFO"))
            info(fd);
        else
            hello(fd, block);
    }
    free(block);
    close(fd);
    return NULL;
}

static int listen_anywhere(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof(a);

    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&a, n) || listen(listener, 16))
        exit(2);
    getsockname(listener, (struct sockaddr *)&a, &n);
    return ntohs(a.sin_port);
}

/* Argument: path of the region to make. Prints the port; ends with its standard input. */
int main(int argc, char **argv)
{
    struct pollfd p[2] = { { .fd = 0, .events = POLLIN }, { .events = POLLIN } };
    int port = listen_anywhere();

    fill_snapshot();
    if (argc > 1) {
        snprintf(region_path, sizeof(region_path), "%s", argv[1]);
        make_region(port);
    }
    printf("%d\n", port);
    fflush(stdout);
    p[1].fd = listener;
    while (poll(p, 2, -1) > 0 && !p[0].revents) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        pthread_t t;

        if (fd >= 0 && !pthread_create(&t, NULL, serve, (void *)(intptr_t)fd))
            pthread_detach(t);
    }
    _exit(0);
}
