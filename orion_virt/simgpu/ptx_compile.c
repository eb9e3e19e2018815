/* SPDX-License-Identifier: Apache-2.0 */
/* C to code: runs the system's compiler, keeps what it made in a directory of the user's own, by what was compiled. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ptx_compile.h"

#define NO_COMMAND 127 /* exit status of a shell that does not find it */

extern char **environ;

/* A file name for some text; the text itself is kept beside and compared, so that a collision does no harm. */
static uint64_t hash(const char *text, uint64_t h)
{
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3ull;
    return h;
}

/* The instruction set that the code may use: it runs on this machine only, but a home directory may be shared. */
static const char *machine(void)
{
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
        return "-march=x86-64-v4";
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") ? "-march=x86-64-v3" : NULL;
}

static bool make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        bool bad = mkdir(path, 0700) && errno != EEXIST;
        *slash = '/';
        if (bad)
            return false;
    }
    return !mkdir(path, 0700) || errno == EEXIST;
}

/* Code is loaded from there: nobody else may write to it. */
static bool trusted(const char *path)
{
    struct stat s;

    return !lstat(path, &s) && S_ISDIR(s.st_mode) && s.st_uid == geteuid() && !(s.st_mode & 022);
}

/* The directory of the cache; false: there is none that may be used. */
static bool cache_folder(char *path, size_t room, char *why, size_t why_bytes)
{
    const char *own = secure_getenv("ORION_SIM_CACHE"), *base = secure_getenv("XDG_CACHE_HOME"), *home = secure_getenv("HOME");
    int n = own && *own ? snprintf(path, room, "%s", own) : base && *base ? snprintf(path, room, "%s/orion-virt/simgpu", base)
            : home && *home ? snprintf(path, room, "%s/.cache/orion-virt/simgpu", home) : 0;

    *why = 0;
    if (n <= 0 || (size_t)n >= room || *path != '/')
        return false;
    if (!make_folders(path)) {
        snprintf(why, why_bytes, "cannot make %s (%s)", path, strerror(errno));
        return false;
    }
    if (trusted(path))
        return true;
    snprintf(why, why_bytes, "%s is not a directory of this user alone (chmod 700)", path);
    return false;
}

/* ---- a directory for once, where there is no cache: in /tmp, locked by its maker while that lives ---- */
#define ONCE "orion-simgpu."
#define ONCE_SECONDS 60 /* to lock it */

static void empty(int folder)
{
    int copy = dup(folder);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);

    for (struct dirent *e; d && (e = readdir(d)) != NULL;)
        unlinkat(folder, e->d_name, 0); /* "." and ".." are no files */
    if (d)
        closedir(d);
    else if (copy >= 0)
        close(copy);
}

/* Removes those whose makers were killed. */
static void sweep(void)
{
    DIR *tmp = opendir("/tmp");
    struct stat s;

    for (struct dirent *e; tmp && (e = readdir(tmp)) != NULL;) {
        if (strncmp(e->d_name, ONCE, strlen(ONCE)))
            continue;
        int fd = openat(dirfd(tmp), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (!fstat(fd, &s) && (s.st_uid == geteuid() || !geteuid()) && time(NULL) - s.st_mtime > ONCE_SECONDS && !flock(fd, LOCK_EX | LOCK_NB)) {
            empty(fd);
            unlinkat(dirfd(tmp), e->d_name, AT_REMOVEDIR);
        }
        close(fd);
    }
    if (tmp)
        closedir(tmp);
}

/* Its descriptor, -1: there is none. */
static int once_begin(char *path, size_t room)
{
    int fd;

    sweep();
    snprintf(path, room, "/tmp/" ONCE "XXXXXX");
    if (!mkdtemp(path))
        return -1;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB))
        return fd;
    if (fd >= 0)
        close(fd);
    rmdir(path);
    return -1;
}

static void once_end(int fd, const char *path)
{
    empty(fd);
    rmdir(path);
    close(fd);
}

static bool same_text(const char *path, const char *text)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    char piece[4096];
    ssize_t got;
    bool same = fd >= 0;

    while (same && (got = read(fd, piece, sizeof(piece))) != 0) {
        same = got > 0 && !strncmp(piece, text, (size_t)got) && strlen(text) >= (size_t)got;
        text += same ? got : 0;
    }
    if (fd >= 0)
        close(fd);
    return same && !*text;
}

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    size_t left = strlen(text);
    ssize_t wrote = 1;

    if (fd < 0)
        return false;
    for (; left && wrote > 0; left -= (size_t)wrote, text += wrote)
        wrote = write(fd, text, left);
    return !close(fd) && !left;
}

/* Starts the compiler, whose standard input is `alive`: the end of a pipe that closes when this process ends, however it
 * does. Then the compiler ends too and what it made goes. */
static int start_compiler(const char *source, const char *made, int alive, pid_t *pid)
{
    static char guard[] = "exec 3<&0 </dev/null; { trap '' TERM; read -r end <&3; kill -TERM 0; rm -f -- \"$0\" \"$1\"; } & "
                          "shift; cc \"$@\" 3<&-; status=$?; kill -KILL $!; wait $!; exit $status";
    const char *march = machine();
    char *argv[] = { "sh", "-c", guard, (char *)source, (char *)made, "-x", "c", "-std=gnu11", "-O3", "-w", "-fPIC", "-shared",
                     "-nostdlib", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing", "-fwrapv",
                     "-fno-stack-protector", "-o", (char *)made, (char *)source, (char *)march, NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    int failed;

    if (posix_spawn_file_actions_init(&actions))
        return -1;
    posix_spawnattr_init(&attributes);
    sigemptyset(&none);
    sigfillset(&all);
    /* a group of its own, to be killed as one; none of this process's files and signal settings */
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawn_file_actions_adddup2(&actions, alive, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
#if __GLIBC_PREREQ(2, 34)
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
#endif
    failed = posix_spawn(pid, "/bin/sh", &actions, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return failed;
}

/* The compiler's wait status, -1: it could not be started. */
static int run_compiler(const char *source, const char *made, _Atomic int *child)
{
    int alive[2], status = -1, failed;
    pid_t pid;

    if (pipe2(alive, O_CLOEXEC))
        return -1;
    failed = start_compiler(source, made, alive[0], &pid);
    close(alive[0]);
    if (!failed) {
        *child = pid;
        while (waitpid(pid, &status, 0) < 0)
            if (errno != EINTR) { /* the process does not keep its children's ends: what was made tells */
                status = 0;
                break;
            }
        *child = 0;
        if (WIFEXITED(status) && WEXITSTATUS(status) == NO_COMMAND)
            status = -1;
    }
    close(alive[1]);
    return status;
}

static void *load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    return library && dlsym(library, "ptx_translated") ? library : NULL;
}

/* What is being made, removed when the process ends before it is done. */
#define MAKING_MAX 16
static struct {
    _Atomic int taken;
    _Atomic int *child;
    char source[520], made[520];
} making[MAKING_MAX];

static int begin_making(const char *source, const char *made, _Atomic int *child)
{
    for (int k = 0; k < MAKING_MAX; k++) {
        int none = 0;
        if (!__atomic_compare_exchange_n((int *)&making[k].taken, &none, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            continue;
        snprintf(making[k].source, sizeof(making[k].source), "%s", source);
        snprintf(making[k].made, sizeof(making[k].made), "%s", made);
        making[k].child = child;
        making[k].taken = 2;
        return k;
    }
    return -1;
}

static void end_making(int k, const char *source, const char *made)
{
    unlink(source);
    unlink(made);
    if (k >= 0)
        making[k].taken = 0;
}

__attribute__((destructor)) static void stop_making(void)
{
    for (int k = 0; k < MAKING_MAX; k++) {
        if (making[k].taken != 2)
            continue;
        int child = *making[k].child;
        if (child > 0)
            kill(-child, SIGKILL);
        unlink(making[k].source);
        unlink(making[k].made);
        *strrchr(making[k].source, '/') = 0;
        rmdir(making[k].source); /* a folder of its own; the cache has something in it, or is made anew */
    }
}

static void explain(int status, const char *source, char *why, size_t why_bytes)
{
    const char *loading = dlerror();

    *why = 0;
    if (status > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return; /* by us, since nobody needs the code any more */
    if (status == -1)
        snprintf(why, why_bytes, "the C compiler, cc, could not be started");
    else if (status == -2)
        snprintf(why, why_bytes, "%s could not be written", source);
    else if (status)
        snprintf(why, why_bytes, "the C compiler failed on %s", source);
    else
        snprintf(why, why_bytes, "what the C compiler made cannot be loaded (%s)", loading ? loading : "it is gone");
}

void *ptx_compile(const char *text, _Atomic int *child, char *why, size_t why_bytes)
{
    static _Atomic unsigned count;
    char folder[400], source[480], made[480], new_source[520], new_made[520], no_cache[480];
    bool cached = cache_folder(folder, sizeof(folder), no_cache, sizeof(no_cache));
    const char *march = machine();
    uint64_t name = hash(march ? march : "", hash(text, 0xcbf29ce484222325ull));
    void *library = NULL;
    int once = -1;

    if (!march) /* fused products need the machine's own */
        return snprintf(why, why_bytes, "this CPU lacks AVX2 and FMA"), NULL;
    if (!cached) {
        once = once_begin(folder, sizeof(folder));
        if (once < 0)
            return snprintf(why, why_bytes, "%s, and no directory in /tmp", *no_cache ? no_cache : "no HOME"), NULL;
    }
    snprintf(source, sizeof(source), "%s/%016llx.c", folder, (unsigned long long)name);
    snprintf(made, sizeof(made), "%s/%016llx.so", folder, (unsigned long long)name);
    if (cached && same_text(source, text) && (library = load(made)))
        return library;
    snprintf(new_source, sizeof(new_source), "%s.%d.%u", source, (int)getpid(), ++count);
    snprintf(new_made, sizeof(new_made), "%s.%d.%u", made, (int)getpid(), count);
    int number = begin_making(new_source, new_made, child);
    int status = write_text(new_source, text) ? run_compiler(new_source, new_made, child) : -2;
    if (!status && !rename(new_made, made) && !rename(new_source, source))
        library = load(made);
    if (!library)
        explain(status, source, why, why_bytes);
    else if (!cached && *no_cache)
        snprintf(why, why_bytes, "%s", no_cache);
    end_making(number, new_source, new_made);
    if (!cached)
        once_end(once, folder);
    return library;
}
