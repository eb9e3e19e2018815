/* SPDX-License-Identifier: Apache-2.0 */
/* Layout of a domain's region: what guest library, executor and daemon agree on. */
#ifndef ORION_LAYOUT_H
#define ORION_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Both sides are x86-64, little endian. No compatibility is kept between values
 * of OC_LAYOUT_VERSION; within one version fields are only appended. */
#define OC_MAGIC 0x31304e4f49524f55ull /* "UORION01", written last by the host */
#define OC_LAYOUT_VERSION 1u
#define OC_PCI_VENDOR 0x1af4u
#define OC_PCI_DEVICE 0x1110u

#define OC_EXTENT_BYTES (2ull << 20) /* unit of granting, one huge page */
#define OC_HEADER_BYTES (64u << 10)  /* header page and device snapshot */
#define OC_SNAPSHOT_OFF 4096u
#define OC_MAX_DEVICES 32u    /* vGPUs of one guest process */
#define OC_MAX_ADDRS 4u
#define OC_ADDR_BYTES 64u     /* "ip:port", NUL padded; IPv6 as "[ip]:port" */

/* Region base addresses, tried in this order by client and warm worker. All lie
 * above what the driver reserves at cuInit (up to 0x6a9a000000) and below both
 * the device allocations under ADDR_COMPAT_LAYOUT (0x2ab8..., inside
 * OC_DEVICE_LOW..OC_DEVICE_HIGH) and ordinary mmaps (0x7f...). */
#define OC_NR_BASES 4u
#define OC_BASES { 0x200000000000ull, 0x180000000000ull, 0x280000000000ull, 0x110000000000ull }
#define OC_BASE_WINDOW (64ull << 30) /* largest region that a warm worker can take */

/* The client reserves this range at load, so that no guest address equals a
 * device address; the simulated GPU allocates inside it. */
#define OC_DEVICE_LOW 0x2a0000000000ull
#define OC_DEVICE_HIGH 0x300000000000ull

/* Offset 0 of the region. Written by the daemon with pwrite, read by the guest. */
struct oc_header {
    uint64_t magic;            /* OC_MAGIC; zero while the rest is being written */
    uint32_t version;          /* OC_LAYOUT_VERSION */
    uint32_t header_bytes;     /* OC_HEADER_BYTES; the first extent starts at the next multiple of
                                  OC_EXTENT_BYTES, or here when the region is a single extent */
    uint64_t region_bytes;
    uint8_t domain_uuid[16];   /* big endian, as printed */
    uint8_t boot_id[16];       /* of the daemon; changes when the daemon restarts */
    uint8_t token[16];         /* secret: keys the handshake HMAC, never sent */
    uint64_t generation;       /* new at every domain start, restore and detach */
    uint64_t features;         /* OC_FEATURE_*; a side ignores those that it does not know */
    char server_addr[OC_MAX_ADDRS][OC_ADDR_BYTES]; /* ways to the same host, in the order to try */
    char controller_addr[OC_ADDR_BYTES]; /* with the host of the first of them: at each of them */
    uint32_t snapshot_bytes;   /* of the device snapshot at OC_SNAPSHOT_OFF; 0: none yet */
    uint32_t reserved;
    uint64_t heartbeat;        /* seconds, host's clock, for people: never compared with guest time */
    uint32_t default_vgpus;    /* where ORION_VGPU is not set; 0: 1. oriond enforces the domain's ceilings by itself */
    uint32_t default_memory_mib; /* where ORION_GMEM is not set; 0: the snapshot's default_bytes */
};

/* A store to the register BAR of the device wakes the worker; WELCOME says with which value. */
#define OC_FEATURE_DOORBELL 1ull

/* Device snapshot: what enumeration answers before any worker exists. */
#define OC_SNAP_ATTRS 256u
#define OC_SNAP_MAX_GPUS 16u
struct oc_snap_gpu {
    char name[96];
    uint64_t total_bytes;      /* of the physical card */
    uint64_t default_bytes;    /* of a vGPU when ORION_GMEM is not set */
    int32_t attr[OC_SNAP_ATTRS]; /* index = CUdevice_attribute, overrides applied; 0 where unknown */
    uint8_t attr_valid[OC_SNAP_ATTRS / 8];
};
struct oc_snapshot {
    uint32_t nr_gpus;          /* physical cards, in placement order */
    uint32_t driver_version;   /* cuDriverGetVersion, e.g. 13000 */
    uint32_t simulated;        /* 1: no NVIDIA card behind it */
    uint32_t vgpu_count;       /* slots per card */
    struct oc_snap_gpu gpu[OC_SNAP_MAX_GPUS]; /* only nr_gpus of them are stored */
};

/* ---- mailbox: connections of guests that no network joins to the host, in the header's pages behind the snapshot.
 * The guest's processes map it; the daemon reads and writes it with pread and pwrite. Each line has one writer, but
 * for `owner` and `bell`. Numbers that both sides compare fit into a byte, so that no copy of them can be torn. ---- */
#define OC_FEATURE_MAILBOX 2ull      /* in oc_header.features: the daemon serves the mailbox */
#define OC_MAILBOX_OFF 32768u
#define OC_MAIL_SLOTS 63u
#define OC_MAIL_DATA 192u            /* bytes of a packet */
#define OC_MAILBOX_BYTES ((OC_MAIL_SLOTS + 1) * 512u)
#define OC_OWNER_DIED 0x40000000u    /* FUTEX_OWNER_DIED: the kernel of a dead owner writes it */
enum oc_mail_service {
    OC_MAIL_SERVER = 1,         /* a connection to oriond: what TCP would carry, but for wake-ups */
    OC_MAIL_CONTROLLER = 2,     /* one question to its controller, as HTTP */
};

/* One connection. Each direction has one packet at a time: data and bytes first, then seq; the other side takes it and
 * repeats seq as its ack. A direction ends with fin, after the last ack. */
struct oc_mail_slot {
    /* [guest writes] A robust futex: 0 free, thread id of the owner (its claim: compare and exchange), OC_OWNER_DIED
     * from its kernel when that thread ended without releasing it. The daemon makes 0 of OC_OWNER_DIED, nobody else. */
    _Atomic uint32_t owner;
    _Atomic uint32_t opening;   /* [guest writes, release] number of the connection, 1..255, another than `opened` */
    _Atomic uint32_t seq;       /* [guest writes, release] of its newest packet: 0 at opening, then 1..255, 0, ... */
    uint32_t bytes;             /* [guest writes] of to_host */
    _Atomic uint32_t ack;       /* [guest writes, release] seq of the last packet of the host's that it took */
    _Atomic uint32_t fin;       /* [guest writes, release] 1: no further packet */
    uint32_t service;           /* [guest writes, before opening] enum oc_mail_service */
    uint32_t pad0;
    uint64_t epoch;             /* [guest writes, before opening] oc_mailbox.epoch as it saw it */
    uint64_t guest_boot;        /* [guest writes, before opening] of its kernel's boot_id; 0: unknown */
    uint8_t pad1[16];

    _Atomic uint32_t opened;    /* [host writes last] the opening that the following belongs to */
    _Atomic uint32_t host_seq;  /* [host writes] as seq */
    uint32_t host_bytes;        /* [host writes] of to_guest */
    _Atomic uint32_t host_ack;  /* [host writes] as ack */
    _Atomic uint32_t host_fin;  /* [host writes] 1: the connection has ended */
    uint8_t pad2[44];

    uint8_t to_host[OC_MAIL_DATA], to_guest[OC_MAIL_DATA];
};
struct oc_mailbox {
    _Atomic uint64_t epoch;     /* [host writes] new whenever earlier connections are void; 0: not served now */
    uint8_t pad0[56];
    _Atomic uint32_t bell;      /* [guests add] something was opened, released, or is to be looked after */
    uint8_t pad1[444];
    struct oc_mail_slot slot[OC_MAIL_SLOTS];
};

/* ---- channel block: one guest process. Starts at an extent boundary granted by
 * the daemon; every offset in it is relative to the block. ---- */
#define OC_LINE 64u                 /* one cache line, unit of the ring */
#define OC_RING_LINES 4096u         /* 256 KiB: about 1000 launches of run-ahead */
#define OC_CMD_MAX_LINES 1024u      /* longest command: 64 KiB */
#define OC_NR_SLOTS 512u            /* completion slots = live guest threads */
#define OC_SLOT_BYTES 1024u
#define OC_SLOT_OUT_BYTES 944u      /* reply payload in a slot */
#define OC_NR_CALLBACKS 64u
#define OC_NR_MARKS 448u            /* the first OC_EVENT_MARKS are for events, the others for launches on streams */
#define OC_EVENT_MARKS 256u
#define OC_CHANNEL_BYTES OC_EXTENT_BYTES

/* Why a channel ended; in oc_channel.closed. */
enum oc_close {
    OC_OPEN = 0,
    OC_CLOSED_BY_GUEST = 1,
    OC_CLOSED_PROTOCOL = 2,     /* guest sent a malformed stream */
    OC_CLOSED_WORKER = 3,       /* worker died or was stopped */
    OC_CLOSED_SERVER = 4,       /* daemon stopped, domain detached */
    OC_CLOSED_LIMIT = 5,        /* a kernel ran for longer than the host allows */
};

/* A host function to run in the guest, in stream order. */
struct oc_callback {
    _Atomic uint64_t seq;       /* [host writes, release] 1, 2, ...: entry seq-1 mod OC_NR_CALLBACKS is filled */
    uint64_t fn, data;          /* [host writes] guest pointers, as the guest gave them */
    uint32_t kind, status;      /* [host writes] 0: CUhostFn(data); 1: CUstreamCallback(stream,status,data) */
    uint64_t stream;            /* [host writes] guest handle, kind 1 */
    _Atomic uint64_t ack;       /* [guest writes, release] = seq when the function has returned */
    uint64_t pad[2];
};

/* Line 0 is constant. Each further line has one writer. */
struct oc_channel {
    uint64_t magic;             /* OC_MAGIC */
    uint32_t channel_id;
    uint32_t ring_off, slots_off, callbacks_off, staging_off, staging_bytes;
    uint8_t pad0[64 - 8 - 6 * 4];

    _Atomic uint64_t head;      /* [host writes, release] lines consumed, free running */
    uint8_t pad1[56];

    _Atomic uint32_t consumer_parked; /* [host writes] 1: send a wake byte after publishing */
    _Atomic uint32_t doorbell_heard; /* [host writes] 1: the doorbell has been heard, ringing it replaces the byte */
    uint8_t pad2[56];

    _Atomic uint32_t device_error[OC_MAX_DEVICES]; /* [host writes] sticky CUresult by vGPU, 0: none */

    _Atomic uint64_t fence_done; /* [host writes, release] all fences <= this are complete */
    _Atomic uint32_t closed;     /* [host writes] enum oc_close */
    _Atomic uint32_t callback_seq; /* [host writes, release] newest filled callback, low 32 bits */
    _Atomic uint64_t output_made; /* [host writes, release] bytes of output records so far */
    _Atomic uint64_t output_put; /* [host writes, release] of these, bytes that are or were in the output ring */
    _Atomic uint32_t worker;     /* [host writes] a robust futex of the worker's: OC_OWNER_DIED when it has ended, however */
    uint8_t pad3[28];

    _Atomic uint32_t callback_parked; /* [guest writes] 1: the callback thread sleeps, send a wake byte */
    uint32_t pad4;
    _Atomic uint64_t output_taken; /* [guest writes, release] of output_put, bytes read */
    uint8_t pad5[48];

    uint64_t reserved[8];
    /* [the GPU writes] value of the newest orion_mark of that index which its stream has reached: what the guest
     * learns from here it learns without a thread of the host. Shared memory only. */
    _Atomic uint64_t marks[OC_NR_MARKS];
};

/* What kernels print, in the output ring: this head, `bytes` of text, padded to 8. A record may cross the ring's
 * end. fd 0: no text, but the number (u64) of bytes that were lost here, because the guest took none for too long. */
struct oc_output {
    uint32_t bytes;             /* at most OC_OUTPUT_TEXT */
    uint32_t fd;                /* 1 stdout, 2 stderr */
};
#define OC_OUTPUT_BYTES 65536u
#define OC_OUTPUT_TEXT 16384u

/* First line of a command in the ring. Payload (struct ow_<function>_in, then
 * variable parts) follows in the same line and goes on in the next ones. A
 * command is contiguous: one that would cross the ring's end is preceded by an
 * OC_OP_PAD command that fills it. */
struct oc_cmd {
    _Atomic uint64_t seq;       /* [guest writes last, release] index of this line + 1; pairs with ring_peek */
    uint16_t op;                /* operation number of the spec */
    uint16_t lines;             /* whole command, this line included */
    uint32_t bytes;             /* payload */
    uint32_t thread;            /* slot index of the calling guest thread */
    uint32_t flags;             /* OC_CMD_* */
    uint8_t payload[40];
};
#define OC_CMD_REPLY 1u         /* the guest waits on its completion slot */
#define OC_OP_PAD 0u

/* Completion slot of one guest thread. */
struct oc_slot {
    _Atomic uint64_t done;      /* [host writes last, release] seq of the answered command; pairs with og_wait */
    int32_t result;             /* CUresult */
    uint32_t bytes;             /* of out[] */
    uint8_t out[OC_SLOT_OUT_BYTES];
    _Atomic uint32_t parked;    /* [guest writes] 1: send a wake byte after done; on a line of its own */
    uint8_t pad[60];
};

/* Where the parts of a block lie. The daemon writes these into line 0 of a shared block;
 * over TCP each side calls oc_channel_init on its private copy. */
#define OC_RING_OFF 4096u
#define OC_SLOTS_OFF (OC_RING_OFF + OC_RING_LINES * OC_LINE)
#define OC_CALLBACKS_OFF (OC_SLOTS_OFF + OC_NR_SLOTS * OC_SLOT_BYTES)
#define OC_OUTPUT_OFF (OC_CALLBACKS_OFF + OC_NR_CALLBACKS * 64u)
#define OC_STAGING_OFF (OC_OUTPUT_OFF + OC_OUTPUT_BYTES)
#define OC_STAGING_BYTES ((uint32_t)OC_CHANNEL_BYTES - OC_STAGING_OFF)

static inline void oc_channel_init(struct oc_channel *c, uint32_t id)
{
    c->channel_id = id;
    c->ring_off = OC_RING_OFF;
    c->slots_off = OC_SLOTS_OFF;
    c->callbacks_off = OC_CALLBACKS_OFF;
    c->staging_off = OC_STAGING_OFF;
    c->staging_bytes = OC_STAGING_BYTES;
    c->magic = OC_MAGIC;
}

_Static_assert(sizeof(struct oc_header) <= OC_SNAPSHOT_OFF, "header fits before the snapshot");
_Static_assert(OC_SNAPSHOT_OFF + sizeof(struct oc_snapshot) <= OC_MAILBOX_OFF, "snapshot fits before the mailbox");
_Static_assert(OC_MAILBOX_OFF + OC_MAILBOX_BYTES <= OC_HEADER_BYTES, "mailbox fits into the header's pages");
_Static_assert(sizeof(struct oc_mailbox) == OC_MAILBOX_BYTES, "mailbox");
_Static_assert(offsetof(struct oc_mailbox, bell) == OC_LINE && offsetof(struct oc_mailbox, slot) == 512, "mailbox's lines");
_Static_assert(sizeof(struct oc_mail_slot) == 512 && offsetof(struct oc_mail_slot, opened) == OC_LINE &&
               offsetof(struct oc_mail_slot, to_host) == 2 * OC_LINE, "slot's lines");
_Static_assert(sizeof(struct oc_cmd) == OC_LINE, "one line");
_Static_assert(offsetof(struct oc_cmd, payload) == 24, "payload follows the command header");
_Static_assert(sizeof(struct oc_slot) == OC_SLOT_BYTES + 0, "slot");
_Static_assert(offsetof(struct oc_slot, parked) % OC_LINE == 0, "guest's word is on its own line");
_Static_assert(offsetof(struct oc_channel, head) == 64, "line 1");
_Static_assert(offsetof(struct oc_channel, consumer_parked) == 128, "line 2");
_Static_assert(offsetof(struct oc_channel, fence_done) == 320, "line 5");
_Static_assert(offsetof(struct oc_channel, worker) == 352, "in line 5");
_Static_assert(offsetof(struct oc_channel, callback_parked) == 384, "line 6");
_Static_assert(offsetof(struct oc_channel, marks) == 512, "line 8");
_Static_assert(sizeof(struct oc_callback) == 64, "one line");
_Static_assert(sizeof(struct oc_channel) <= OC_RING_OFF && OC_STAGING_OFF % 4096 == 0, "parts of the block");
_Static_assert(offsetof(struct oc_channel, output_taken) == 392, "the guest's line");
_Static_assert((OC_OUTPUT_BYTES & (OC_OUTPUT_BYTES - 1)) == 0, "power of two");
_Static_assert((OC_RING_LINES & (OC_RING_LINES - 1)) == 0, "power of two");

#endif
