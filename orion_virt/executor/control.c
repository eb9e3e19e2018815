/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams to and from the daemon: grants of region memory, usage, orders to stop. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "extra.h"
#include "loop.h"
#include "turn.h"

#define ANSWER_SECONDS 10
#define LONG_NS 1000000000u  /* a kernel that runs for so long is told of */
#define USAGE_NS 900000000u /* below the watcher's tick, so that every tick may tell */

_Atomic uint64_t oh_nr_commands, oh_bytes_copied;
int (*oh_running)(char *name, size_t room, uint64_t *done, uint64_t *blocks, uint64_t *ns);

static pthread_mutex_t call_lock = PTHREAD_MUTEX_INITIALIZER; /* one request at a time */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static bool have_answer, down;
static _Atomic uint64_t daemons; /* that came after the first */
static _Thread_local uint64_t answered_by; /* its number when this thread got its last answer */
static struct oh_control answer;
static int answer_fd = -1;
void (*_Atomic oh_control_own)(const struct oh_control *m);

union descriptor { /* room for one, in a control message */
    char room[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

static int send_control(const struct oh_control *m, int fd)
{
    union descriptor control = { .room = { 0 } };
    struct iovec piece = { (void *)(uintptr_t)m, sizeof(*m) };
    struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
    ssize_t n;

    if (fd >= 0) {
        struct cmsghdr *c;

        message.msg_control = control.room;
        message.msg_controllen = sizeof(control.room);
        c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    do
        n = sendmsg(oh_config.control_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

static bool is_lost(int err)
{
    return err == -EPIPE || err == -ECONNRESET || err == -ENOTCONN;
}

void oh_control_tell(const struct oh_control *m)
{
    int err = send_control(m, -1);

    if (err && err != -EAGAIN && !is_lost(err))
        oh_log("message %u to the daemon was lost: %s", m->kind, strerror(-err));
}

bool oh_control_have(const struct oh_control *m, int fd)
{
    struct pollfd p = { .fd = oh_config.control_fd, .events = POLLOUT };
    int err;

    while ((err = send_control(m, fd)) == -EAGAIN && !atomic_load(&oh_ending))
        poll(&p, 1, 100);
    return !err;
}

/* ---- requests; while there is no daemon they wait for the next one, whom they are put to again ---- */

void oh_control_down(void)
{
    pthread_mutex_lock(&lock);
    down = true;
    pthread_mutex_unlock(&lock);
}

void oh_control_up(void)
{
    pthread_mutex_lock(&lock);
    down = false;
    atomic_fetch_add(&daemons, 1);
    pthread_cond_broadcast(&answered);
    pthread_mutex_unlock(&lock);
}

bool oh_control_stale(void)
{
    return answered_by != atomic_load(&daemons);
}

static void seconds_from_now(struct timespec *until, unsigned seconds)
{
    clock_gettime(CLOCK_REALTIME, until);
    until->tv_sec += seconds;
}

/* Without a daemon there is no limit here: the watcher ends the channel when none has come for too long. */
static int await_answer(struct oh_control *m, int *got, uint64_t asked)
{
    struct timespec until;
    int err = 0;

    seconds_from_now(&until, ANSWER_SECONDS);
    pthread_mutex_lock(&lock);
    while (!have_answer && asked == atomic_load(&daemons) && (!err || down) && !atomic_load(&oh_ending)) {
        if (err)
            seconds_from_now(&until, 1);
        err = pthread_cond_timedwait(&answered, &lock, &until);
    }
    if (have_answer) {
        *m = answer;
        *got = answer_fd;
        answer_fd = -1;
        answered_by = asked;
        err = 0;
    } else {
        err = asked == atomic_load(&daemons) ? -ETIMEDOUT : -ERESTART;
    }
    pthread_mutex_unlock(&lock);
    return err;
}

/* Waits for a daemon; returns its number. */
static uint64_t expect_answer(void)
{
    struct timespec until;
    uint64_t asked;

    pthread_mutex_lock(&lock);
    while (down && !atomic_load(&oh_ending)) {
        seconds_from_now(&until, 1);
        pthread_cond_timedwait(&answered, &lock, &until);
    }
    asked = atomic_load(&daemons);
    have_answer = false;
    pthread_mutex_unlock(&lock);
    return asked;
}

/* An answer that comes after its caller gave up would be taken for the next one: end instead. */
int oh_control_call_fd(struct oh_control *m, int fd, int *got)
{
    struct oh_control request = *m;
    int err;

    *got = -1;
    pthread_mutex_lock(&call_lock);
    do {
        uint64_t asked = expect_answer();

        err = send_control(&request, fd);
        if (!err || is_lost(err)) {
            err = await_answer(m, got, asked);
            if (err == -ETIMEDOUT)
                oh_end(OC_CLOSED_SERVER, "the daemon did not answer within %d s", ANSWER_SECONDS);
        }
    } while (err == -ERESTART);
    pthread_mutex_unlock(&call_lock);
    return err ? err : m->status;
}

int oh_control_call(struct oh_control *m)
{
    int got, err = oh_control_call_fd(m, -1, &got);

    if (got >= 0)
        close(got);
    return err;
}

static void handle(const struct oh_control *m, int fd)
{
    switch (m->kind) {
    case OH_GRANT:
    case OH_SHARE:
    case OH_OPEN:
    case OH_UNSHARE:
    case OH_PAGES:
    case OH_PAGES_FILLED:
    case OH_PAGES_END:
        pthread_mutex_lock(&lock);
        if (answer_fd >= 0)
            close(answer_fd);
        answer_fd = fd;
        answer = *m;
        have_answer = true;
        pthread_cond_broadcast(&answered);
        pthread_mutex_unlock(&lock);
        return;
    case OH_OWN:
        if (atomic_load(&oh_control_own))
            atomic_load(&oh_control_own)(m);
        break;
    case OH_TURN:
        oh_turn_order(m);
        break;
    case OH_RESUME:
        oh_resume_begin(m);
        break;
    case OH_CLIENT:
        oh_watch_client(fd);
        return;
    case OH_STOP:
        oh_end(m->a > OC_OPEN && m->a <= OC_CLOSED_SERVER ? (enum oc_close)m->a : OC_CLOSED_SERVER,
               "the daemon ended the channel%s%.200s", m->text[0] ? ": " : "", m->text);
        break;
    default:
        oh_log("unknown message %u from the daemon", m->kind);
    }
    if (fd >= 0)
        close(fd);
}

int oh_control_read(void)
{
    struct oh_control m;
    union descriptor control;
    struct iovec piece = { &m, sizeof(m) };
    struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.room,
                              .msg_controllen = sizeof(control.room) };
    ssize_t n = recvmsg(oh_config.control_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    int fd = -1;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 1;
    if (n <= 0)
        return 0;
    if (message.msg_controllen && CMSG_FIRSTHDR(&message)->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    m.text[sizeof(m.text) - 1] = 0;
    if (n == sizeof(m)) {
        handle(&m, fd);
        return 1;
    }
    oh_log("message of %zd bytes from the daemon, %zu expected", n, sizeof(m));
    if (fd >= 0)
        close(fd);
    return 1;
}

void oh_control_progress(void)
{
    static uint64_t told, told_whom;
    struct oh_control m = {
        .kind = OH_PROGRESS,
        .a = atomic_load_explicit(&oh_nr_commands, memory_order_relaxed),
        .b = atomic_load_explicit(&oh_bytes_copied, memory_order_relaxed),
    };

    if (m.a == told && told_whom == atomic_load(&daemons))
        return;
    told = m.a;
    told_whom = atomic_load(&daemons);
    oh_control_tell(&m);
}

static void tell_kernel(void)
{
    static bool told;
    struct oh_control m = { .kind = OH_KERNEL };
    uint64_t ns = 0;
    bool running = oh_running && oh_running(m.text, sizeof(m.text), &m.a, &m.b, &ns) && ns >= LONG_NS;

    if (!running && !told)
        return;
    if (running)
        m.status = ns / 1000000000u > INT32_MAX ? INT32_MAX : (int32_t)(ns / 1000000000u);
    else
        m = (struct oh_control){ .kind = OH_KERNEL };
    told = running;
    oh_control_tell(&m);
}

void oh_control_usage(void)
{
    static uint64_t told[OC_MAX_DEVICES], told_at_ns, told_whom;
    static int32_t told_how = -1;
    int32_t how = oh_extra_how();
    uint64_t now = oh_now_ns();

    if (now - told_at_ns < USAGE_NS)
        return;
    told_at_ns = now;
    if (told_whom != atomic_load(&daemons)) /* a new one knows of nothing */
        memset(told, 0, sizeof(told)), told_how = -1;
    told_whom = atomic_load(&daemons);
    oh_control_progress();
    tell_kernel();
    for (uint32_t i = 0; i < oh_nr_devices; i++) {
        uint64_t used = atomic_load_explicit(oh_devices[i].used_bytes, memory_order_relaxed);
        struct oh_control m = { .kind = OH_USAGE, .status = how, .a = i, .b = used };

        if (used == told[i] && how == told_how)
            continue;
        told[i] = used;
        oh_control_tell(&m);
    }
    told_how = how;
}
