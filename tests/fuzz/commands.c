/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the executor: its ring, decoder and every operation's body, with the simulated GPU as driver. An input is a list of commands: which
 * operation (2 bytes, an index of fuzz_ops), what (1 byte), how long (2 bytes), and as many bytes of payload; `what` & LIES takes the header's
 * words from the payload's first 16 bytes instead. Each input begins with a context, memory and a grant, and ends with everything given back. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* The thread that fuzzes plays the twin of guest thread 0, whose table is private to this file. */
#include "../../orion_virt/executor/twin.c"

#include "fuzz_ops.h"

#define REGION (16 * OC_EXTENT_BYTES)
#define BLOCK OC_EXTENT_BYTES
#define DEVICE_BYTES (64ull << 20)
#define LIES 1u
#define GIVEN_MAX 256u

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct twin *self;
static struct oc_producer producer;
static uint8_t *region;
static uint64_t next_grant = BLOCK + OC_CHANNEL_BYTES;

/* ---- the daemon, and the threads that the loop does without ---- */

int (*oh_running)(char *name, size_t room, uint64_t *done, uint64_t *blocks, uint64_t *ns);
_Atomic uint64_t oh_nr_commands, oh_bytes_copied;
void (*_Atomic oh_control_own)(const struct oh_control *m);

int oh_control_call_fd(struct oh_control *m, int fd, int *got)
{
    (void)fd;
    *got = -1;
    if (m->kind == OH_UNSHARE)
        return 0;
    if (m->kind != OH_GRANT)
        return -ENOENT;
    m->b = (m->a + OC_EXTENT_BYTES - 1) / OC_EXTENT_BYTES * OC_EXTENT_BYTES;
    if (m->a > REGION || !m->b || m->b > REGION - next_grant)
        return -ENOMEM;
    m->a = next_grant;
    next_grant += m->b;
    return 0;
}

int oh_control_call(struct oh_control *m)
{
    int got;

    return oh_control_call_fd(m, -1, &got);
}

void oh_control_tell(const struct oh_control *m) { (void)m; }
bool oh_control_stale(void) { return false; }
bool oh_control_have(const struct oh_control *m, int fd) { return (void)m, (void)fd, false; }
void oh_control_down(void) {}
void oh_control_up(void) {}
void oh_control_progress(void) {}
void oh_watch_control(bool on) { (void)on; }
void oh_watch_client(int fd) { (void)fd; }
void oh_watch_interrupt(void) {}
void oh_watch_wake_leader(void) {}
void oh_watch_lead(void) {}
int oh_watch_open(void) { return 0; }
void oh_watch_run(void) {}
int oh_control_read(void) { return 1; }
void oh_spin_setup(void) {}
void oh_spin_woke(void) {}
void oh_spin_slept(struct oh_spin *s, uint64_t ns) { (void)s, (void)ns; }
bool oh_spin(struct oh_spin *s, bool (*ready)(void *), void *arg) { return (void)s, ready(arg); }
bool oh_watch(uint32_t ns, bool (*ready)(void *), void *arg) { return (void)ns, ready(arg); }
uint64_t oh_now_ns(void) { return 1; }
void oh_control_usage(void) {}

/* ---- commands ---- */

static void start_ring(void)
{
    memset(oh_channel, 0, OC_STAGING_OFF);
    oc_channel_init(oh_channel, 1);
    producer = (struct oc_producer){ .channel = oh_channel, .lines = (uint8_t *)oh_channel + OC_RING_OFF };
    oh_baton_start(oh_channel, producer.lines);
    atomic_store(&oh_ending, 0);
}

/* Executes what is in the ring. */
static void run(void)
{
    uint8_t wakes[256];

    if (!oh_baton_retake(self))
        abort(); /* nobody else is there to have it */
    oh_loop_run(self);
    while (recv(oh_config.socket_fd + 1, wakes, sizeof(wakes), MSG_DONTWAIT) > 0)
        ;
    if (atomic_load(&oh_ending))
        start_ring();
}

static struct oc_cmd *header(uint32_t op, uint32_t bytes)
{
    struct oc_cmd *cmd = oc_ring_reserve(&producer, oc_cmd_lines(bytes));

    if (!cmd) {
        run();
        cmd = oc_ring_reserve(&producer, oc_cmd_lines(bytes));
    }
    if (!cmd)
        abort();
    cmd->op = (uint16_t)op;
    cmd->lines = (uint16_t)oc_cmd_lines(bytes);
    cmd->bytes = bytes;
    cmd->thread = 0;
    cmd->flags = OC_CMD_REPLY;
    return cmd;
}

static void post(uint32_t op, const void *payload, uint32_t bytes)
{
    struct oc_cmd *cmd = header(op, bytes);
    uint64_t seq;

    memcpy(cmd->payload, payload, bytes);
    oc_ring_publish(&producer, cmd, &seq);
}

/* A command whose header is made up; other threads than 0 are not there. The ring is at an end behind it, or goes on. */
static void lie(const uint8_t *data, size_t size)
{
    uint8_t words[16] = { 0 };
    struct oc_cmd *cmd = header(OW_OP_orion_ping, 8);
    uint64_t seq;

    memcpy(words, data, size < sizeof(words) ? size : sizeof(words));
    memcpy(&cmd->op, words, 2);
    memcpy(&cmd->lines, words + 2, 2);
    memcpy(&cmd->bytes, words + 4, 4);
    memcpy(&cmd->thread, words + 8, 4);
    memcpy(&cmd->flags, words + 12, 4);
    if (cmd->thread < OC_NR_SLOTS)
        cmd->thread = 0;
    oc_ring_publish(&producer, cmd, &seq);
    run();
    start_ring();
}

static void begin(void)
{
    struct ow_orion_ctx_activate_in activate = { .context = HANDLE(OW_KIND_CONTEXT, 1) };
    struct ow_orion_set_current_in current = { .context = activate.context };
    struct ow_cuMemAlloc_v2_in allocate = { .bytesize = 65536 };
    struct ow_orion_grant_in grant = { .bytes = OC_EXTENT_BYTES };

    post(OW_OP_orion_ctx_activate, &activate, sizeof(activate));
    post(OW_OP_orion_set_current, &current, sizeof(current));
    post(OW_OP_cuMemAlloc_v2, &allocate, sizeof(allocate));
    post(OW_OP_orion_grant, &grant, sizeof(grant));
    run();
}

/* ---- giving back ---- */

static uint64_t given[GIVEN_MAX];
static unsigned nr_given;

static void note_handle(uint64_t id, void *real, void *data, void *arg)
{
    (void)real, (void)data, (void)arg;
    if (nr_given < GIVEN_MAX)
        given[nr_given++] = id;
}

static void give_back(void)
{
    uint8_t payload[64];

    for (const struct fuzz_end *e = fuzz_ends; e->kind; e++) {
        nr_given = 0;
        oh_each((enum ow_kind)e->kind, note_handle, NULL);
        for (unsigned i = 0; i < nr_given; i++) {
            memset(payload, 0, sizeof(payload));
            memcpy(payload + e->at, &given[i], 8);
            if (e->how)
                payload[8] = e->how;
            post(e->op, payload, e->bytes);
        }
        run();
    }
    for (uint64_t image = 0; image < 16; image++)
        post(OW_OP_orion_image_drop, &image, 8);
    post(OW_OP_orion_thread_exit, payload, 0);
    run();
    for (uint64_t off = BLOCK + OC_CHANNEL_BYTES; off < next_grant; off += OC_EXTENT_BYTES)
        if (oh_region(off, OC_EXTENT_BYTES) && oh_extents_release(off, OC_EXTENT_BYTES) != CUDA_SUCCESS)
            return; /* part of a larger grant, or in use: later ones find no room sooner */
    next_grant = BLOCK + OC_CHANNEL_BYTES;
}

/* ---- libFuzzer ---- */

static void be_thread_0(void)
{
    self = make(0);
    if (!self)
        abort();
    self->pub.thread = pthread_self();
    atomic_store(&twins[0], self);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const uint64_t bases[OC_NR_BASES] = OC_BASES;
    const char *driver = getenv("FUZZ_DRIVER");
    int s[2], fd = memfd_create("region", MFD_CLOEXEC);

    (void)argc, (void)argv;
    if (!driver || fd < 0 || ftruncate(fd, REGION) || socketpair(AF_UNIX, SOCK_STREAM, 0, s) || s[1] != s[0] + 1)
        abort();
    oh_config = (struct oh_config){ .socket_fd = s[0], .region_fd = fd, .control_fd = -1, .doorbell_fd = -1, .group_fd = -1, .base = bases[0],
                                    .region_bytes = REGION, .block_off = BLOCK, .channel_id = 1, .nr_devices = 2,
                                    .limits = { DEVICE_BYTES, DEVICE_BYTES } };
    region = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (region == MAP_FAILED)
        abort();
    oc_channel_init((struct oc_channel *)(void *)(region + BLOCK), 1);
    oh_log_open("/dev/null");
    oh_spin_setup();
    if (oh_reserve_bases() || oh_load_driver(driver) || oh_devices_start() || oh_extents_start() || oh_transport_start()) {
        fprintf(stderr, "cannot start: %s\n", oh_last_error());
        abort();
    }
    be_thread_0();
    start_ring();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    begin();
    while (size >= 5) {
        uint32_t which = (uint32_t)(data[0] | data[1] << 8), what = data[2], bytes = (uint32_t)(data[3] | data[4] << 8);
        const struct fuzz_op *op = &fuzz_ops[which % FUZZ_NR_OPS];

        data += 5, size -= 5;
        bytes = bytes < size ? bytes : (uint32_t)size;
        if (what & LIES)
            lie(data, bytes);
        else if (bytes <= OC_CMD_MAX_LINES * OC_LINE / 2)
            post(op->op, data, bytes);
        data += bytes, size -= bytes;
    }
    run();
    give_back();
    return 0;
}
