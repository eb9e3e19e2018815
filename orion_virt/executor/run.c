/* SPDX-License-Identifier: Apache-2.0 */
/* What the Python shell calls: reserve the bases, load the driver, serve one channel to its end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "extra.h"
#include "limit.h"
#include "loop.h"
#include "turn.h"

#define EXPORT __attribute__((visibility("default")))
#define EXIT_SIGBUS 77      /* status of a worker whose region was truncated under it */
#define EXIT_SIGSEGV 78     /* status of a worker whose guest gave memory back that its work still used */
#define TWINS_GRACE_MS 300u /* for threads inside the driver, before the process ends anyway */

EXPORT int oh_config_bytes(void); /* lets the shell check that it fills the same struct */

struct oc_channel *oh_channel;
struct oh_config oh_config = {
    .socket_fd = -1, .region_fd = -1, .control_fd = -1, .doorbell_fd = -1, .group_fd = -1, .listen_fd = -1
};

int oh_config_bytes(void)
{
    return (int)sizeof(struct oh_config);
}

static const uint64_t bases[OC_NR_BASES] = OC_BASES;
static bool reserved[OC_NR_BASES];

bool oh_base_reserved(uint64_t base)
{
    for (unsigned i = 0; i < OC_NR_BASES; i++)
        if (bases[i] == base)
            return reserved[i];
    return false;
}

EXPORT int oh_reserve_bases(void)
{
    int got = 0;

    for (unsigned i = 0; i < OC_NR_BASES; i++) {
        void *want = (void *)(uintptr_t)bases[i];
        void *p = mmap(want, OC_BASE_WINDOW, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

        reserved[i] = p == want;
        got += reserved[i];
        if (p != want && p != MAP_FAILED)
            munmap(p, OC_BASE_WINDOW); /* a kernel before 4.17 takes the address as a hint */
    }
    if (!got)
        oh_set_error("no region base address is free: %s", strerror(errno));
    return got ? 0 : -EEXIST;
}

EXPORT int oh_load_driver(const char *path)
{
    void *dl;
    CUresult r;

    oh_output_redirect();
    dl = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!dl) {
        oh_set_error("cannot load the driver library: %s", dlerror());
        return -ENOENT;
    }
    *(void **)&oh_running = dlsym(dl, "orion_sim_running");
    oh_driver_resolve(dl); /* functions that this driver is too old for stay NULL */
    oh_report_open(dl);
    if (!oh_drv.cuInit) {
        oh_set_error("%s is no CUDA driver library: cuInit is missing", path);
        return -ENOEXEC;
    }
    r = oh_drv.cuInit(0);
    if (r != CUDA_SUCCESS)
        oh_set_error("cuInit of %s failed: error %d", path, (int)r);
    return (int)r;
}

/* Only async-signal-safe calls from here. */
static void last_words(const char *line, size_t bytes, const char *reason, int status)
{
    struct oh_control m = { .kind = OH_CLOSED, .a = OC_CLOSED_WORKER };

    memcpy(m.text, reason, strnlen(reason, sizeof(m.text) - 1));
    if (write(oh_log_fd(), line, bytes) < 0)
        _exit(status);
    send(oh_config.control_fd, &m, sizeof(m), MSG_NOSIGNAL | MSG_DONTWAIT);
    _exit(status);
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    static const char text[] = "SIGBUS: the region was truncated or has lost its memory; this worker ends\n";

    (void)sig, (void)info, (void)context;
    last_words(text, sizeof(text) - 1, "the region was truncated", EXIT_SIGBUS);
}

/* Region memory that was given back stays reserved: work still queued on it, a graph's node for one, ends here. What
 * else goes wrong is the driver's or ours: by default, with the signal as status. */
static void on_sigsegv(int sig, siginfo_t *info, void *context)
{
    static const char text[] = "SIGSEGV: region memory was used after it was given back; this worker ends\n";
    uint64_t at = (uintptr_t)info->si_addr;

    (void)context;
    if (at >= oh_config.base && at - oh_config.base < oh_config.region_bytes)
        last_words(text, sizeof(text) - 1, "region memory was used after it was given back", EXIT_SIGSEGV);
    signal(sig, SIG_DFL); /* the instruction runs again */
}

static int catch_faults(void)
{
    struct sigaction bus = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
    struct sigaction segv = { .sa_sigaction = on_sigsegv, .sa_flags = SA_SIGINFO };

    return sigaction(SIGBUS, &bus, NULL) || sigaction(SIGSEGV, &segv, NULL) ? -errno : 0;
}

/* Line 0 was written by the daemon, but the guest could have changed it: check what we use. */
static int check_layout(const struct oc_channel *c)
{
    if (c->magic == OC_MAGIC && c->ring_off == OC_RING_OFF && c->slots_off == OC_SLOTS_OFF &&
        c->callbacks_off == OC_CALLBACKS_OFF)
        return 0;
    oh_set_error("the channel block at region offset 0x%llx is not laid out as this version does it",
                 (unsigned long long)oh_config.block_off);
    return -EPROTO;
}

static int start(void)
{
    int err;

    oh_spin_setup();
    err = oh_devices_start();
    if (!err)
        err = catch_faults();
    if (!err && oh_config.turns)
        err = oh_turns_start();
    if (!err && oh_config.kernel_seconds)
        err = oh_limit_start();
    if (!err)
        err = oh_watch_open();
    if (!err)
        err = oh_extents_start();
    if (!err)
        err = oh_transport_start();
    if (!err)
        err = check_layout(oh_channel);
    if (!err)
        err = oh_extra_start(); /* a thread, whose stack must not lie where the region belongs */
    if (err) {
        if (!oh_last_error()[0])
            oh_set_error("cannot start: %s", strerror(-err));
        return err;
    }
    oh_baton_start(oh_channel, (uint8_t *)oh_channel + OC_RING_OFF);
    err = oh_poll_start();
    if (err)
        oh_set_error("no thread to watch the ring: %s", strerror(-err));
    return err;
}

/* Before the guest hears of it: once that has gone, little time is left to us, and the reason must not be lost. */
static void tell_why(int why)
{
    struct oh_control m = { .kind = OH_CLOSED, .a = (uint64_t)why };

    snprintf(m.text, sizeof(m.text), "%s", oh_last_error());
    oh_control_tell(&m);
}

EXPORT int oh_run(const struct oh_config *config)
{
    int err, why;

    oh_config = *config;
    oh_config.log_path[sizeof(oh_config.log_path) - 1] = 0;
    oh_log_open(oh_config.log_path);
    oh_stats_setup();
    err = start();
    if (err) {
        oh_log("channel not started: %s", oh_last_error());
        return err;
    }
    oh_log("channel open, %u device(s), %s", oh_nr_devices, oh_config.region_fd < 0 ? "TCP" : oh_config.polled ? "shared memory, polled" : "shared memory");
    oh_watch_run();
    why = atomic_load(&oh_ending);
    atomic_store(&oh_channel->closed, (uint32_t)why);
    if (why != OC_CLOSED_BY_GUEST) {
        if (why != OC_CLOSED_SERVER) /* who ended it knows */
            tell_why(why);
        oh_wake();
    }
    /* Memory stays mapped: threads inside the driver may still use it until the process ends. */
    if (!oh_twins_wait_gone(TWINS_GRACE_MS))
        oh_log("%u thread(s) still inside the driver", oh_twins_alive());
    oh_control_progress();
    oh_stats_report();
    return why;
}
