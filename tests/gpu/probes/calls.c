/* SPDX-License-Identifier: Apache-2.0 */
/* Which files, sockets and processes does the driver touch when processes share? A library to be preloaded: it writes what its program and the
 * libraries in it ask of the system, through libc, into $CALLS.<pid>. See run.sh. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void note(const char *format, ...)
{
    static int out = -1;
    char line[400];
    va_list ap;
    int n;

    if (out < 0) {
        snprintf(line, sizeof(line), "%s.%d", getenv("CALLS") ? getenv("CALLS") : "/tmp/calls", getpid());
        out = REAL(open)(line, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    }
    va_start(ap, format);
    n = vsnprintf(line, sizeof(line), format, ap);
    va_end(ap);
    if (n > 0 && write(out, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1) < 0)
        return;
}

#define OPENS(name)                                                                                     \
    int name(const char *path, int flags, ...)                                                          \
    {                                                                                                   \
        va_list ap;                                                                                     \
        int mode, fd;                                                                                   \
        va_start(ap, flags);                                                                            \
        mode = va_arg(ap, int);                                                                         \
        va_end(ap);                                                                                     \
        fd = REAL(name)(path, flags, mode);                                                             \
        if (flags & (O_WRONLY | O_RDWR | O_CREAT) || !strncmp(path, "/proc", 5) || !strncmp(path, "/dev", 4)) \
            note(#name " %s %#x %#o = %d\n", path, flags, flags & O_CREAT ? mode : 0, fd);              \
        return fd;                                                                                      \
    }
OPENS(open)
OPENS(open64)

int shm_open(const char *name, int flags, mode_t mode)
{
    int fd = REAL(shm_open)(name, flags, mode);

    note("shm_open %s %#x %#o = %d\n", name, flags, mode, fd);
    return fd;
}

int unlink(const char *path)
{
    note("unlink %s\n", path);
    return REAL(unlink)(path);
}

int socket(int domain, int type, int protocol)
{
    note("socket %d %#x %d\n", domain, type, protocol);
    return REAL(socket)(domain, type, protocol);
}

static void note_address(const char *what, const struct sockaddr *a, socklen_t bytes)
{
    const struct sockaddr_un *u = (const void *)a;

    if (a->sa_family == AF_UNIX && bytes > 2)
        note("%s %s%.*s\n", what, u->sun_path[0] ? "" : "@", (int)bytes - 3, u->sun_path + !u->sun_path[0]);
    else
        note("%s family %d\n", what, a->sa_family);
}

int bind(int fd, const struct sockaddr *a, socklen_t bytes)
{
    note_address("bind", a, bytes);
    return REAL(bind)(fd, a, bytes);
}

int connect(int fd, const struct sockaddr *a, socklen_t bytes)
{
    int r = REAL(connect)(fd, a, bytes);

    note_address("connect", a, bytes);
    return r;
}

int kill(pid_t pid, int sig)
{
    note("kill %d %d\n", pid, sig);
    return REAL(kill)(pid, sig);
}

int memfd_create(const char *name, unsigned flags)
{
    note("memfd_create %s %#x\n", name, flags);
    return REAL(memfd_create)(name, flags);
}

long syscall(long number, ...)
{
    long a[6];
    va_list ap;

    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    note("syscall %ld\n", number);
    return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
