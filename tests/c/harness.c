/* SPDX-License-Identifier: Apache-2.0 */
/* Starts an executor in a child process and speaks to it as a client and as the daemon. */
#define _GNU_SOURCE
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "executor.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

uint64_t test_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ThreadSanitizer refuses the product's bases: any free place serves there. */
static uint64_t free_place(uint64_t base)
{
#ifdef __SANITIZE_THREAD__
    void *p = mmap(NULL, HARNESS_REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(p != MAP_FAILED && !munmap(p, HARNESS_REGION));
    base = (uintptr_t)p;
#else
    CHECK(!oh_reserve_bases());
#endif
    return base;
}

static void run_worker(const struct client *c, int socket, int control, uint64_t base)
{
    int region = c->region;
    struct oh_config config = {
        .socket_fd = socket, .region_fd = region, .control_fd = control, .doorbell_fd = c->doorbell, .listen_fd = c->listener, .keep_seconds = 60, .polled = c->polled,
        .base = free_place(base),
        .region_bytes = HARNESS_REGION, .block_off = region < 0 ? 0 : HARNESS_BLOCK, .channel_id = 5,
        .nr_devices = 2, .limits = { 1 << 20, 1 << 20 }, .group_fd = -1,
    };
    const char *driver = getenv("FAKE_DRIVER");

    CHECK(driver && !oh_load_driver(driver));
    _exit(oh_run(&config)); /* as the Python shell does: threads may be stuck */
}

static void fork_worker(struct client *c, uint64_t base)
{
    int s[2], k[2];

    CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
    CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, k));
    signal(SIGPIPE, SIG_IGN);
    c->worker = fork();
    CHECK(c->worker >= 0);
    if (c->worker == 0) {
        close(s[0]);
        close(k[0]);
        run_worker(c, s[1], k[1], base);
    }
    close(s[1]);
    close(k[1]);
    c->socket = s[0];
    c->control = k[0];
    alarm(240);
}

static void start_shared(struct client *c, int doorbell, bool polled)
{
    static const uint64_t bases[OC_NR_BASES] = OC_BASES;

    int listener = c->listener;

    memset(c, 0, sizeof(*c));
    c->listener = listener;
    c->doorbell = doorbell;
    c->polled = polled;
    c->region = memfd_create("region", MFD_CLOEXEC);
    CHECK(c->region >= 0 && !ftruncate(c->region, HARNESS_REGION));
    c->memory = mmap(NULL, HARNESS_REGION, PROT_READ | PROT_WRITE, MAP_SHARED, c->region, 0);
    CHECK(c->memory != MAP_FAILED);
    c->channel = (void *)(c->memory + HARNESS_BLOCK);
    oc_channel_init(c->channel, 5);
    c->p = (struct oc_producer){ .channel = c->channel, .lines = (uint8_t *)c->channel + OC_RING_OFF };
    fork_worker(c, bases[0]);
}

void client_start_kept(struct client *c)
{
    struct sockaddr_un any = { .sun_family = AF_UNIX };

    c->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(c->listener >= 0 && !bind(c->listener, (struct sockaddr *)&any, sizeof(any.sun_family)) && !listen(c->listener, 1));
    start_shared(c, -1, false);
}

void client_start(struct client *c)
{
    c->listener = -1;
    start_shared(c, -1, false);
}

void client_start_doorbell(struct client *c)
{
    int doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    CHECK(doorbell >= 0);
    c->listener = -1;
    start_shared(c, doorbell, false);
}

void client_start_polled(struct client *c)
{
    c->listener = -1;
    start_shared(c, -1, true);
}

void client_start_tcp(struct client *c)
{
    memset(c, 0, sizeof(*c));
    c->region = c->doorbell = c->listener = -1;
    c->memory = aligned_alloc(4096, OC_CHANNEL_BYTES);
    CHECK(c->memory);
    memset(c->memory, 0, OC_CHANNEL_BYTES);
    c->channel = (void *)c->memory;
    oc_channel_init(c->channel, 5);
    c->p = (struct oc_producer){ .channel = c->channel, .lines = c->memory + OC_RING_OFF };
    fork_worker(c, 0);
}

void client_wake(struct client *c)
{
    CHECK(send(c->socket, "\1", 1, MSG_NOSIGNAL) == 1 || errno == EPIPE || errno == ECONNRESET);
}

uint64_t client_post(struct client *c, uint32_t thread, uint32_t op, uint64_t value, uint32_t flags)
{
    struct oc_cmd *cmd;
    uint64_t seq;
    bool wake;

    pthread_mutex_lock(&lock);
    while (!(cmd = oc_ring_reserve(&c->p, 1)))
        sched_yield();
    cmd->op = (uint16_t)op;
    cmd->lines = 1;
    cmd->bytes = 8;
    cmd->thread = thread;
    cmd->flags = flags;
    memcpy(cmd->payload, &value, 8);
    wake = oc_ring_publish(&c->p, cmd, &seq);
    pthread_mutex_unlock(&lock);
    if (wake && !c->quiet && !c->polled)
        client_wake(c);
    return seq;
}

struct oc_slot *client_slot(struct client *c, uint32_t thread)
{
    return (struct oc_slot *)(void *)((uint8_t *)c->channel + OC_SLOTS_OFF) + thread;
}

bool client_wait(struct client *c, uint32_t thread, uint64_t seq, uint32_t ms)
{
    uint64_t until = test_now_ns() + ms * 1000000ull;

    while (atomic_load_explicit(&client_slot(c, thread)->done, memory_order_acquire) < seq) {
        if (test_now_ns() > until)
            return false;
        sched_yield();
    }
    return true;
}

int client_call(struct client *c, uint32_t thread, uint32_t op, uint64_t value)
{
    uint64_t seq = client_post(c, thread, op, value, OC_CMD_REPLY);

    CHECK(client_wait(c, thread, seq, 5000));
    return client_slot(c, thread)->result;
}

/* ThreadSanitizer would sleep a second before the worker's exit while any thread of it is still ending. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "atexit_sleep_ms=0";
}

int client_end(struct client *c, uint32_t ms)
{
    uint64_t until = test_now_ns() + ms * 1000000ull;
    int status;

    while (waitpid(c->worker, &status, WNOHANG) == 0) {
        if (test_now_ns() > until) {
            kill(c->worker, SIGKILL);
            return -1;
        }
        usleep(1000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
}

void client_close(struct client *c)
{
    close(c->socket);
    close(c->control);
    if (c->region < 0)
        free(c->memory);
    else
        munmap(c->memory, HARNESS_REGION);
}
