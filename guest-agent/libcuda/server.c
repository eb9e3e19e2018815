/* SPDX-License-Identifier: Apache-2.0 */
/* Where the server is, its INFO, and the proof that it asks for: docs/design.md, section 5. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core.h"

#define INFO_TIMEOUT_MS 2000
#define NEAR_TIMEOUT_MS 500 /* of an address, where the mailbox is the other way: a host is near its guests */
#define SERVER_PORT 9960
#define MAX_SNAPSHOT sizeof(struct oc_snapshot)

static void add_addr(struct og_addrs *to, const char *text, size_t room, unsigned port)
{
    char bounded[OG_ADDR_BYTES];

    snprintf(bounded, sizeof(bounded), "%.*s", (int)(room < sizeof(bounded) ? room : sizeof(bounded) - 1), text);
    if (*bounded && to->count < OC_MAX_ADDRS + 2 && og_parse_addr(bounded, port, to->addr[to->count]))
        to->count++;
}

_Atomic bool og_by_mailbox;

/* Over TCP and before an allocation nobody has named a server: it is usually the controller's host. */
static void add_controllers_host(struct og_addrs *to)
{
    char host[OG_ADDR_BYTES] = "127.0.0.1";
    char *colon;

    if (*og_settings.controller) {
        snprintf(host, sizeof(host), "%s", og_settings.controller);
        colon = strrchr(host, ':');
        if (colon)
            *colon = '\0';
    }
    add_addr(to, host, sizeof(host), SERVER_PORT);
}

void og_server_addrs(const struct og_allocation *a, struct og_addrs *to)
{
    to->count = 0;
    to->mailbox = false;
    if (*og_settings.server) {
        add_addr(to, og_settings.server, OG_ADDR_BYTES, SERVER_PORT);
        return;
    }
    if (og_shared_region.base)
        for (unsigned i = 0; i < OC_MAX_ADDRS; i++)
            add_addr(to, og_shared_region.header.server_addr[i], OC_ADDR_BYTES, SERVER_PORT);
    to->mailbox = og_mailbox_there();
    if (to->count || to->mailbox)
        return;
    if (a)
        add_addr(to, a->server, OG_ADDR_BYTES, SERVER_PORT);
    if (to->count == 0)
        add_controllers_host(to);
}

static void add_reason(struct og_why *why, const struct og_why *one)
{
    size_t at = strlen(why->text);

    snprintf(why->text + at, sizeof(why->text) - at, "%s%s", at ? "; " : "", one->text);
}

/* Of several addresses the one that answered last: an attempt at one that leads nowhere takes until its timeout. */
static _Atomic unsigned answered;

int og_dial_any(const struct og_addrs *addrs, unsigned timeout_ms, unsigned *which, struct og_why *why)
{
    unsigned first = answered;

    why->text[0] = '\0';
    for (unsigned tried = 0; tried < addrs->count; tried++) {
        unsigned i = (first + tried) % addrs->count;
        struct og_why one;
        int fd = og_dial(addrs->addr[i], timeout_ms, &one);

        if (fd >= 0) {
            *which = i;
            return fd;
        }
        add_reason(why, &one);
    }
    return -1;
}

int og_dial_server(const struct og_addrs *addrs, struct og_why *why)
{
    unsigned which = 0;
    struct og_why one;
    int fd = -1;

    why->text[0] = '\0';
    if (!addrs->mailbox || !atomic_load(&og_by_mailbox))
        fd = og_dial_any(addrs, addrs->mailbox ? NEAR_TIMEOUT_MS : INFO_TIMEOUT_MS, &which, why);
    if (fd >= 0) {
        answered = which;
        og_set_timeout(fd, INFO_TIMEOUT_MS);
        return fd;
    }
    if (!addrs->mailbox)
        return fd;
    fd = og_mailbox_dial(OC_MAIL_SERVER, INFO_TIMEOUT_MS, &one);
    if (fd < 0)
        add_reason(why, &one);
    else if (!atomic_exchange(&og_by_mailbox, true))
        og_log_at(OG_INFO, "the server is reached through the region's mailbox%s%s", *why->text ? ": " : "", why->text);
    return fd;
}

CUresult og_no_server(const struct og_why *why)
{
    const char *note = og_shared_region.note;

    og_say("no vGPU: no Orion server answers (%s%s%s). On the host: does oriond run, does `orion-virt list` show this "
           "domain, does the firewall let the port pass? Here: ORION_SERVER and ORION_CONTROLLER, or "
           "controller_addr in /etc/orion/client.conf", why->text, *note ? "; " : "", note);
    return CUDA_ERROR_NO_DEVICE;
}

/* The snapshot as the INFO answer carries it. */
static bool take_snapshot(const char *block, struct og_why *why)
{
    char *hex = malloc(OG_BLOCK_MAX);
    uint8_t *bytes = malloc(MAX_SNAPSHOT);
    size_t n = (size_t)-1;
    bool ok = false;

    if (hex && bytes && og_block_get(block, "snapshot", hex, OG_BLOCK_MAX))
        n = og_unhex(hex, bytes, MAX_SNAPSHOT);
    if (n == (size_t)-1)
        og_because(why, "its INFO answer has no valid snapshot");
    else
        ok = og_snapshot_set(bytes, n, why);
    free(hex);
    free(bytes);
    return ok;
}

bool og_region_snapshot(void)
{
    const struct oc_header *h = &og_shared_region.header;
    struct og_why why;

    return og_shared_region.base && h->snapshot_bytes &&
           og_snapshot_set(og_shared_region.base + OC_SNAPSHOT_OFF, h->snapshot_bytes, &why);
}

static bool info(int fd, struct og_why *why)
{
    static const char request[] = "ORION/1 INFO\n\n";
    char *block = malloc(OG_BLOCK_MAX);
    bool ok = false;

    if (!block || !og_send_all(fd, request, sizeof(request) - 1))
        og_because(why, "it does not take a request");
    else if (og_read_block(fd, block, OG_BLOCK_MAX, why)) {
        ok = og_block_is(block, "INFO");
        if (!ok)
            og_because(why, "it does not speak our protocol: %.60s", block);
        else if (!og_region_snapshot())
            ok = take_snapshot(block, why);
    }
    free(block);
    return ok;
}

CUresult og_probe_server(void)
{
    struct og_addrs addrs;
    struct og_why why, detail;
    bool ok;
    int fd;

    og_server_addrs(NULL, &addrs);
    og_away_begin();
    do {
        fd = og_dial_server(&addrs, &why);
        /* the mailbox is opened by the server itself, and is there where the snapshot is too */
        ok = fd >= 0 && ((atomic_load(&og_by_mailbox) && og_region_snapshot()) || info(fd, &detail));
        if (fd >= 0)
            close(fd);
    } while (!ok && og_away_again(true));
    if (ok) {
        og_away_reached();
        return CUDA_SUCCESS;
    }
    if (fd < 0)
        return og_no_server(&why);
    og_because(&why, "%.120s: %.250s", addrs.count ? addrs.addr[0] : "through the region", detail.text);
    return og_no_server(&why);
}

bool og_answer_challenge(int fd, const char *block, const struct og_text *hello)
{
    char nonce_text[65], mac_text[65] = "-", answer[128];
    uint8_t nonce[32], mac[32];
    size_t n;

    if (!og_block_get(block, "nonce", nonce_text, sizeof(nonce_text)))
        return false;
    n = og_unhex(nonce_text, nonce, sizeof(nonce));
    if (n == (size_t)-1 || n == 0)
        return false;
    if (og_shared_region.base) {
        og_hmac_sha256(og_shared_region.header.token, 16, nonce, n, hello->text, hello->bytes, mac);
        og_hex(mac, sizeof(mac), mac_text);
    }
    snprintf(answer, sizeof(answer), "ORION/1 AUTH\nhmac: %s\n\n", mac_text);
    return og_send_all(fd, answer, strlen(answer));
}
