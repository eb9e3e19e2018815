/* SPDX-License-Identifier: Apache-2.0 */
/* Asks the controller for this process's vGPUs: one HTTP request, whose answer is the allocation. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core.h"

#define TIMEOUT_MS 5000
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

static bool send_request(int fd, const char *addr)
{
    char request[512], memory[48] = "";
    int n;

    if (og_settings.gmem_bytes)
        snprintf(memory, sizeof(memory), "&memory=%llu", (unsigned long long)(og_settings.gmem_bytes >> 20));
    /* only what CUDA_VISIBLE_DEVICES leaves visible is taken; HTTP/1.0: the answer ends with the connection */
    n = snprintf(request, sizeof(request), "GET /service?nvidia_vgpu=%d%s HTTP/1.0\r\nHost: %s\r\n\r\n",
                 og_nr_devices(), memory, strchr(addr, ' ') ? "orion" : addr);
    return n < (int)sizeof(request) && og_send_all(fd, request, (size_t)n);
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

static CUresult ask(int fd, const char *addr, struct og_allocation *a)
{
    char answer[8192];
    char *body;
    long status;

    if (!send_request(fd, addr) || !read_answer(fd, answer, sizeof(answer))) {
        og_say("no vGPU: %s does not answer as a controller does; is ORION_CONTROLLER (client.conf: controller_addr) "
               "right?", addr);
        return CUDA_ERROR_NO_DEVICE;
    }
    status = strtol(strchr(answer, ' ') + 1, NULL, 10);
    body = body_of(answer);
    if (status != 200)
        return refused(addr, status, body);
    if (parse_allocation(body, a))
        return CUDA_SUCCESS;
    og_say("no vGPU: the controller at %s sends no allocation but: %.120s", addr, body);
    return CUDA_ERROR_NO_DEVICE;
}

CUresult og_allocate(struct og_allocation *a)
{
    char addr[OG_ADDR_BYTES];
    struct og_why why;
    CUresult r;
    int fd;

    fd = dial_controller(addr, &why);
    if (fd < 0) {
        og_say("no vGPU: the controller cannot be reached (%s). Check that orion-controller runs, that the firewall "
               "lets the port pass, and ORION_CONTROLLER or controller_addr in /etc/orion/client.conf", why.text);
        return CUDA_ERROR_NO_DEVICE;
    }
    r = ask(fd, addr, a);
    close(fd);
    if (r == CUDA_SUCCESS)
        og_log("allocation %s of %d vGPU on %s", a->id, og_nr_devices(), a->server);
    return r;
}
