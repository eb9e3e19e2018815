/* SPDX-License-Identifier: Apache-2.0 */
/* What the modules of the guest library share: the path of one call, handles, threads, contexts. */
#ifndef OG_CLIENT_H
#define OG_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include <orion/layout.h>
#include <orion/ring.h>

#include "gen/cuda_abi.h" /* CUresult, CUstream, ... and the prototypes, from the spec */
#include "wire.h"         /* struct ow_<function>_in/_out, enum ow_op, enum ow_kind */

#define OG_EXPORT __attribute__((visibility("default")))
#define OG_MUST_CHECK __attribute__((warn_unused_result))

/* ---- state.c: life of the library ---- */
enum og_life {
    OG_NEW = 0,      /* before cuInit: CUDA_ERROR_NOT_INITIALIZED */
    OG_INITIALIZED,  /* cuInit done, enumeration works, no channel yet */
    OG_CONNECTED,    /* channel open */
    OG_LOST,         /* channel ended: every call returns og_lost_result */
    OG_FORKED,       /* child of a process that used CUDA: NOT_INITIALIZED, nothing shared is touched */
    OG_EXITED,       /* our destructor ran: DEINITIALIZED */
};
extern _Atomic int og_life;

/* CUDA_SUCCESS when cuInit was called and the process may use CUDA; connects nothing. */
OG_MUST_CHECK CUresult og_check_init(void);
/* As og_check_init, and opens the channel (allocation, handshake) if there is none. */
OG_MUST_CHECK CUresult og_connect(void);
/* Lines for people: ~/.orion/log and, for errors that end something, one line on stderr. */
void og_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
void og_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Body of cuInit: settings, region, snapshot, visible devices; idempotent. */
OG_MUST_CHECK CUresult og_init(void);
/* Logs once per name that an unsupported function or table was asked for. */
CUresult og_unsupported(const char *name);

/* ---- snapshot.c: what is known before a channel exists ---- */
const struct oc_snapshot *og_snapshot(void); /* NULL before og_check_init succeeded */
int og_nr_devices(void);                     /* vGPUs of this process after CUDA_VISIBLE_DEVICES */
uint64_t og_device_bytes(int device);        /* ORION_GMEM or the default */
const struct oc_snap_gpu *og_device_gpu(int device);
void og_device_uuid(int device, uint8_t uuid[16]);
int og_device_bus(int device);               /* PCI bus number of the vGPU; domain 0, device 0 */

/* ---- call.c: the path of one call ---- */
struct og_call {
    struct oc_cmd *cmd;
    void *in;            /* payload to fill, `bytes` long, zeroed is NOT promised */
    const void *out;     /* reply payload after og_call, valid until this thread's next call */
    uint32_t out_bytes;
    uint64_t seq;
    bool more;           /* set before og_post: this thread's next command follows at once and wakes the host */
};
/* Takes the submission lock and reserves room for a command of `bytes` payload; on success
 * exactly one of og_post, og_call or og_abandon follows. Fails with the library's state
 * (not initialised, lost, ...), or with the sticky error of the current device. */
OG_MUST_CHECK CUresult og_begin(struct og_call *c, uint32_t op, uint32_t bytes);
OG_MUST_CHECK CUresult og_sticky(void); /* that error alone, for what is answered here; after og_connect */
CUresult og_post(struct og_call *c);  /* one way */
CUresult og_call(struct og_call *c);  /* round trip; the host's CUresult */
void og_abandon(struct og_call *c);
/* Longest payload of one command. */
#define OG_MAX_PAYLOAD ((OC_CMD_MAX_LINES - 1) * OC_LINE)
/* True when the host knows operation `op`. */
bool og_peer_knows(uint32_t op);
/* Tells the transport that [off, off+bytes) of the channel block or region was written by us
 * before a command that refers to it (nothing to do over shared memory; sends it over TCP). */
void og_flush(uint64_t region_off, uint64_t bytes);
bool og_shared_memory(void);             /* false: TCP transport */
struct oc_channel *og_channel(void);     /* the mapped channel block, after og_connect */
void *og_region(void);                   /* base of the mapped region (block itself over TCP) */
uint64_t og_block_off(void);             /* channel block's offset in the region */

/* ---- wait.c ---- */
/* Waits until ready(arg) (host-written words, read with acquire) or the channel ends: then the
 * result of the library's state. Spins adaptively, then sleeps. `parked` is the word that makes the
 * host send a wake-up after its store (slot's, callback_parked); NULL: looks again every millisecond at
 * most. Hold no lock. */
OG_MUST_CHECK CUresult og_wait(bool (*ready)(void *arg), void *arg, _Atomic uint32_t *parked);

/* ---- handles.c: handles that the client mints ---- */
/* bits 4..23 index, 24..39 generation, 40..45 kind; never NULL, 1 or 2. */
OG_MUST_CHECK uint64_t og_mint(enum ow_kind kind);  /* 0: table full */
void og_unmint(enum ow_kind kind, uint64_t handle);
bool og_valid(enum ow_kind kind, uint64_t handle);  /* lock-free */
void og_set_data(uint64_t handle, void *data);      /* client-side object of a handle */
void *og_data(uint64_t handle);
uint64_t og_made_in(uint64_t handle); /* the context that was current when the handle was made, 0: none */
/* Replaces *seen by data; false: it is something else by now, see *seen. Of a dead handle nothing is left to do: true. */
bool og_swap_data(uint64_t handle, void **seen, void *data);
uint32_t og_index(uint64_t handle); /* small: a freed one is used again first */
void og_each(enum ow_kind kind, void (*visit)(uint64_t handle, void *data, void *arg), void *arg);

/* ---- thread.c: guest threads ---- */
struct og_thread {
    uint32_t slot;        /* completion slot, OC_NR_SLOTS when none is held yet */
    int device;           /* of the current context, -1: no context */
    unsigned depth;       /* of the context stack */
    uint64_t stack[64];   /* CUcontext handles; top is current */
    uint64_t host_ctx;    /* what the executor's twin has current (last cuCtxSetCurrent sent) */
    bool in_callback;     /* a host function runs on this thread: CUDA calls are NOT_PERMITTED */
    CUresult last_launch; /* scratch for launch.c */
    bool exchanging;      /* variable.c: inside an exchange of managed variables */
    bool syncing;         /* og_begin is inside og_sync_context, whose commands need no context */
    uint32_t spin_ns;     /* wait.c: how long the next wait may spin */
    uint64_t rest_until;  /* wait.c: no spinning before, this thread was preempted while it spun */
};
struct og_thread *og_self(void); /* of the calling thread, made at its first call */
extern _Atomic int og_talkers;   /* threads that hold a completion slot */

/* ---- context.c ---- */
uint64_t og_current(void);                 /* current CUcontext handle or 0 */
/* Makes the twin's current context equal to this thread's before a command that depends on it;
 * og_begin calls it. CUDA_ERROR_INVALID_CONTEXT when there is none and `needed`. */
OG_MUST_CHECK CUresult og_sync_context(bool needed);
/* A call on a stream or an event needs no current context: where there is none, the one that it was made in is
 * current until the end of the block. */
#define OG_ON(object) OG_LENT_ = og_lend(object)
#define OG_LENT_ struct og_thread *lent_ __attribute__((cleanup(og_take_back), unused))
struct og_thread *og_lend_context(uint64_t context); /* NULL: nothing was lent */
void og_take_back(struct og_thread **lent);
static inline struct og_thread *og_lend(uint64_t object)
{
    return __builtin_expect(og_self()->depth != 0 || object <= 2, 1) ? NULL : og_lend_context(og_made_in(object));
}
uint64_t og_context_number(uint64_t context); /* cuCtxGetId of this incarnation */
/* Runs f(context) when a context dies (reset, last release, destroy), without locks held. */
void og_on_context_death(void (*f)(uint64_t context));

/* ---- memory.c: host memory of the region ---- */
/* True when [p, p+bytes) lies in one live pinned allocation of this process (mapped at the
 * same address in the worker). */
bool og_is_pinned(const void *p, uint64_t bytes);
/* Grants for images, staging and pinned memory: region offset of `bytes` (rounded up to
 * extents), mapped and registered by the worker. */
OG_MUST_CHECK CUresult og_grant(uint64_t bytes, uint64_t *region_off);
void og_release(uint64_t region_off, uint64_t bytes);

/* ---- staging.c: bulk bytes between ordinary guest memory and the worker ---- */
/* Reserves a piece (at most *bytes, *bytes is lowered) of staging memory; waits for older
 * pieces when full. The piece is busy until its fence (numbers from og_fence_next) is done. */
OG_MUST_CHECK CUresult og_staging_get(uint64_t *bytes, uint64_t *region_off, void **p);
uint64_t og_fence_next(void);
OG_MUST_CHECK CUresult og_fence_wait(uint64_t fence);
void og_staging_fence(uint64_t region_off, uint64_t fence); /* piece is free once `fence` is done */

/* ---- module.c: functions ---- */
struct og_function {
    uint64_t handle;
    uint16_t nr_params, params_bytes;
    uint16_t *offset, *size;
    _Atomic uint64_t checked; /* hash of the last (block, shared) that a round trip accepted */
    int device;
};
/* Accepts CUfunction and CUkernel; NULL: not one of ours. */
struct og_function *og_function(uint64_t handle);

/* ---- array.c: what the driver does on a stream for the variants of functions that name none ---- */
OG_MUST_CHECK CUresult og_memcpy_AtoD_async(CUdeviceptr dst, CUarray src, size_t at, size_t bytes, CUstream stream);
OG_MUST_CHECK CUresult og_memcpy_DtoA_async(CUarray dst, size_t at, CUdeviceptr src, size_t bytes, CUstream stream);
OG_MUST_CHECK CUresult og_memcpy_AtoA_async(CUarray dst, size_t dst_at, CUarray src, size_t src_at, size_t bytes,
                                            CUstream stream);

/* ---- mark.c: how far the GPU has come, read from shared memory ---- */
/* True where marks exist and none could be recorded into a graph. */
bool og_can_mark(void);
/* marks[index] becomes `value` when all that `stream` holds now is done. */
void og_mark(uint64_t stream, uint32_t index, uint64_t value);
uint64_t og_marked(uint32_t index);
/* After a launch: waits while the stream holds so many that the host's driver would block on the next one, and
 * with it the commands of this process's other threads. */
void og_launched(uint64_t stream);

/* ---- event.c ---- */
/* Something else than cuEventRecord may record it from now on. */
void og_event_shared(uint64_t event);

/* ---- callback.c ---- */
OG_MUST_CHECK CUresult og_callbacks_start(void); /* starts the callback thread once */

/* ---- stream.c ---- */
/* 0, 1, 2 and minted streams are valid. */
bool og_stream_valid(uint64_t stream);
uint64_t og_stream_id(uint64_t context, uint64_t stream); /* unique by incarnation */
extern _Atomic int og_captures; /* captures that may be active in this process */

#endif
