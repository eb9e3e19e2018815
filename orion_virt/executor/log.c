/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's log, bounded against floods, and the one reason for which a channel ended. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "loop.h"

#define BURST_LINES 500u   /* a guest can cause lines: more than this only slowly */
#define LINES_A_SECOND 20u
#define LINES_IN_ALL 20000u /* of one channel: whatever a guest provokes for however long */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = STDERR_FILENO;
static uint32_t tokens = BURST_LINES, dropped, written;
static uint64_t refilled_ns;
static char last_error[512];

void oh_log_open(const char *path)
{
    int fd = path[0] ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640) : -1;

    if (fd >= 0)
        log_fd = fd;
    else if (path[0])
        oh_log("cannot open log file %s: %s; logging to stderr", path, strerror(errno));
}

int oh_log_fd(void)
{
    return log_fd;
}

static bool token(void)
{
    uint64_t now = oh_now_ns(), more = (now - refilled_ns) * LINES_A_SECOND / 1000000000u;

    if (more) {
        tokens = more > BURST_LINES - tokens ? BURST_LINES : tokens + (uint32_t)more;
        refilled_ns = now;
    }
    if (!tokens || written == LINES_IN_ALL) {
        dropped++;
        return false;
    }
    tokens--;
    written++;
    return true;
}

static void line(const char *text)
{
    char out[700], when[32];
    time_t now = time(NULL);
    struct tm tm;
    int n;

    localtime_r(&now, &tm);
    strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
    n = snprintf(out, sizeof(out), "%s [channel %u] %s\n", when, oh_config.channel_id, text);
    if (n >= (int)sizeof(out))
        n = sizeof(out) - 1;
    if (write(log_fd, out, (size_t)n) < 0)
        return; /* a full disk must not stop a client */
}

void oh_log(const char *format, ...)
{
    char text[600], note[64];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    pthread_mutex_lock(&lock);
    if (token()) {
        if (dropped) {
            snprintf(note, sizeof(note), "%u lines were dropped", dropped);
            dropped = 0;
            line(note);
        }
        line(text);
    }
    pthread_mutex_unlock(&lock);
}

void oh_set_error(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    pthread_mutex_lock(&lock);
    vsnprintf(last_error, sizeof(last_error), format, ap);
    pthread_mutex_unlock(&lock);
    va_end(ap);
}

__attribute__((visibility("default"))) const char *oh_last_error(void)
{
    return last_error;
}

void oh_end(enum oc_close why, const char *format, ...)
{
    char text[400], last[420];
    int open_ = OC_OPEN;
    va_list ap;

    if (!atomic_compare_exchange_strong(&oh_ending, &open_, (int)why))
        return;
    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    oh_set_error("%s", text);
    snprintf(last, sizeof(last), "channel ends: %s", text);
    pthread_mutex_lock(&lock);
    line(last); /* whatever was logged before */
    pthread_mutex_unlock(&lock);
    oh_watch_interrupt();
    oh_twins_wake_all();
}
