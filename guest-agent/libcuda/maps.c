/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel says of this process's mappings: /proc/self/maps, read without allocating. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "maps.h"

struct reader {
    int fd;
    size_t have, at;
    bool end;
    char text[8192];
};

/* The next line without its newline; NULL: no more. Longer lines than the buffer do not exist: paths end at 4 KiB. */
static char *next_line(struct reader *r)
{
    for (;;) {
        char *line = r->text + r->at, *stop = memchr(line, '\n', r->have - r->at);
        ssize_t n;

        if (stop) {
            *stop = 0;
            r->at = (size_t)(stop - r->text) + 1;
            return line;
        }
        if (r->end)
            return NULL;
        memmove(r->text, line, r->have - r->at);
        r->have -= r->at;
        r->at = 0;
        n = r->have < sizeof(r->text) ? read(r->fd, r->text + r->have, sizeof(r->text) - r->have) : 0;
        r->end = n <= 0;
        r->have += n > 0 ? (size_t)n : 0;
    }
}

/* "start-end perms offset major:minor inode   path" */
static bool parse(const char *line, struct og_map *m)
{
    char *p;

    m->start = strtoull(line, &p, 16);
    if (*p++ != '-')
        return false;
    m->end = strtoull(p, &p, 16);
    if (*p++ != ' ' || strlen(p) < 5)
        return false;
    m->read = p[0] == 'r';
    m->write = p[1] == 'w';
    m->execute = p[2] == 'x';
    m->is_private = p[3] == 'p';
    m->offset = strtoull(p + 5, &p, 16);
    m->device = strtoull(p, &p, 16) << 32;
    if (*p++ != ':')
        return false;
    m->device |= strtoull(p, &p, 16);
    m->inode = strtoull(p, &p, 10);
    while (*p == ' ')
        p++;
    m->is_stack = !strncmp(p, "[stack", 6);
    m->is_memory = !strncmp(p, "/dev/shm/", 9) || !strncmp(p, "/memfd:", 7) || !strncmp(p, "/SYSV", 5) ||
                   !strncmp(p, "/dev/zero", 9);
    m->is_special = *p == '[' && !m->is_stack && strncmp(p, "[heap]", 6) && strncmp(p, "[anon", 5);
    return true;
}

bool og_maps_each(uint64_t from, uint64_t to, bool (*visit)(const struct og_map *m, void *arg), void *arg)
{
    struct reader r = { .fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC) };
    struct og_map m;
    char *line;
    bool go_on = r.fd >= 0;

    while (go_on && (line = next_line(&r)) != NULL) {
        if (!parse(line, &m) || m.end <= from)
            continue;
        if (m.start >= to)
            break;
        go_on = visit(&m, arg);
    }
    if (r.fd >= 0)
        close(r.fd);
    return go_on;
}
