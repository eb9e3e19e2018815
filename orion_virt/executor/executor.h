/* SPDX-License-Identifier: Apache-2.0 */
/* What the modules of the executor share: channel, twin threads, handle tables, ledger, replies. */
#ifndef OH_EXECUTOR_H
#define OH_EXECUTOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <orion/layout.h>
#include <orion/ring.h>

#include "gen/cuda_abi.h"
#include "gen/driver.h" /* struct oh_driver oh_drv: one pointer for each driver function */
#include "wire.h"

#define OH_MUST_CHECK __attribute__((warn_unused_result))
/* Not a CUresult: the command is malformed, end the channel. Set a reason with oh_fault(). */
#define OH_FAULT ((CUresult)-1)

struct oh_device {
    int ordinal;             /* of the physical card in this process */
    bool primary;            /* uses the card's primary context; else a created one plays it */
    CUcontext context;       /* NULL while not active */
    uint64_t limit_bytes;    /* ORION_GMEM */
    uint64_t base_bytes;     /* of its first context, booked at placement */
    _Atomic uint64_t *used_bytes; /* of this process; in the group's page where there is one */
};

/* Given by the Python shell; plain C so that ctypes can fill it. */
struct oh_config {
    int socket_fd;           /* the client's connection: wake-ups, liveness (frames over TCP) */
    int region_fd;           /* -1 over TCP */
    int control_fd;          /* SOCK_SEQPACKET to the daemon: struct oh_control */
    int turns;               /* 1: compute limits are on, work waits for its turn */
    int doorbell_fd;         /* eventfd that the guest rings, -1: none */
    int polled;              /* the client cannot be woken and cannot wake: each side looks */
    uint64_t base, region_bytes, block_off;
    uint32_t channel_id, nr_devices;
    int32_t ordinals[OC_MAX_DEVICES];
    uint64_t limits[OC_MAX_DEVICES]; /* bytes */
    uint64_t context_bytes[OC_MAX_DEVICES]; /* of a bare context, booked beside the limit; 0: not known */
    int group_fd;            /* page of the processes that share the allocation; -1: it is ours alone */
    uint32_t group_row;      /* ours in it */
    int listen_fd;           /* where the next daemon finds us when this one has ended; -1: then we end too */
    uint32_t keep_seconds;   /* for how long we wait for it */
    uint32_t kernel_seconds; /* the longest that a kernel may run, 0: as long as it likes */
    char log_path[256];
};

/* Worker <-> daemon after the start message. */
enum oh_control_kind {
    OH_GRANT = 1,    /* a = bytes -> a = region offset, b = bytes (whole extents, adjacent) */
    OH_RELEASE = 2,  /* a = region offset, b = bytes; no answer */
    OH_CLOSED = 3,   /* worker says why the channel ended: a = enum oc_close; text follows */
    OH_STOP = 4,     /* daemon: end the channel with a = enum oc_close */
    OH_USAGE = 5,    /* worker: a = device index, b = bytes in use; status: what the driver takes for itself is 0 not known
                        yet, 1 measured, 2 estimated; at most once a second */
    /* Sharing between the workers of a domain; token and handle are OC_TOKEN_BYTES each, kinds enum oc_share. */
    OH_SHARE = 6,    /* a = kind, b = bytes of memory, text = the driver's handle, or its descriptor comes along -> text = token */
    OH_OPEN = 7,     /* a = kind, text = token -> b = bytes, text = handle, or the descriptor; -ENOENT */
    OH_UNSHARE = 8,  /* text = token: this worker has no more part in it -> status */
    /* Pages that processes of a domain share, in region memory of which each has a part. */
    OH_PAGES = 10,        /* a = bytes, text = file and offset, 24 bytes -> a = region offset, b = bytes; status 0, 1: fill it,
                             -EAGAIN: another does; -EEXIST: another piece of that file overlaps it */
    OH_PAGES_FILLED = 11, /* a = region offset -> status */
    OH_PAGES_END = 12,    /* a = region offset -> status */
    /* Compute limits; a = device index of the first vGPU on a card. */
    OH_TURN = 13,      /* daemon: b = 1 begin, alone on the card; 2 begin, others wait; 0 end when the work is done */
    OH_TURN_WANT = 14, /* worker: there is work, and no turn */
    OH_TURN_DONE = 15, /* worker: the work of this turn is done, the turn is over */
    OH_PROGRESS = 20, /* worker: a = commands executed, b = bytes that copies carried, since the start; at most once a second */
    OH_KERNEL = 28,   /* worker: a of b blocks of the kernel that has run for longest are done, status = its seconds, text = name;
                         b = 0: none runs long. Where the driver tells (the simulated GPU's); at most once a second */
    OH_OWN = 9,      /* daemon: text = token: whoever booked the memory is gone, book it yourself */
    /* A daemon has ended and another takes this worker up. */
    OH_RESUME = 21,       /* daemon, first of all: a = OH_PROTOCOL; the worker tells what it has, then sends OH_RESUME back */
    OH_HAVE_CLIENT = 22,  /* the client's connection comes along */
    OH_HAVE_GROUP = 23,   /* the group's page comes along */
    OH_HAVE_EXTENT = 24,  /* a = region offset, b = bytes: granted to it, its block among them */
    OH_HAVE_PAGES = 25,   /* as OH_PAGES is answered, and text = file and offset, then the bytes asked for; status 1: not filled yet */
    OH_HAVE_SHARE = 26,   /* a = kind, b = bytes, status = enum oh_part, text = token, handle; the descriptor comes along */
    OH_CLIENT = 27,       /* daemon: a new connection to the client comes along, in place of one that ended with the former daemon */
};
enum oh_part { OH_PART_MADE = 1, OH_PART_PAYS = 2 };
#define OH_PROTOCOL 1 /* of all that daemon and worker say to each other once a channel is open */
struct oh_control {
    uint32_t kind;
    int32_t status;  /* answers: 0 or -errno */
    uint64_t a, b;
    char text[232];
};

/* Exported to the Python shell (ctypes); each returns 0 or a negative errno / CUresult > 0. */
int oh_reserve_bases(void);               /* PROT_NONE over OC_BASES, before the driver starts */
int oh_load_driver(const char *path);     /* dlopen + cuInit */
int oh_run(const struct oh_config *config); /* until the channel ends; returns enum oc_close */
const char *oh_last_error(void);

/* What the simulated GPU's library has beyond a driver's; NULL: a card's. The kernel that has run for longest; 0: none. */
extern int (*oh_running)(char *name, size_t room, uint64_t *done, uint64_t *blocks, uint64_t *ns);

/* For people, told by OH_PROGRESS: commands (written by the baton's holder) and bytes of linear copies. */
extern _Atomic uint64_t oh_nr_commands, oh_bytes_copied;

struct oh_twin {                 /* host thread of one guest thread */
    uint32_t slot;
    pthread_t thread;
    CUresult deferred;           /* first error of a one-way command not yet reported */
    uint64_t deferred_seq;
    uint32_t deferred_op;
    int device;                  /* of the current context, -1: none */
    int stack_slot;              /* place of that context in stack.c, -1: none */
    uint8_t *buffer;             /* private copy of the command being executed */
    void *scratch;               /* for family code */
};

/* A driver function that the host's driver, or the simulated one, may lack. */
#define OH_CALL(function, ...) (oh_drv.function ? oh_drv.function(__VA_ARGS__) : CUDA_ERROR_NOT_SUPPORTED)

/* ---- loop.c ---- */
typedef CUresult oh_dispatch_fn(struct oh_twin *t, const void *in, uint32_t bytes, void *out, uint32_t *out_bytes);
struct oh_op {
    oh_dispatch_fn *run;   /* NULL: number not in use */
    const char *name;
    uint32_t in_bytes;     /* fixed part, checked before run */
    bool blocks;           /* the loop gives up the baton first */
    bool reports;          /* a deferred error of this thread is reported here */
    bool works;            /* brings work to the card, which takes a turn where compute limits are on */
    bool grows;            /* the driver may take memory of the card for itself */
};
extern const struct oh_op oh_ops[OW_NR_OPS]; /* generated */
/* For calls that turn out to block: gives up the baton (idempotent until the next command). */
void oh_unlock_ring(struct oh_twin *t);
/* Ends the channel after this command; returns OH_FAULT. */
CUresult oh_fault(struct oh_twin *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void oh_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- handles.c ---- */
/* The driver's handle behind a client's; `id` must be of `kind` and live, else the CUresult that
 * CUDA gives for that kind (INVALID_HANDLE, INVALID_CONTEXT, ...). Streams 0, 1, 2 pass. */
OH_MUST_CHECK CUresult oh_get(enum ow_kind kind, uint64_t id, void **real);
OH_MUST_CHECK CUresult oh_put(enum ow_kind kind, uint64_t id, void *real); /* OH_FAULT when taken or out of range */
void oh_del(enum ow_kind kind, uint64_t id);
/* Deletes and tells what it was: of two threads that destroy one handle, one is told true. */
OH_MUST_CHECK bool oh_take(enum ow_kind kind, uint64_t id, void **real, void **data);
uint64_t oh_find(enum ow_kind kind, void *real); /* client's id of a driver handle, 0: unknown */
void oh_set_data(enum ow_kind kind, uint64_t id, void *data);
void *oh_data(enum ow_kind kind, uint64_t id);

/* ---- ledger.c: device memory that belongs to this client ---- */
void oh_ledger_add(uint64_t ptr, uint64_t bytes, int device, uint64_t booked);
uint64_t oh_ledger_del(uint64_t ptr);   /* bytes of the entry that starts at ptr, 0: none; unbooks */
/* `kept`: the entry outlives frees (memory of graphs, which their next launch makes again); no longer kept, it goes when the
 * driver gives its address anew. */
void oh_ledger_keep(uint64_t ptr, bool kept);
bool oh_ledger_has(uint64_t ptr, uint64_t bytes);
bool oh_ledger_find(uint64_t ptr, uint64_t *start, uint64_t *bytes, int *device);
/* A ledger entry taken out before the driver frees it: once the driver has freed an address, another
 * thread's allocation may get it, and two frees of one address must not both reach the driver. */
struct oh_entry {
    uint64_t ptr, bytes, booked;
    int device;
    struct oh_share *share;
};
/* False when no allocation of the client starts at `ptr`; then the driver frees it and one of the other two follows. */
OH_MUST_CHECK bool oh_entry_take(uint64_t ptr, struct oh_entry *e);
void oh_entry_drop(const struct oh_entry *e);    /* it is free: unbooks */
void oh_entry_restore(const struct oh_entry *e); /* the driver refused */
/* group.c: what the processes of a group have booked counts for each of them */
#define OH_GROUP_ROWS 64
int oh_group_start(void);             /* 0 or a negative errno */
uint64_t oh_others_bytes(int device); /* booked by the group's other processes */
uint64_t oh_used_bytes(int device);   /* and by this one */
OH_MUST_CHECK CUresult oh_book(int device, uint64_t bytes); /* CUDA_ERROR_OUT_OF_MEMORY over the limit */
void oh_book_anyway(int device, uint64_t bytes); /* memory that exists: the limit then refuses what comes next */
void oh_unbook(int device, uint64_t bytes);
/* extra.c: what is booked, and what the driver takes beside it. `most`: that may be taken beyond `bytes` and their last piece. */
OH_MUST_CHECK CUresult oh_book_rounded(int device, uint64_t bytes, uint64_t most);
extern void (*_Atomic oh_trim_pools)(void); /* has pools give back what they keep; set by pool.c */
/* Ties a share to the entry that starts at ptr unless it has one; returns the one it has. NULL: no entry. */
struct oh_share *oh_ledger_share(uint64_t ptr, struct oh_share *share);
/* Called for the share of an entry that goes, `owner`: the entry was booked here. Set by share.c. */
extern void (*_Atomic oh_share_gone)(struct oh_share *share, bool owner);

/* ---- extents.c: region memory granted to this channel ---- */
/* Host address of region bytes of ours ([off, off+bytes) inside one grant), NULL: not ours. */
void *oh_region(uint64_t off, uint64_t bytes);
bool oh_is_ours(const void *p, uint64_t bytes);         /* same test by address */
OH_MUST_CHECK CUresult oh_extents_grant(uint64_t bytes, uint64_t *off, uint64_t *got);
OH_MUST_CHECK CUresult oh_extents_release(uint64_t off, uint64_t bytes);
CUresult oh_extents_register(void); /* (again) in the current context: after its first creation or reset; a
                                       failure is logged and never fails the context: returns CUDA_SUCCESS */
void oh_flush(uint64_t region_off, uint64_t bytes);     /* as og_flush, towards the guest */

/* ---- context.c ---- */
extern struct oh_device oh_devices[OC_MAX_DEVICES];
extern uint32_t oh_nr_devices;
/* Publishes a sticky error of the twin's current device if `r` is one. */
void oh_note_sticky(struct oh_twin *t, CUresult r);

extern struct oc_channel *oh_channel;
extern struct oh_config oh_config;

/* ---- additions for family code ---- */
/* Wakes the guest's sleepers (after a store to fence_done, a callback, ...): one byte, or over TCP
 * the changed host-written words of the channel and a wake-up frame. Any thread, never holds the baton. */
void oh_wake(void);
/* Ends the channel from any thread; the first reason wins. */
void oh_end(enum oc_close why, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Takes a sticky error back, after a reset of the device's context. */
void oh_clear_sticky(int device);
/* Calls f(real, data) for every live handle of `kind`; f may oh_del it. */
void oh_each(enum ow_kind kind, void (*f)(uint64_t id, void *real, void *data, void *arg), void *arg);
/* The last context of a device has ended, and with it the client's allocations there. */
void oh_ledger_drop(int device);
/* The context that owns what the calling twin makes, as the client calls it: the current one, or of a green one the
 * primary that it is part of; 0: none. */
uint64_t oh_current_context(void);
int oh_context_device(CUcontext real); /* the client's device, -1: not one of its contexts */
void oh_retire(void *p); /* frees data of a handle once no other thread's command can be looking at it */
/* oh_twin.scratch is memory from malloc; orion_thread_exit frees it. */

#endif
