/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon ends and another comes: commands run meanwhile, what was asked is asked again, what there is is told once. */
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "executor.h"
#include "harness.h"

#define OFF (4 * OC_EXTENT_BYTES)

static struct client c;

static bool has_ended(void)
{
    siginfo_t info = { .si_pid = 0 };

    return !waitid(P_PID, (id_t)c.worker, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid == c.worker;
}

static int meet(void)
{
    struct sockaddr_un to;
    socklen_t bytes = sizeof(to);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0 && !getsockname(c.listener, (struct sockaddr *)&to, &bytes));
    CHECK(!connect(fd, (struct sockaddr *)&to, bytes));
    return fd;
}

static void say(uint32_t kind, uint64_t a, uint64_t b)
{
    struct oh_control m = { .kind = kind, .a = a, .b = b };

    CHECK(send(c.control, &m, sizeof(m), MSG_NOSIGNAL) == sizeof(m));
}

/* The next datagram but those of use and progress; its descriptor is closed. */
static struct oh_control hear(void)
{
    struct oh_control m;
    char room[CMSG_SPACE(sizeof(int))];
    int fd;

    do {
        struct iovec piece = { &m, sizeof(m) };
        struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };

        CHECK(recvmsg(c.control, &message, MSG_CMSG_CLOEXEC) == sizeof(m));
        if (CMSG_FIRSTHDR(&message)) {
            memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
            close(fd);
        }
    } while (m.kind == OH_USAGE || m.kind == OH_PROGRESS);
    return m;
}

static bool is(struct oh_control m, uint32_t kind, uint64_t a, uint64_t b)
{
    return m.kind == kind && m.a == a && m.b == b;
}

/* Another daemon. The worker hangs up on who comes before it has seen the end of the one before. */
static void another(uint64_t protocol)
{
    struct oh_control m = { .kind = OH_RESUME, .a = protocol };
    struct pollfd p = { .events = POLLIN };
    char byte;

    close(c.control);
    for (;;) {
        p.fd = c.control = meet();
        (void)!send(c.control, &m, sizeof(m), MSG_NOSIGNAL);
        while (!poll(&p, 1, 20) && !has_ended()) /* the listener is ours too: nobody may come to it */
            ;
        if (has_ended() || recv(c.control, &byte, 1, MSG_PEEK) > 0)
            return;
        close(c.control);
    }
}

int main(void)
{
    uint64_t seq;

    client_start_kept(&c);
    seq = client_post(&c, 0, OW_OP_orion_grant, 1, OC_CMD_REPLY);
    CHECK(is(hear(), OH_GRANT, 1, 0));
    say(OH_GRANT, OFF, OC_EXTENT_BYTES);
    CHECK(client_wait(&c, 0, seq, 5000) && client_slot(&c, 0)->result == 0);

    seq = client_post(&c, 0, OW_OP_orion_grant, 2, OC_CMD_REPLY);
    CHECK(is(hear(), OH_GRANT, 2, 0));
    shutdown(c.control, SHUT_RDWR); /* without an answer */
    for (int i = 0; i < 100; i++)
        CHECK(client_call(&c, 1, OW_OP_orion_ping, 1) == 0);
    CHECK(!client_wait(&c, 0, seq, 50));
    another(OH_PROTOCOL);
    for (int told = 0, asked = 0; told < 4 || !asked;) { /* the question may come between */
        struct oh_control m = hear();

        if (m.kind == OH_GRANT) {
            CHECK(is(m, OH_GRANT, 2, 0) && !asked++);
            continue;
        }
        CHECK(told != 0 || m.kind == OH_HAVE_CLIENT);
        CHECK(told != 1 || is(m, OH_HAVE_EXTENT, HARNESS_BLOCK, OC_CHANNEL_BYTES));
        CHECK(told != 2 || is(m, OH_HAVE_EXTENT, OFF, OC_EXTENT_BYTES));
        CHECK(told != 3 || is(m, OH_RESUME, OH_PROTOCOL, 0));
        told++;
    }
    say(OH_GRANT, OFF + OC_EXTENT_BYTES, OC_EXTENT_BYTES);
    CHECK(client_wait(&c, 0, seq, 5000) && client_slot(&c, 0)->result == 0);

    another(OH_PROTOCOL + 1);
    CHECK(client_end(&c, 20000) == OC_CLOSED_SERVER);
    client_close(&c);
    return 0;
}
