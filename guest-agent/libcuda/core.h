/* SPDX-License-Identifier: Apache-2.0 */
/* What the core's modules share among themselves: settings, region, connection, ring; families use client.h. */
#ifndef OG_CORE_H
#define OG_CORE_H

#include <sys/types.h>

#include "client.h"

#define OG_HIDDEN __attribute__((visibility("hidden")))
#define OG_ADDR_BYTES 128 /* "host:port" with its NUL */
#define OG_BLOCK_MAX (128u << 10) /* longest handshake block that we read: a USAGE with 16 cards and 256 processes */

/* A reason for people; filled where something fails, printed once by whoever gives up. */
struct og_why {
    char text[400];
};
void og_because(struct og_why *why, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- lock.c: one-word lock; never held across a wait ---- */
void og_lock_slow(_Atomic int *lock);
void og_futex_wake(_Atomic uint32_t *word, int count);
/* Sleeps while *word == seen, at most timeout_ns. */
void og_futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns);

static inline void og_lock(_Atomic int *lock)
{
    int idle = 0;

    /* pairs with og_unlock */
    if (!atomic_compare_exchange_strong_explicit(lock, &idle, 1, memory_order_acquire, memory_order_relaxed))
        og_lock_slow(lock);
}

static inline void og_unlock(_Atomic int *lock)
{
    /* 2: somebody sleeps; pairs with og_lock */
    if (atomic_exchange_explicit(lock, 0, memory_order_release) == 2)
        og_futex_wake((_Atomic uint32_t *)lock, 1);
}

/* ---- settings.c ---- */
#define OG_TOKEN_BYTES 129
#define OG_GROUP_BYTES 65
#define OG_MAX_WAIT_SECONDS 86400
enum og_level { OG_DEBUG, OG_INFO, OG_WARNING, OG_ERROR, OG_SILENT };
struct og_settings {
    int vgpus;                        /* ORION_VGPU, else the domain's default */
    uint64_t gmem_bytes;              /* ORION_GMEM, else the domain's default; 0: neither */
    bool vgpus_said, gmem_said;       /* by the variables */
    int ratio;                        /* ORION_RATIO, percent; 0: not set */
    char controller[OG_ADDR_BYTES];   /* ORION_CONTROLLER or client.conf; "": the region's header says */
    char token[OG_TOKEN_BYTES];       /* ORION_TOKEN or client.conf; "": none */
    char group[OG_GROUP_BYTES];       /* ORION_GROUP; "": an allocation of its own */
    unsigned wait_seconds;            /* ORION_WAIT: for vGPUs that others have */
    char server[OG_ADDR_BYTES];       /* ORION_SERVER; "": header or allocation */
    char region[512];                 /* ORION_REGION; "": look for the PCI device */
    bool bar_wc;                      /* ORION_BAR=wc: map resource2_wc */
    bool sync;                        /* ORION_SYNC=1: every call is a round trip */
    bool log_with_time, log_to_screen, log_to_file;
    enum og_level level, file_level;
};
extern struct og_settings og_settings;
OG_MUST_CHECK CUresult og_settings_load(void);
/* What the domain's owner has set where the user says nothing; from the region's header, so checked. */
void og_settings_of_domain(const struct oc_header *h);
/* One file of settings; false after a bad value, which it has reported. settings_file.c */
bool og_settings_file(struct og_settings *s, const char *path);
/* A whole number in [low, high] and nothing else. */
bool og_parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *value);
/* "host:port", "host" or "[v6]:port"; the result always has a port. */
bool og_parse_addr(const char *text, unsigned default_port, char to[OG_ADDR_BYTES]);
bool og_parse_bool(const char *text, bool *value);
/* Printable, without spaces or quotes, and short enough for a header. */
bool og_parse_token(const char *text, char to[OG_TOKEN_BYTES]);
bool og_parse_level(const char *text, enum og_level *level);

/* ---- tools.c ---- */
void og_tools_log(const char *what, CUresult result); /* a call has failed; for cuLogs* */

/* ---- log.c ---- */
void og_log_at(enum og_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A line of level INFO on stderr: the banner and the line at exit. */
void og_announce(bool with_time, const char *format, ...) __attribute__((format(printf, 2, 3)));
void og_log_after_fork(void);

/* ---- region.c ---- */
struct og_region {
    uint8_t *base;             /* NULL: no region, the transport is TCP */
    uint64_t bytes;
    int fd;                    /* kept open for further mappings; -1: none */
    uint64_t device, inode;    /* as /proc/self/maps shows them for its mappings */
    char path[512];            /* of the file or BAR that is mapped */
    struct oc_header header;   /* private copy, checked */
    char bar[128];             /* sysfs file of the device's BAR 2; "": it is a file */
    char note[300];            /* why a device that is there was not used; for the line that says nothing works */
};
extern struct og_region og_shared_region;
/* Finds and maps the region, if there is one; what is wrong with one gets its line on stderr.
 * Not `whole`: its header only, for reading. */
void og_region_find(bool whole);
/* Reads the header again: it changes while the domain lives. False: it is not valid now. */
bool og_region_reread(struct og_why *why);
/* The host has begun a new life of the region: its side of this channel is gone, and may have gone without a word. */
bool og_region_began_anew(void);
/* True when [off, off+bytes) lies inside. */
static inline bool og_inside(uint64_t off, uint64_t bytes, uint64_t size)
{
    return off <= size && bytes <= size - off;
}
void og_reserve_device_ranges(void); /* reserve.c */
extern const char *og_pci_path; /* /sys/bus/pci/devices; moved by tests. pci.c */
/* Path of the n-th ivshmem device's BAR 2; the file is absent where the BAR has no address. */
bool og_pci_device(unsigned n, bool wc, char *path, size_t room);

/* ---- snapshot.c, visible.c ---- */
bool og_snapshot_set(const void *bytes, size_t nr_bytes, struct og_why *why);
OG_MUST_CHECK CUresult og_visible_set(void); /* CUDA_VISIBLE_DEVICES; before any other question */
int og_visible(int device);                  /* index among ORION_VGPU of a visible device */
void og_visible_uuid(int index, uint8_t uuid[16]);
void og_machine_text(char to[33]);
void og_device_granted(int device, int physical, uint64_t bytes); /* what WELCOME says */

/* ---- connect.c: sockets and blocks of text ---- */
struct og_text {
    size_t bytes;
    bool overflow;
    char text[16u << 10];
};
void og_text_add(struct og_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
int og_dial(const char *addr, unsigned timeout_ms, struct og_why *why); /* descriptor or -1 */
void og_set_timeout(int fd, unsigned timeout_ms); /* of each read and write */
bool og_send_all(int fd, const void *bytes, size_t nr_bytes);
/* Reads up to and including the empty line, not a byte more. False: *why. */
bool og_read_block(int fd, char *to, size_t room, struct og_why *why);
bool og_block_is(const char *block, const char *verb);
bool og_block_get(const char *block, const char *key, char *to, size_t room);
uint64_t og_now_ns(void); /* monotonic */
size_t og_unhex(const char *hex, uint8_t *to, size_t room); /* bytes, or (size_t)-1 */
void og_hex(const uint8_t *bytes, size_t nr_bytes, char *to);
void og_uuid_text(const uint8_t uuid[16], char to[37]);

/* ---- mailbox.c: connections through the region ---- */
bool og_mailbox_there(void);
/* A descriptor as og_dial's, or -1 after at most 3 s. */
int og_mailbox_dial(enum oc_mail_service service, unsigned timeout_ms, struct og_why *why);
void og_mailbox_after_fork(void);

/* ---- controller.c ---- */
struct og_allocation {
    char id[48];
    char server[OG_ADDR_BYTES]; /* of its first vGPU */
};
OG_MUST_CHECK CUresult og_allocate(struct og_allocation *a);

/* ---- server.c ---- */
struct og_addrs { /* where the server may be, in the order to try */
    unsigned count;
    char addr[OC_MAX_ADDRS + 2][OG_ADDR_BYTES];
    bool mailbox;           /* after all these */
};
/* The server was reached through the region's mailbox, and is from then on: nobody can wake the other side. */
extern _Atomic bool og_by_mailbox;
void og_server_addrs(const struct og_allocation *a, struct og_addrs *to);
/* Is the server there? Over TCP also fetches the snapshot. Reports its failure. */
OG_MUST_CHECK CUresult og_probe_server(void);
/* A connection to one of the addresses, and to which, or -1 with all reasons. */
int og_dial_any(const struct og_addrs *addrs, unsigned timeout_ms, unsigned *which, struct og_why *why);
/* The same for oriond; the address that answered is the first to be tried from then on. */
int og_dial_server(const struct og_addrs *addrs, struct og_why *why);
CUresult og_no_server(const struct og_why *why); /* the line for people, and what it means */
bool og_region_snapshot(void);
/* AUTH: hmac over the nonce's bytes and the block that we sent, its empty line included. */
OG_MUST_CHECK bool og_answer_challenge(int fd, const char *challenge, const struct og_text *sent);

/* ---- away.c: waiting for an oriond that restarts, under og_state_lock ---- */
#define OG_AGAIN ((CUresult)-2) /* not a CUresult: nothing has been said, all of it is to be tried again */
void og_away_begin(void);   /* of cuInit, or of the opening of a channel */
void og_away_reached(void); /* oriond has answered */
bool og_away_came_back(void); /* after a wait of this process: what belongs to it may still be coming */
/* What failed is to be tried again, after a pause; false: say why. `nobody` answered, where it may be away; else only what
 * a restart may leave behind for a moment is tried again. */
bool og_away_again(bool nobody);

/* ---- handshake.c ---- */
/* HELLO to WELCOME on a new connection, which og_link then owns. Reports its failure. */
OG_MUST_CHECK CUresult og_handshake(const struct og_allocation *a);

/* ---- hmac.c ---- */
void og_hmac_sha256(const void *key, size_t key_bytes, const void *a, size_t a_bytes, const void *b, size_t b_bytes,
                    uint8_t mac[32]);

/* ---- link: the open channel; written once by og_link_open, then constant but for the ring ---- */
#define OG_OPS_BYTES ((OW_NR_OPS + 7) / 8)
struct og_link {
    int fd;
    bool shm;
    bool polled;                 /* no wake-ups: the connection goes through the mailbox */
    uint64_t block_off;
    uint32_t channel_id;
    struct oc_channel *channel;
    struct oc_slot *slots;
    struct oc_channel layout;    /* private copy of line 0, checked */
    uint8_t ops[OG_OPS_BYTES];
    struct og_allocation allocation;
    _Atomic int submit;          /* the submission lock: orders ring */
    struct oc_producer ring;     /* under submit */
};
extern struct og_link og_link;
OG_MUST_CHECK CUresult og_link_open(uint64_t block_off); /* link.c: checks and enters the block */

/* ---- doorbell.c ---- */
/* Maps the device's registers where the header says that they ring, once; false: the host is told by bytes. */
bool og_doorbell_map(void);
void og_doorbell_use(uint64_t value); /* of the register, for this process's worker */
/* Rings, if there is a doorbell; false: a byte must be sent too. */
bool og_doorbell_ring(void);

/* ---- transport_shm.c, transport_tcp.c ---- */
void og_shm_wake(void);
/* Reads what the server sent: wake-ups, or the end, which it reports. */
void og_shm_drain(void);
OG_MUST_CHECK CUresult og_tcp_open(struct og_why *why);  /* the private block */
OG_MUST_CHECK CUresult og_tcp_start(struct og_why *why); /* the receiver; once the channel is open */
void og_tcp_publish(void);                              /* under the submission lock */
void og_tcp_send(uint64_t off, uint64_t bytes);

/* ---- wait.c ---- */
void og_wake_waiters(void);

/* ---- output.c: what kernels print ---- */
extern _Atomic uint64_t og_output_taken; /* bytes of the host's records that are written */
void og_output_show(void);
/* After an answer and before a host function: shows what the host's driver had printed until then. */
static inline void og_output_check(void)
{
    /* pairs with the executor's move_locked and with og_output_show */
    if (__builtin_expect(atomic_load_explicit(&og_link.channel->output_made, memory_order_acquire) !=
                             atomic_load_explicit(&og_output_taken, memory_order_acquire), 0))
        og_output_show();
}

/* ---- thread.c ---- */
OG_MUST_CHECK CUresult og_slot_take(struct og_thread *t);

/* ---- state.c, exit.c, fork.c ---- */
extern const char og_build_id[]; /* handshake.c */
CUresult og_life_result(int life);
/* Ends the channel for this process, once, with one line for people. */
void og_lost(const char *reason, const char *remedy);
void og_lost_by_close(void); /* reason from the channel's `closed` word */
extern _Atomic int og_state_lock; /* cuInit and the opening of the channel */
void og_slots_after_fork(void);
void og_handles_after_fork(void);

#endif
