/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's side of the mailbox against a host that echoes: mailbox DIR case. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core.h"
#include "check.h"

struct og_region og_shared_region = { .fd = -1 };

static struct oc_mailbox *box;
static _Atomic bool lies; /* the host sends a packet that is too long */

static void make_region(void)
{
    int fd = memfd_create("region", 0);
    uint8_t *p;

    CHECK(fd >= 0 && !ftruncate(fd, OC_EXTENT_BYTES));
    p = mmap(NULL, OC_EXTENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    box = (void *)(p + OC_MAILBOX_OFF);
    og_shared_region.base = p;
    og_shared_region.header.features = OC_FEATURE_MAILBOX;
    og_shared_region.header.header_bytes = OC_HEADER_BYTES;
    snprintf(og_shared_region.path, sizeof(og_shared_region.path), "/proc/%d/fd/%d", getpid(), fd);
    CHECK(og_mailbox_there());
}

static void serve_slot(struct oc_mail_slot *s)
{
    uint32_t n = atomic_load(&s->opening);

    if (!atomic_load(&s->owner))
        return;
    if (n != atomic_load(&s->opened)) {
        CHECK(n >= 1 && n <= 255 && s->epoch == box->epoch && s->service == OC_MAIL_SERVER && s->guest_boot);
        s->host_seq = s->host_ack = s->host_fin = 0;
        atomic_store(&s->opened, n);
        return;
    }
    if (atomic_load(&s->ack) != s->host_seq)
        return; /* it has not taken our last packet */
    if (atomic_load(&s->seq) != s->host_ack) {
        CHECK(s->bytes && s->bytes <= OC_MAIL_DATA);
        memcpy(s->to_guest, s->to_host, s->bytes);
        s->host_bytes = atomic_load(&lies) ? OC_MAIL_DATA + 1 : s->bytes;
        atomic_store(&s->host_seq, (s->host_seq + 1) & 255);
        atomic_store(&s->host_ack, s->seq);
    } else if (atomic_load(&s->fin)) {
        atomic_store(&s->host_fin, 1);
    }
}

static void *host(void *unused)
{
    for (;;) {
        for (unsigned i = 0; i < OC_MAIL_SLOTS; i++)
            serve_slot(&box->slot[i]);
        usleep(100);
    }
    return unused;
}

static void start_host(void)
{
    pthread_t t;

    atomic_store(&box->epoch, 7);
    CHECK(!pthread_create(&t, NULL, host, NULL));
}

static int dial(void)
{
    struct og_why why;
    int fd = og_mailbox_dial(OC_MAIL_SERVER, 5000, &why);

    if (fd < 0)
        fprintf(stderr, "%s\n", why.text);
    CHECK(fd >= 0);
    return fd;
}

static unsigned owned(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < OC_MAIL_SLOTS; i++)
        n += atomic_load(&box->slot[i].owner) != 0;
    return n;
}

static void until_owned(unsigned n)
{
    for (int i = 0; owned() != n; i++) {
        CHECK(i < 10000);
        usleep(1000);
    }
}

static bool at_end(int fd)
{
    char c;
    ssize_t n = recv(fd, &c, 1, 0);

    return n <= 0;
}

static void echo(int fd, size_t bytes)
{
    static uint8_t to[100000], from[100000];

    for (size_t i = 0; i < bytes; i++)
        to[i] = (uint8_t)(i * 7 + bytes);
    CHECK(og_send_all(fd, to, bytes));
    CHECK(recv(fd, from, bytes, MSG_WAITALL) == (ssize_t)bytes && !memcmp(to, from, bytes));
}

static void carries(void)
{
    int a, b;

    start_host();
    a = dial();
    b = dial();
    CHECK(owned() == 2);
    echo(a, 1);
    echo(b, OC_MAIL_DATA + 1);
    echo(a, 60000); /* numbers wrap */
    shutdown(a, SHUT_WR);
    CHECK(at_end(a));
    close(a);
    until_owned(1);
    close(b);
    until_owned(0);
    for (int i = 0; i < 600; i++) { /* numbers of openings wrap too */
        a = dial();
        close(a);
    }
    until_owned(0);
}

static void ends(void)
{
    int fd;

    start_host();
    fd = dial();
    echo(fd, 10);
    atomic_store(&box->epoch, 8);
    CHECK(at_end(fd));
    until_owned(0);
    close(fd);
    fd = dial(); /* the new epoch is served */
    atomic_store(&lies, true);
    CHECK(og_send_all(fd, "x", 1) && at_end(fd));
    until_owned(0);
}

static void nobody_serves(void)
{
    struct og_why why;

    CHECK(og_mailbox_dial(OC_MAIL_SERVER, 1000, &why) < 0 && strstr(why.text, "oriond does not answer"));
    atomic_store(&box->epoch, 9); /* a daemon that was killed */
    CHECK(og_mailbox_dial(OC_MAIL_SERVER, 1000, &why) < 0 && strstr(why.text, "oriond does not answer"));
    CHECK(owned() == 0);
}

static void all_taken(void)
{
    struct og_why why;

    start_host();
    for (unsigned i = 0; i < OC_MAIL_SLOTS; i++)
        dial();
    CHECK(owned() == OC_MAIL_SLOTS);
    CHECK(og_mailbox_dial(OC_MAIL_SERVER, 1000, &why) < 0 && strstr(why.text, "all 63 places"));
}

static void owner_dies(void)
{
    int pipe_fd[2], fd;
    char c;
    pid_t child;

    atomic_store(&box->epoch, 7);
    CHECK(!pipe(pipe_fd));
    child = fork();
    if (!child) {
        start_host();
        dial();
        CHECK(write(pipe_fd[1], "x", 1) == 1);
        pause();
    }
    CHECK(read(pipe_fd[0], &c, 1) == 1 && owned() == 1);
    CHECK(!kill(child, SIGKILL) && waitpid(child, NULL, 0) == child);
    for (unsigned i = 0; i < OC_MAIL_SLOTS; i++)
        CHECK(!box->slot[i].owner || box->slot[i].owner == OC_OWNER_DIED);
    CHECK(owned() == 1);
    start_host();
    fd = dial(); /* the others' places serve on */
    echo(fd, 10);
}

static void child_of_a_fork(void)
{
    int fd, status;
    pid_t child;

    start_host();
    fd = dial();
    child = fork();
    if (!child) {
        close(fd);
        og_mailbox_after_fork();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && !status);
    echo(fd, 10);
    child = fork(); /* one that holds on to everything */
    if (!child) {
        pause();
        _exit(0);
    }
    shutdown(fd, SHUT_WR);
    CHECK(at_end(fd));
    until_owned(0);
    kill(child, SIGKILL);
    CHECK(waitpid(child, &status, 0) == child);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {
        { "carries", carries }, { "ends", ends }, { "nobody-serves", nobody_serves }, { "all-taken", all_taken },
        { "owner-dies", owner_dies }, { "child-of-a-fork", child_of_a_fork },
    };

    make_region();
    for (unsigned i = 0; argc == 2 && i < sizeof(cases) / sizeof(cases[0]); i++)
        if (!strcmp(argv[1], cases[i].name)) {
            cases[i].run();
            return 0;
        }
    return 2;
}
