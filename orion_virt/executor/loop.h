/* SPDX-License-Identifier: Apache-2.0 */
/* What the modules of the executor's core share among themselves: baton, twins, transport, control. */
#ifndef OH_LOOP_H
#define OH_LOOP_H

#include <stdatomic.h>
#include <time.h>

#include "executor.h"

struct twin {
    struct oh_twin pub;        /* first member: family code holds a pointer to it */
    _Atomic uint32_t sleeping; /* futex word: enum sleep in twin.c */
    bool unlocked;             /* the command being executed gave the baton up */
    char fault[160];           /* reason of OH_FAULT */
    _Alignas(16) uint8_t out[OC_SLOT_OUT_BYTES];
};

/* ---- spin.c: adaptive waiting ---- */
struct oh_spin {
    uint32_t budget_ns;   /* how long the next spin may last */
};
uint64_t oh_now_ns(void);
void oh_spin_setup(void);
/* True as soon as ready(arg) is; false when the budget is spent. */
bool oh_spin(struct oh_spin *s, bool (*ready)(void *), void *arg);
/* The calling thread slept and runs again: learns whether CPUs are scarce. */
void oh_spin_woke(void);
/* What came after a spin in vain took so long: a short sleep makes the next spin longer, a long one shorter. */
void oh_spin_slept(struct oh_spin *s, uint64_t ns);
/* The same for a fixed time. */
bool oh_watch(uint32_t ns, bool (*ready)(void *), void *arg);

/* ---- baton.c: the right to read the ring ---- */
#define OH_BATON_FREE 0u
extern struct oc_consumer oh_ring;       /* touched by the holder only */
extern _Atomic int oh_ending;            /* enum oc_close once the channel ends */
bool oh_baton_mine(const struct twin *tw);
bool oh_baton_idle(void);                /* free, and a command waits */
bool oh_baton_retake(struct twin *tw);   /* after a blocking call; false: someone else has it */
void oh_baton_pass(uint32_t slot);       /* holder: to the twin of `slot` */
void oh_baton_yield(bool watched);       /* holder: to nobody; `watched`: parked was set for the grace time */
void oh_baton_kick(void);                /* any thread: a free baton goes to the twin whose command is next */
void oh_baton_start(struct oc_channel *channel, uint8_t *lines);
bool oh_ring_ready(void *unused);        /* holder: a command is at the head, or the channel ends */
void oh_ring_publish_head(void);

/* ---- poll.c ---- */
int oh_poll_start(void);                 /* for a polled client: a thread that looks for commands; -errno */
bool oh_baton_moved(uint64_t *seen);     /* commands were consumed since *seen, which becomes now. baton.c */

/* ---- twin.c ---- */
struct twin *oh_twin_get(uint32_t slot); /* holder: makes it at its first command; NULL: no thread to be had */
void oh_twin_wake(struct twin *tw);
void oh_twins_wake_all(void);
bool oh_twins_wait_gone(uint32_t ms);
uint32_t oh_twins_alive(void);
void oh_twin_reset(struct twin *tw);     /* its guest thread has ended */

/* ---- stats.c ---- */
extern bool oh_stats_on;
void oh_stats_setup(void);
void oh_stats_note(uint32_t op, bool waited, uint64_t ns);
void oh_stats_wake(void);
void oh_stats_report(void);

/* ---- loop.c ---- */
void oh_loop_run(struct twin *tw);       /* with the baton; returns when it is elsewhere or the channel ends */

/* ---- transport.c ---- */
int oh_transport_start(void);
int oh_transport_read(void);             /* watcher; without TCP the leader too: 1 something came, 0 end of file, -1 ended the channel */
void oh_transport_reply(uint32_t slot, const struct oc_cmd *h, CUresult r, const void *out, uint32_t bytes);
void oh_transport_head(void);            /* over TCP: mirrors head */
struct oc_slot *oh_slot(uint32_t slot);

/* ---- control.c ---- */
int oh_control_call(struct oh_control *m);         /* request and answer; -errno */
/* The same; `fd` goes along unless it is -1, *got is the descriptor that came back, -1: none. */
int oh_control_call_fd(struct oh_control *m, int fd, int *got);
void oh_control_tell(const struct oh_control *m);  /* one way, never blocks; lost while there is no daemon */
/* The daemon that gave the calling thread's last answer has ended, and its successor knows nothing of that: ask again.
 * To be asked under the lock under which the answer's object enters the list that the successor is told. */
bool oh_control_stale(void);
/* For telling a new daemon what there is: waits until it takes it; false: it has ended too. */
bool oh_control_have(const struct oh_control *m, int fd);
void oh_control_down(void);                        /* the daemon has ended: requests wait for the next */
void oh_control_up(void);                          /* it is there, and knows nothing yet */
int oh_control_read(void);                         /* watcher: 0 when the daemon is gone */
void oh_control_usage(void);                       /* watcher, at its tick */
void oh_control_progress(void);                    /* and once when the channel has ended, so that nothing is missing in the sums */
extern void (*_Atomic oh_control_own)(const struct oh_control *m); /* OH_OWN came, on the watcher; set by share.c */

/* ---- resume.c: the daemon ends, and another comes; on the watcher ---- */
void oh_resume_lost(void);               /* the control socket has ended */
void oh_resume_accept(void);             /* somebody has come to listen_fd */
void oh_resume_tick(void);               /* ends the channel when nobody has come for too long */
void oh_resume_begin(const struct oh_control *m); /* OH_RESUME came */
/* What each list has, for the new daemon, while the list stands still; false: it has ended too. */
bool oh_extents_tell(void);
extern bool (*_Atomic oh_pages_tell)(void);  /* set by pages.c once there are any */
extern bool (*_Atomic oh_shares_tell)(void); /* and by share.c */

/* ---- watch.c: the thread that called oh_run ---- */
int oh_watch_open(void);
void oh_watch_control(bool on);          /* the control socket is one that can be read, or is none */
void oh_watch_client(int fd);            /* takes `fd` over as the client's connection */
void oh_watch_run(void);                 /* until oh_ending */
void oh_watch_interrupt(void);
/* A twin sleeps until a wake-up byte came, which is read then, or oh_watch_wake_leader; one at a time. */
void oh_watch_lead(void);
void oh_watch_wake_leader(void);

/* ---- extents.c ---- */
OH_MUST_CHECK int oh_extents_hold(uint64_t off, uint64_t bytes); /* maps and registers what several channels have; -errno */
void oh_extents_let_go(uint64_t off, uint64_t bytes);
int oh_extents_start(void);              /* maps the channel block */
/* Makes some context current, *old is to be set again; false: there is none. */
bool oh_borrow_context(CUcontext *old);
void oh_return_context(CUcontext old);

/* ---- alias.c ---- */
bool oh_alias_has(uint64_t addr, uint64_t bytes); /* [addr, addr + bytes) lies in one alias */
void oh_alias_drop(uint64_t off, uint64_t bytes); /* before region memory is another's */
void oh_alias_register(void);                     /* again, after a reset */

/* ---- output.c: what kernels print ---- */
void oh_output_redirect(void);           /* before the driver is loaded */
void oh_output_flush(void);              /* before an answer: what the driver has printed is the guest's to see */

/* ---- log.c ---- */
void oh_log_open(const char *path);
int oh_log_fd(void);
void oh_set_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- run.c ---- */
bool oh_base_reserved(uint64_t base);    /* [base, base + OC_BASE_WINDOW) is ours, PROT_NONE */

/* ---- context.c ---- */
int oh_devices_start(void);              /* fills oh_devices from oh_config */

#endif
