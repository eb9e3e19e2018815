/* SPDX-License-Identifier: Apache-2.0 */
/* Asks controller and server as the library does, and prints `key=value` lines, one each, for orion-check. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core.h"

#define TIMEOUT_MS 3000
#define ANSWER_BYTES 4096

/* The snapshot's part that asks this is not used here. */
int og_visible(int device)
{
    return device;
}

static const char *set_controller(char addr[OG_ADDR_BYTES])
{
    const char *variable = getenv("ORION_CONTROLLER");
    char header[OC_ADDR_BYTES + 1] = "";

    if (og_shared_region.base)
        memcpy(header, og_shared_region.header.controller_addr, OC_ADDR_BYTES);
    if (*og_settings.controller) {
        snprintf(addr, OG_ADDR_BYTES, "%s", og_settings.controller);
        return variable && *variable ? "environment variable" : "configuration file";
    }
    if (*header && og_parse_addr(header, 9123, addr))
        return "shared memory device";
    snprintf(addr, OG_ADDR_BYTES, "127.0.0.1:9123");
    return "default settings";
}

/* The body of a 200 answer, trimmed, else a reason in *why. */
static bool get(const char *addr, const char *path, char body[ANSWER_BYTES], struct og_why *why)
{
    char request[256], answer[ANSWER_BYTES], *at;
    int fd = og_dial(addr, TIMEOUT_MS, why), n;
    size_t have = 0;
    ssize_t got;

    if (fd < 0)
        return false;
    n = snprintf(request, sizeof(request), "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, addr);
    if (n < (int)sizeof(request) && og_send_all(fd, request, (size_t)n))
        while (have + 1 < sizeof(answer) && (got = recv(fd, answer + have, sizeof(answer) - 1 - have, 0)) > 0)
            have += (size_t)got;
    close(fd);
    answer[have] = '\0';
    at = strstr(answer, "\r\n\r\n");
    if (strncmp(answer, "HTTP/1.", 7) || !at || strlen(answer) < 12) {
        og_because(why, "it does not speak HTTP");
        return false;
    }
    if (strncmp(answer + 8, " 200", 4)) {
        og_because(why, "HTTP %.3s", answer + 9);
        return false;
    }
    snprintf(body, ANSWER_BYTES, "%s", at + 4);
    for (have = strlen(body); have && isspace((unsigned char)body[have - 1]); have--)
        body[have - 1] = '\0';
    return true;
}

/* The number after the last '='. */
static bool count(const char *addr, const char *path, uint64_t *value, struct og_why *why)
{
    char body[ANSWER_BYTES], *equals;

    if (!get(addr, path, body, why))
        return false;
    equals = strrchr(body, '=');
    if (equals && og_parse_number(equals + 1, 0, 1u << 30, value))
        return true;
    og_because(why, "no count in its answer to %s", path);
    return false;
}

/* As the library does, oriond asks the controller where no address leads to it; it passes on nothing but allocations. */
static bool by_mailbox(void)
{
    struct og_why why;
    int fd = -1;

    if (!*og_settings.controller && !*og_settings.server && og_mailbox_there())
        fd = og_mailbox_dial(OC_MAIL_CONTROLLER, TIMEOUT_MS, &why);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void controller(void)
{
    char addr[OG_ADDR_BYTES], version[ANSWER_BYTES];
    const char *source = set_controller(addr);
    struct og_why why;
    uint64_t total = 0, free_now = 0;
    int fd;

    printf("addr=%s\nsource=%s\n", addr, source);
    fd = og_dial(addr, TIMEOUT_MS, &why);
    if (fd < 0) {
        printf("connected=%s\n", by_mailbox() ? "mailbox" : "no");
        return;
    }
    close(fd);
    printf("connected=yes\n");
    if (!get(addr, "/info?data_version&api_version", version, &why) ||
        !count(addr, "/devices?res=nvidia_cuda", &total, &why) ||
        !count(addr, "/devices?res=nvidia_cuda&used=true", &free_now, &why)) {
        printf("problem=%s\n", why.text);
        return;
    }
    printf("version=%.*s\ntotal=%llu\nfree=%llu\n", (int)strcspn(version, "\r\n"), version, (unsigned long long)total,
           (unsigned long long)free_now);
}

/* `--settings`: only whether variables and client.conf are in order. */
int main(int argc, char **argv)
{
    struct og_addrs addrs;
    struct og_why why;
    int fd;

    if (og_settings_load() != CUDA_SUCCESS)
        return 2; /* which has said why on stderr */
    if (argc > 1)
        return strcmp(argv[1], "--settings") ? 2 : 0;
    og_settings.log_to_file = false;
    og_region_find(false);
    controller();
    og_server_addrs(NULL, &addrs);
    fd = og_dial_server(&addrs, &why);
    printf("server=%s\n", fd >= 0 ? "yes" : why.text);
    if (fd >= 0)
        close(fd);
    return 0;
}
