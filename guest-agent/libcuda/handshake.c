/* SPDX-License-Identifier: Apache-2.0 */
/* HELLO, CHALLENGE, AUTH, WELCOME: docs/design.md, section 5. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "core.h"

#define HELLO_TIMEOUT_MS 30000 /* a cold worker starts the driver first */

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

/* For NVML: which of the machine's vGPUs these are, and over TCP which machine. */
static void add_whose(struct og_text *t, bool shm)
{
    char machine[33];

    if (og_settings.ratio)
        og_text_add(t, "ratio: %d\n", og_settings.ratio);
    og_text_add(t, "vgpus: ");
    for (int i = 0; i < og_nr_devices(); i++)
        og_text_add(t, i ? ",%d" : "%d", og_visible(i));
    og_machine_text(machine);
    og_text_add(t, shm ? "\n" : "\nmachine: %s\n", machine);
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
    if (shm && og_doorbell_map())
        og_text_add(t, "doorbell: yes\n");
    add_whose(t, shm);
    add_process(t);
    add_ops(t);
    og_text_add(t, "allocation: %s\n", a->id);
    add_environment(t);
    og_text_add(t, "\n");
}

static CUresult refused(const char *block)
{
    char reason[300] = "no reason given", hint[300] = "", code[16] = "";
    uint64_t result = CUDA_ERROR_NO_DEVICE;

    if (og_away_again(false))
        return OG_AGAIN;
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
    uint64_t channel = 0, at = 0, devices = 0, bell;
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
    if (number_of(block, "doorbell", &bell))
        og_doorbell_use(bell);
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
        ok = og_answer_challenge(fd, block, hello);
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
    else if (og_away_again(true))
        return OG_AGAIN;
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
    do
        fd = og_dial_server(&addrs, &why);
    while (fd < 0 && og_away_again(true));
    if (fd < 0) {
        r = og_no_server(&why);
        goto out;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ HELLO_TIMEOUT_MS / 1000, 0 }, sizeof(struct timeval));
    og_link.fd = fd;
    og_link.shm = og_shared_region.base != NULL;
    og_link.polled = addrs.mailbox && atomic_load(&og_by_mailbox);
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
