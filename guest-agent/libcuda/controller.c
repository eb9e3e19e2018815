/* SPDX-License-Identifier: Apache-2.0 */
/* Asks the controller for this process's vGPUs: one HTTP request, whose answer is the allocation. */
#define _GNU_SOURCE
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "core.h"

#define TIMEOUT_MS 5000
#define ANSWER_BYTES 8192
#define SLACK_SECONDS 5 /* of an answer that comes when the time to wait is up */
#define AGAIN_MS 500    /* between two questions to a controller that does not let us wait */
#define DEFAULT_ADDR "127.0.0.1:9123"

#define BY_MAILBOX "the host, asked through the region"

static size_t host_bytes(const char *addr)
{
    const char *colon = strrchr(addr, ':');

    return colon ? (size_t)(colon - addr) : strlen(addr);
}

/* A controller on the host of the first server address is on that of the others too, which are ways to the same host. */
static void beside_the_server(const char *addr, struct og_addrs *to)
{
    size_t host = host_bytes(addr);
    struct og_addrs servers;

    og_server_addrs(NULL, &servers);
    if (*og_settings.server || !servers.count || host_bytes(servers.addr[0]) != host || strncmp(addr, servers.addr[0], host))
        return;
    for (to->count = 0; to->count < servers.count; to->count++)
        snprintf(to->addr[to->count], OG_ADDR_BYTES, "%.*s%.8s", (int)host_bytes(servers.addr[to->count]),
                 servers.addr[to->count], addr + host);
}

/* Environment and client.conf win, then what the region's header says; none where only the mailbox is left. */
static void controller_addrs(struct og_addrs *to, bool mailbox)
{
    char header[OC_ADDR_BYTES + 1] = "";

    to->count = 1;
    if (og_shared_region.base)
        memcpy(header, og_shared_region.header.controller_addr, OC_ADDR_BYTES);
    if (*og_settings.controller)
        snprintf(to->addr[0], OG_ADDR_BYTES, "%s", og_settings.controller);
    else if (*header && og_parse_addr(header, 9123, to->addr[0]))
        beside_the_server(to->addr[0], to);
    else if (mailbox)
        to->count = 0;
    else
        snprintf(to->addr[0], OG_ADDR_BYTES, "%s", DEFAULT_ADDR);
}

/* The mailbox comes last: oriond asks its controller. */
static int dial_controller(char addr[OG_ADDR_BYTES], struct og_why *why)
{
    bool mailbox = !*og_settings.controller && !*og_settings.server && og_mailbox_there();
    struct og_why first = { "" };
    struct og_addrs addrs;
    unsigned which = 0;
    int fd = -1;

    controller_addrs(&addrs, mailbox);
    if (addrs.count && !(mailbox && atomic_load(&og_by_mailbox)))
        fd = og_dial_any(&addrs, TIMEOUT_MS, &which, &first);
    if (fd >= 0 || !mailbox) {
        snprintf(addr, OG_ADDR_BYTES, "%s", addrs.addr[which]);
        *why = first;
        return fd;
    }
    snprintf(addr, OG_ADDR_BYTES, "%s", BY_MAILBOX);
    fd = og_mailbox_dial(OC_MAIL_CONTROLLER, TIMEOUT_MS, why);
    if (fd < 0 && *first.text) {
        struct og_why second = *why;

        og_because(why, "%.190s; %.190s", first.text, second.text);
    }
    return fd;
}

/* Which domain asks: only who reads the region's token can say so, and it does not tell the token. */
static void add_owner(struct og_text *t)
{
    static const char purpose[] = "orion allocation";
    uint8_t mac[32];
    char hex[65];

    if (!og_shared_region.base)
        return;
    og_hmac_sha256(og_shared_region.header.token, 16, purpose, sizeof(purpose) - 1, "", 0, mac);
    og_hex(mac, sizeof(mac), hex);
    og_text_add(t, "&owner=%s", hex);
}

/* Only what CUDA_VISIBLE_DEVICES leaves visible is taken; HTTP/1.0: the answer ends with the connection. */
static bool send_request(int fd, const char *addr, unsigned wait_seconds)
{
    struct og_text *t = calloc(1, sizeof(*t));
    bool ok;

    if (!t)
        return false;
    og_text_add(t, "GET /service?nvidia_vgpu=%d", og_nr_devices());
    if (og_settings.gmem_bytes)
        og_text_add(t, "&memory=%llu", (unsigned long long)(og_settings.gmem_bytes >> 20));
    if (wait_seconds)
        og_text_add(t, "&wait=%u", wait_seconds);
    if (*og_settings.group)
        og_text_add(t, "&group=%s", og_settings.group);
    add_owner(t);
    og_text_add(t, " HTTP/1.0\r\nHost: %s\r\n", strchr(addr, ' ') ? "orion" : addr);
    if (*og_settings.token)
        og_text_add(t, "Authorization: Bearer %s\r\n", og_settings.token);
    og_text_add(t, "\r\n");
    ok = !t->overflow && og_send_all(fd, t->text, t->bytes);
    free(t);
    return ok;
}

/* The whole answer, NUL-terminated; false when it is none. */
static bool read_answer(int fd, char *to, size_t room)
{
    size_t have = 0;
    ssize_t n;

    while (have + 1 < room && (n = recv(fd, to + have, room - 1 - have, 0)) > 0)
        have += (size_t)n;
    to[have] = '\0';
    return !strncmp(to, "HTTP/1.", 7) && strchr(to, ' ');
}

static char *body_of(char *answer)
{
    char *body = strstr(answer, "\r\n\r\n");

    if (!body)
        return answer + strlen(answer);
    body += 4;
    for (size_t n = strlen(body); n && isspace((unsigned char)body[n - 1]); n--)
        body[n - 1] = '\0';
    return body;
}

/* "<uuid>,<ip>:<port>/<card>/<vGPU>[,...]" */
static bool parse_allocation(const char *body, struct og_allocation *a)
{
    size_t id = strcspn(body, ","), addr;

    if (id != 36 || strspn(body, "0123456789abcdefABCDEF-") != 36 || body[36] != ',')
        return false;
    addr = strcspn(body + 37, "/");
    if (!addr || addr >= OG_ADDR_BYTES || body[37 + addr] != '/')
        return false;
    memcpy(a->id, body, id);
    a->id[id] = '\0';
    snprintf(a->server, sizeof(a->server), "%.*s", (int)addr, body + 37);
    return true;
}

static CUresult refused(const char *addr, long status, const char *body)
{
    if (status == 409)
        og_say("no vGPU: the controller at %s refuses %d vGPU (%s)%s%s: %s", addr, og_nr_devices(),
               og_settings.vgpus_said || og_settings.vgpus == 1 ? "ORION_VGPU" : "what this domain has by default",
               og_settings.gmem_bytes ? " of this " : "",
               og_settings.gmem_said ? "ORION_GMEM" : og_settings.gmem_bytes ? "domain's default memory" : "",
               *body ? body : "no reason given");
    else
        og_say("no vGPU: the controller at %s answers HTTP %ld: %s", addr, status, *body ? body : "nothing");
    return CUDA_ERROR_NO_DEVICE;
}

/* The header of a refusal that no waiting changes. Old controllers send none. */
static bool is_final(const char *answer)
{
    return strcasestr(answer, "\r\nOrion-Final:") != NULL;
}

/* One question. 200 with *body the allocation, another status with *body the reason, or 0: no answer at all. */
static long ask(int fd, const char *addr, unsigned wait_seconds, char answer[ANSWER_BYTES], char **body)
{
    struct timeval tv = { wait_seconds + SLACK_SECONDS, 0 };

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    if (!send_request(fd, addr, wait_seconds) || !read_answer(fd, answer, ANSWER_BYTES))
        return 0;
    *body = body_of(answer);
    return strtol(strchr(answer, ' ') + 1, NULL, 10);
}

static unsigned seconds_until(uint64_t deadline_ns)
{
    uint64_t now = og_now_ns();

    return now >= deadline_ns ? 0 : (unsigned)((deadline_ns - now + 999999999) / 1000000000);
}

static bool worth_waiting(long status, const char *answer)
{
    return (status == 409 && !is_final(answer)) || status == 503 || status == 0;
}

/* Asks until it is granted or the time of ORION_WAIT is up; what is waited for is said once. Where a controller goes away
 * meanwhile, or is too old to let us wait, we ask again. */
static long ask_patiently(char addr[OG_ADDR_BYTES], char answer[ANSWER_BYTES], char **body, struct og_why *why)
{
    uint64_t deadline = og_now_ns() + (uint64_t)og_settings.wait_seconds * 1000000000;
    bool said = false;

    for (;;) {
        unsigned left = seconds_until(deadline);
        int fd = dial_controller(addr, why);
        long status = fd < 0 ? -1 : ask(fd, addr, said ? left : 0, answer, body);

        if (fd >= 0)
            close(fd);
        if (status == 200 || !left || !og_settings.wait_seconds || (status >= 0 && !worth_waiting(status, answer)))
            return status;
        if (!said)
            og_announce(true, "Waiting up to %u s (ORION_WAIT) for %d vGPU: %s", left, og_nr_devices(),
                        status > 0 ? *body : status < 0 ? why->text : "the controller gave no answer");
        else
            usleep(AGAIN_MS * 1000);
        said = true;
    }
}

CUresult og_allocate(struct og_allocation *a)
{
    char addr[OG_ADDR_BYTES], answer[ANSWER_BYTES] = "";
    char *body = answer;
    struct og_why why;
    long status;

    status = ask_patiently(addr, answer, &body, &why);
    if (status != 200 && og_away_again(status <= 0 && (!*og_settings.controller || og_away_came_back())))
        return OG_AGAIN;
    if (status < 0)
        og_say("no vGPU: the controller cannot be reached (%s). Check that orion-controller runs, that the firewall "
               "lets the port pass, and ORION_CONTROLLER or controller_addr in /etc/orion/client.conf", why.text);
    else if (status == 0)
        og_say("no vGPU: %s does not answer as a controller does; is ORION_CONTROLLER (client.conf: controller_addr) "
               "right?", addr);
    else if (status != 200)
        return refused(addr, status, body);
    else if (!parse_allocation(body, a))
        og_say("no vGPU: the controller at %s sends no allocation but: %.120s", addr, body);
    else {
        og_log("allocation %s of %d vGPU on %s", a->id, og_nr_devices(), a->server);
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_NO_DEVICE;
}
