/* SPDX-License-Identifier: Apache-2.0 */
/* INFO, HELLO, CHALLENGE, AUTH, WELCOME: docs/design.md, section 5. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "core.h"

#define INFO_TIMEOUT_MS 2000
#define HELLO_TIMEOUT_MS 30000 /* a cold worker starts the driver first */
#define SERVER_PORT 9960
#define MAX_SNAPSHOT sizeof(struct oc_snapshot)

#ifndef OG_BUILD_ID
#define OG_BUILD_ID "0000000-00000000_000000"
#endif
const char og_build_id[] = OG_BUILD_ID;

/* What the driver reads at its start and a worker may be given; never paths or injection. */
static const char *const forwarded[] = {
    "CUDA_DEVICE_MAX_CONNECTIONS",   "CUDA_DEVICE_MAX_COPY_CONNECTIONS", "CUDA_MODULE_LOADING",
    "CUDA_MODULE_DATA_LOADING",      "CUDA_LAUNCH_BLOCKING",             "CUDA_FORCE_PTX_JIT",
    "CUDA_DISABLE_PTX_JIT",          "CUDA_FORCE_JIT",                   "CUDA_DISABLE_JIT",
    "CUDA_AUTO_BOOST",               "CUDA_SCALE_LAUNCH_QUEUES",         "CUDA_GRAPHS_USE_NODE_PRIORITY",
};

static void add_addr(struct og_addrs *to, const char *text, size_t room, unsigned port)
{
    char bounded[OG_ADDR_BYTES];

    snprintf(bounded, sizeof(bounded), "%.*s", (int)(room < sizeof(bounded) ? room : sizeof(bounded) - 1), text);
    if (*bounded && to->count < OC_MAX_ADDRS + 2 && og_parse_addr(bounded, port, to->addr[to->count]))
        to->count++;
}

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
    if (*og_settings.server) {
        add_addr(to, og_settings.server, OG_ADDR_BYTES, SERVER_PORT);
        return;
    }
    if (og_shared_region.base)
        for (unsigned i = 0; i < OC_MAX_ADDRS; i++)
            add_addr(to, og_shared_region.header.server_addr[i], OC_ADDR_BYTES, SERVER_PORT);
    if (to->count == 0 && a)
        add_addr(to, a->server, OG_ADDR_BYTES, SERVER_PORT);
    if (to->count == 0)
        add_controllers_host(to);
}

/* A connection to the first address that takes one; all reasons when none does. */
static int dial_any(const struct og_addrs *addrs, unsigned timeout_ms, struct og_why *why)
{
    size_t at = 0;

    why->text[0] = '\0';
    for (unsigned i = 0; i < addrs->count; i++) {
        struct og_why one;
        int fd = og_dial(addrs->addr[i], timeout_ms, &one), n;

        if (fd >= 0)
            return fd;
        n = snprintf(why->text + at, sizeof(why->text) - at, "%s%s", at ? "; " : "", one.text);
        if (n > 0 && (size_t)n < sizeof(why->text) - at)
            at += (size_t)n;
    }
    return -1;
}

static CUresult no_server(const struct og_why *why)
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

static bool region_snapshot(void)
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
        else if (!region_snapshot())
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
    fd = dial_any(&addrs, INFO_TIMEOUT_MS, &why);
    if (fd < 0)
        return no_server(&why);
    ok = info(fd, &detail);
    close(fd);
    if (ok)
        return CUDA_SUCCESS;
    og_because(&why, "%.120s: %.250s", addrs.addr[0], detail.text);
    return no_server(&why);
}

static void add_process(struct og_text *t)
{
    char comm[64] = "";
    FILE *f = fopen("/proc/self/comm", "re");

    if (f) {
        if (!fgets(comm, sizeof(comm), f))
            comm[0] = '\0';
        fclose(f);
    }
    comm[strcspn(comm, "\n")] = '\0';
    for (char *c = comm; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '_'; /* the block is plain text */
    og_text_add(t, "pid: %ld\ncomm: %s\nbuild: %s\n", (long)getpid(), comm, og_build_id);
}

static void add_ops(struct og_text *t)
{
    uint8_t ops[OG_OPS_BYTES] = { 0 };
    char hex[2 * OG_OPS_BYTES + 1];

    for (uint32_t op = 0; op < OW_NR_OPS; op++)
        if (ow_op_name(op))
            ops[op / 8] |= (uint8_t)(1u << op % 8);
    og_hex(ops, sizeof(ops), hex);
    og_text_add(t, "ops: %s\n", hex);
}

static void add_environment(struct og_text *t)
{
    for (unsigned i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++) {
        const char *value = getenv(forwarded[i]);

        if (!value || strlen(value) > 64)
            continue;
        for (const char *c = value; *c; c++)
            if (*c < ' ' || *c > '~')
                value = "";
        if (*value)
            og_text_add(t, "env.%s: %s\n", forwarded[i], value);
    }
}

static void write_hello(struct og_text *t, const struct og_allocation *a)
{
    char uuid[37] = "-";
    bool shm = og_shared_region.base != NULL;

    if (shm)
        og_uuid_text(og_shared_region.header.domain_uuid, uuid);
    t->bytes = 0;
    t->overflow = false;
    og_text_add(t, "ORION/1 HELLO\ntransport: %s\ndomain: %s\ngeneration: %llu\nbase: 0x%llx\n", shm ? "shm" : "tcp",
                uuid, shm ? (unsigned long long)og_shared_region.header.generation : 0,
                (unsigned long long)(uintptr_t)og_shared_region.base);
    add_process(t);
    add_ops(t);
    og_text_add(t, "allocation: %s\n", a->id);
    add_environment(t);
    og_text_add(t, "\n");
}

/* hmac over the nonce's bytes and the HELLO block as sent, its empty line included. */
static bool answer_challenge(int fd, const char *block, const struct og_text *hello)
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

static CUresult refused(const char *block)
{
    char reason[300] = "no reason given", hint[300] = "", code[16] = "";
    uint64_t result = CUDA_ERROR_NO_DEVICE;

    og_block_get(block, "reason", reason, sizeof(reason));
    og_block_get(block, "hint", hint, sizeof(hint));
    if (!og_block_get(block, "code", code, sizeof(code)) || !og_parse_number(code, 1, 999, &result))
        result = CUDA_ERROR_NO_DEVICE;
    og_say("no vGPU: the Orion server refuses this process: %s%s%s", reason, *hint ? ". " : "", hint);
    return (CUresult)result;
}

static bool number_of(const char *block, const char *key, uint64_t *value)
{
    char text[40], *end;

    if (!og_block_get(block, key, text, sizeof(text)))
        return false;
    *value = strtoull(text, &end, 0);
    return end != text && !*end;
}

static void take_devices(const char *block)
{
    for (int i = 0; i < og_nr_devices(); i++) {
        char key[24], text[64], *end;
        long physical;

        snprintf(key, sizeof(key), "device.%d", i);
        if (!og_block_get(block, key, text, sizeof(text)))
            continue;
        physical = strtol(text, &end, 10);
        if (*end == ',')
            og_device_granted(i, physical >= 0 && physical < 1000 ? (int)physical : -1, strtoull(end + 1, NULL, 10));
    }
}

static CUresult welcome(const char *block)
{
    uint64_t channel = 0, at = 0, devices = 0;
    char *ops = malloc(OG_BLOCK_MAX);
    size_t n = (size_t)-1;

    memset(og_link.ops, 0, sizeof(og_link.ops));
    if (ops && og_block_get(block, "ops", ops, OG_BLOCK_MAX)) {
        ops[2 * sizeof(og_link.ops) < strlen(ops) ? 2 * sizeof(og_link.ops) : strlen(ops)] = '\0'; /* newer host */
        n = og_unhex(ops, og_link.ops, sizeof(og_link.ops));
    }
    free(ops);
    if (n == (size_t)-1 || !number_of(block, "channel", &channel) || !number_of(block, "block", &at) ||
        !number_of(block, "devices", &devices) || devices < (uint64_t)og_nr_devices()) {
        og_say("no vGPU: the Orion server's WELCOME is malformed: %.150s", block);
        return CUDA_ERROR_SYSTEM_DRIVER_MISMATCH;
    }
    og_link.channel_id = (uint32_t)channel;
    take_devices(block);
    return og_link_open(at);
}

static CUresult talk(int fd, const struct og_allocation *a, struct og_text *hello, char *block)
{
    struct og_why why;
    bool ok;

    write_hello(hello, a);
    ok = !hello->overflow && og_send_all(fd, hello->text, hello->bytes);
    if (!ok)
        og_because(&why, "it does not take our HELLO");
    ok = ok && og_read_block(fd, block, OG_BLOCK_MAX, &why);
    if (ok && og_block_is(block, "CHALLENGE")) {
        ok = answer_challenge(fd, block, hello);
        if (!ok)
            og_because(&why, "its CHALLENGE is malformed or the connection broke");
        ok = ok && og_read_block(fd, block, OG_BLOCK_MAX, &why);
    }
    if (ok && og_block_is(block, "REFUSED"))
        return refused(block);
    if (ok && og_block_is(block, "WELCOME"))
        return welcome(block);
    if (ok)
        og_because(&why, "it does not speak our protocol: %.60s", block);
    og_say("no vGPU: the handshake with the Orion server failed: %s. Its log on the host says more "
           "(/var/log/orion/server.log)", why.text);
    return CUDA_ERROR_NO_DEVICE;
}

static void forever(int fd)
{
    struct timeval none = { 0, 0 };

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
}

CUresult og_handshake(const struct og_allocation *a)
{
    struct og_text *hello = malloc(sizeof(*hello));
    char *block = malloc(OG_BLOCK_MAX);
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;
    struct og_addrs addrs;
    struct og_why why;
    int fd = -1;

    if (!hello || !block)
        goto out;
    og_server_addrs(a, &addrs);
    fd = dial_any(&addrs, INFO_TIMEOUT_MS, &why);
    if (fd < 0) {
        r = no_server(&why);
        goto out;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ HELLO_TIMEOUT_MS / 1000, 0 }, sizeof(struct timeval));
    og_link.fd = fd;
    og_link.shm = og_shared_region.base != NULL;
    r = talk(fd, a, hello, block);
    if (r == CUDA_SUCCESS)
        forever(fd);
    else
        close(fd);
out:
    free(hello);
    free(block);
    return r;
}
