/* SPDX-License-Identifier: Apache-2.0 */
/* Lines for people: the client's log file, and stderr for what ends something. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core.h"

#define LINE_BYTES 1024
#define FILE_LIMIT_BYTES (8 << 20) /* then it becomes client.log.1 */

static const char *const level_names[] = { "DEBUG", "INFO", "WARNING", "ERROR", "NONE" };
static _Atomic int file_lock;
static int file_fd = -1;
static bool file_failed;

/* ORION_LOG moves the log's folder here as it does for the daemons. */
static bool folder(char *to, size_t room)
{
    const char *moved = secure_getenv("ORION_LOG"), *home = secure_getenv("HOME");

    if (moved && *moved == '/')
        return snprintf(to, room, "%s", moved) < (int)room;
    if (!home || *home != '/' || snprintf(to, room, "%s/.orion", home) >= (int)room)
        return false;
    mkdir(to, 0700);
    return snprintf(to, room, "%s/.orion/log", home) < (int)room;
}

static int open_file(void)
{
    char dir[400], path[440], old[450];
    struct stat st;

    if (!folder(dir, sizeof(dir)) || (mkdir(dir, 0700) != 0 && errno != EEXIST))
        return -1;
    snprintf(path, sizeof(path), "%s/client.log", dir);
    snprintf(old, sizeof(old), "%s.1", path);
    if (stat(path, &st) == 0 && st.st_size > FILE_LIMIT_BYTES)
        rename(path, old);
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);
}

static void write_line(int fd, const char *line, size_t bytes)
{
    ssize_t done = write(fd, line, bytes);

    (void)done; /* nobody to tell */
}

static size_t now_text(char *to, size_t room)
{
    time_t now = time(NULL);
    struct tm tm;

    return localtime_r(&now, &tm) ? strftime(to, room, "%Y-%m-%d %H:%M:%S ", &tm) : 0;
}

/* The prefix, the text on one line, a newline; returns its length. */
static size_t compose(char line[LINE_BYTES], bool with_time, const char *prefix, const char *format, va_list args)
{
    size_t at = with_time ? now_text(line, LINE_BYTES) : 0;
    int n;

    at += (size_t)snprintf(line + at, LINE_BYTES - at, "%s", prefix);
    n = vsnprintf(line + at, LINE_BYTES - at - 1, format, args);
    for (size_t i = at; n > 0 && line[i]; i++)
        if ((unsigned char)line[i] < ' ')
            line[i] = ' ';
    at = strlen(line);
    line[at++] = '\n';
    return at;
}

static void to_file(enum og_level level, const char *format, va_list args)
{
    char line[LINE_BYTES], prefix[48];
    size_t bytes;

    if (!og_settings.log_to_file || level < og_settings.file_level)
        return;
    snprintf(prefix, sizeof(prefix), "[%s] %ld: ", level_names[level], (long)getpid());
    bytes = compose(line, og_settings.log_with_time, prefix, format, args);
    og_lock(&file_lock);
    if (file_fd < 0 && !file_failed) {
        file_fd = open_file();
        file_failed = file_fd < 0;
    }
    if (file_fd >= 0)
        write_line(file_fd, line, bytes);
    og_unlock(&file_lock);
}

void og_log_at(enum og_level level, const char *format, ...)
{
    int saved = errno;
    va_list args;

    va_start(args, format);
    to_file(level, format, args);
    va_end(args);
    errno = saved;
}

void og_log(const char *format, ...)
{
    int saved = errno;
    va_list args;

    va_start(args, format);
    to_file(OG_INFO, format, args);
    va_end(args);
    errno = saved;
}

void og_say(const char *format, ...)
{
    int saved = errno;
    char line[LINE_BYTES];
    va_list args;

    va_start(args, format);
    to_file(OG_ERROR, format, args);
    va_end(args);
    if (og_settings.level <= OG_ERROR) {
        va_start(args, format);
        write_line(STDERR_FILENO, line, compose(line, false, "orion: ", format, args));
        va_end(args);
    }
    errno = saved;
}

void og_announce(bool with_time, const char *format, ...)
{
    int saved = errno;
    char line[LINE_BYTES];
    va_list args;

    va_start(args, format);
    to_file(OG_INFO, format, args);
    va_end(args);
    if (og_settings.log_to_screen && og_settings.level <= OG_INFO) {
        va_start(args, format);
        write_line(STDERR_FILENO, line,
                   compose(line, with_time && og_settings.log_with_time, with_time ? "[INFO] " : "", format, args));
        va_end(args);
    }
    errno = saved;
}

/* Another thread of the parent may have held the lock. */
void og_log_after_fork(void)
{
    atomic_store_explicit(&file_lock, 0, memory_order_relaxed);
}

/* Names are string constants of the generated code, so that their addresses tell them apart. */
CUresult og_unsupported(const char *name)
{
    static _Atomic(const char *) seen[1024];
    size_t at = ((uintptr_t)name >> 3) % 1024;

    for (size_t i = 0; i < 1024; i++, at = (at + 1) % 1024) {
        const char *other = NULL;

        if (atomic_load_explicit(&seen[at], memory_order_relaxed) == name)
            return CUDA_ERROR_NOT_SUPPORTED;
        if (atomic_compare_exchange_strong(&seen[at], &other, name))
            break;
        if (other == name)
            return CUDA_ERROR_NOT_SUPPORTED;
    }
    og_log_at(OG_WARNING, "%s is not supported; it answers CUDA_ERROR_NOT_SUPPORTED", name);
    return CUDA_ERROR_NOT_SUPPORTED;
}
