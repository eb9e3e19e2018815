/* SPDX-License-Identifier: Apache-2.0 */
/* Life of the library: cuInit, the opening of the channel, its loss. */
#include <sys/socket.h>

#include "core.h"
#include "moved.h"

/* A failure is answered again from memory for this long: libraries call on after the first error. */
#define REPEAT_NS 1000000000u

/* The driver's own word for a device that is gone; no framework retries on it. */
#define LOST_RESULT CUDA_ERROR_DEVICE_UNAVAILABLE
static _Atomic int lost_result = LOST_RESULT;

_Atomic int og_life = OG_NEW;
_Atomic int og_state_lock;

struct attempt {
    CUresult result;
    uint64_t at_ns; /* 0: none yet */
};
static struct attempt last_init, last_connect; /* under og_state_lock */

CUresult og_life_result(int life)
{
    switch (life) {
    case OG_INITIALIZED:
    case OG_CONNECTED:
        return CUDA_SUCCESS;
    case OG_LOST:
        return (CUresult)atomic_load(&lost_result);
    case OG_EXITED:
        return CUDA_ERROR_DEINITIALIZED;
    default: /* OG_NEW, OG_FORKED */
        return CUDA_ERROR_NOT_INITIALIZED;
    }
}

CUresult og_check_init(void)
{
    return og_life_result(atomic_load_explicit(&og_life, memory_order_acquire));
}

static bool repeats(const struct attempt *a)
{
    return a->at_ns && og_now_ns() - a->at_ns < REPEAT_NS;
}

static CUresult note(struct attempt *a, CUresult r)
{
    *a = (struct attempt){ r, r == CUDA_SUCCESS ? 0 : og_now_ns() };
    return r;
}

static void banner(void)
{
    static bool shown;

    if (!shown)
        og_announce(false, "Orion vGPU. Build-cuda-%s", og_build_id);
    shown = true;
}

static CUresult init_locked(void)
{
    CUresult r = og_settings_load();

    if (r != CUDA_SUCCESS)
        return r;
    banner();
    og_reserve_device_ranges();
    og_region_find(true);
    if (og_shared_region.base)
        og_settings_of_domain(&og_shared_region.header);
    r = og_visible_set();
    return r == CUDA_SUCCESS ? og_probe_server() : r;
}

CUresult og_init(void)
{
    int life = atomic_load(&og_life), fresh = OG_NEW;
    CUresult r;

    if (life != OG_NEW)
        return og_life_result(life);
    og_lock(&og_state_lock);
    if (atomic_load(&og_life) != OG_NEW)
        r = og_check_init();
    else if (repeats(&last_init))
        r = last_init.result;
    else
        r = note(&last_init, init_locked());
    if (r == CUDA_SUCCESS)
        atomic_compare_exchange_strong(&og_life, &fresh, OG_INITIALIZED);
    og_unlock(&og_state_lock);
    return r;
}

static CUresult connect_once(void)
{
    struct og_why why;
    CUresult r;

    if (og_shared_region.base && !og_region_reread(&why)) {
        og_say("no vGPU: the shared region is not valid now: %s. Was the domain restored or detached? Start the "
               "program again; if it persists, power-cycle the domain", why.text);
        return CUDA_ERROR_NO_DEVICE;
    }
    r = og_allocate(&og_link.allocation);
    if (r == CUDA_SUCCESS)
        r = og_handshake(&og_link.allocation);
    return r;
}

static CUresult connect_locked(void)
{
    CUresult r;

    og_away_begin();
    while ((r = connect_once()) == OG_AGAIN)
        ;
    return r;
}

static CUresult open_channel(void)
{
    int initialized = OG_INITIALIZED;
    struct og_why why;
    CUresult r = connect_locked();

    if (r != CUDA_SUCCESS)
        return r;
    if (!atomic_compare_exchange_strong(&og_life, &initialized, OG_CONNECTED))
        return og_life_result(initialized);
    if (!og_link.shm && og_tcp_start(&why) != CUDA_SUCCESS)
        og_lost(why.text, "the limits on threads and memory (ulimit -u, -v) of this process");
    og_log("channel %u, %s, allocation %s", og_link.channel_id, og_link.shm ? "shared memory" : "TCP",
           og_link.allocation.id);
    return og_check_init();
}

CUresult og_connect(void)
{
    int life = atomic_load_explicit(&og_life, memory_order_acquire);
    CUresult r;

    if (life != OG_INITIALIZED)
        return og_life_result(life);
    og_lock(&og_state_lock);
    life = atomic_load(&og_life);
    if (life != OG_INITIALIZED)
        r = og_life_result(life);
    else if (repeats(&last_connect))
        r = last_connect.result;
    else
        r = note(&last_connect, open_channel());
    og_unlock(&og_state_lock);
    return r;
}

void og_lost(const char *reason, const char *remedy)
{
    int open = OG_CONNECTED;

    if (!atomic_compare_exchange_strong(&og_life, &open, OG_LOST))
        return; /* at exit, or somebody has said it */
    og_say("the vGPU is lost: %s; every further CUDA call of this process fails. %s", reason, remedy);
    og_moved_all_back(); /* the host wipes what it gives to others */
    shutdown(og_link.fd, SHUT_RDWR);
    og_wake_waiters();
}

void og_lost_by_close(void)
{
    static const char again[] = "Start the program again; why it happened is in /var/log/orion/session on the host";
    static const char *const reasons[] = {
        "its connection to the host ended (worker killed, host or network down)",
        "the connection was closed from this side",
        "the worker found this process's commands malformed",
        "its worker on the host died or was stopped",
        "oriond on the host was stopped, or the domain was detached or restored",
        "a kernel ran for longer than the host allows ([server] longest_kernel of its server.conf)",
    };
    uint32_t why = atomic_load_explicit(&og_link.channel->closed, memory_order_acquire);

    if (why == OC_CLOSED_LIMIT)
        atomic_store(&lost_result, CUDA_ERROR_LAUNCH_TIMEOUT); /* as the driver's own watchdog */
    og_lost(reasons[why < sizeof(reasons) / sizeof(reasons[0]) ? why : 0], again);
}
