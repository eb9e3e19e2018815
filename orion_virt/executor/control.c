/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams to and from the daemon: grants of region memory, usage, orders to stop. */
#include <errno.h>
#include <sys/socket.h>

#include "loop.h"

#define ANSWER_SECONDS 10
#define USAGE_NS 900000000u /* below the watcher's tick, so that every tick may tell */

static pthread_mutex_t call_lock = PTHREAD_MUTEX_INITIALIZER; /* one request at a time */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static bool have_answer;
static struct oh_control answer;

static int send_control(const struct oh_control *m)
{
    ssize_t n;

    do
        n = send(oh_config.control_fd, m, sizeof(*m), MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

void oh_control_tell(const struct oh_control *m)
{
    int err = send_control(m);

    if (err && err != -EAGAIN)
        oh_log("message %u to the daemon was lost: %s", m->kind, strerror(-err));
}

static int await_answer(struct oh_control *m)
{
    struct timespec until;
    int err = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ANSWER_SECONDS;
    pthread_mutex_lock(&lock);
    while (!have_answer && !err && !atomic_load(&oh_ending))
        err = pthread_cond_timedwait(&answered, &lock, &until);
    if (have_answer)
        *m = answer;
    err = have_answer ? 0 : -ETIMEDOUT;
    pthread_mutex_unlock(&lock);
    return err;
}

/* An answer that comes after its caller gave up would be taken for the next one: end instead. */
int oh_control_call(struct oh_control *m)
{
    int err;

    pthread_mutex_lock(&call_lock);
    pthread_mutex_lock(&lock);
    have_answer = false;
    pthread_mutex_unlock(&lock);
    err = send_control(m);
    if (!err) {
        err = await_answer(m);
        if (err)
            oh_end(OC_CLOSED_SERVER, "the daemon did not answer within %d s", ANSWER_SECONDS);
    }
    pthread_mutex_unlock(&call_lock);
    return err ? err : m->status;
}

static void handle(const struct oh_control *m)
{
    switch (m->kind) {
    case OH_GRANT:
        pthread_mutex_lock(&lock);
        answer = *m;
        have_answer = true;
        pthread_cond_broadcast(&answered);
        pthread_mutex_unlock(&lock);
        break;
    case OH_STOP:
        oh_end(m->a > OC_OPEN && m->a <= OC_CLOSED_SERVER ? (enum oc_close)m->a : OC_CLOSED_SERVER,
               "the daemon ended the channel%s%.200s", m->text[0] ? ": " : "", m->text);
        break;
    default:
        oh_log("unknown message %u from the daemon", m->kind);
    }
}

int oh_control_read(void)
{
    struct oh_control m;
    ssize_t n = recv(oh_config.control_fd, &m, sizeof(m), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 1;
    if (n <= 0)
        return 0;
    m.text[sizeof(m.text) - 1] = 0;
    if (n == sizeof(m))
        handle(&m);
    else
        oh_log("message of %zd bytes from the daemon, %zu expected", n, sizeof(m));
    return 1;
}

void oh_control_usage(void)
{
    static uint64_t told[OC_MAX_DEVICES], told_at_ns;
    uint64_t now = oh_now_ns();

    if (now - told_at_ns < USAGE_NS)
        return;
    told_at_ns = now;
    for (uint32_t i = 0; i < oh_nr_devices; i++) {
        uint64_t used = atomic_load_explicit(&oh_devices[i].used_bytes, memory_order_relaxed);
        struct oh_control m = { .kind = OH_USAGE, .a = i, .b = used };

        if (used == told[i])
            continue;
        told[i] = used;
        oh_control_tell(&m);
    }
}
