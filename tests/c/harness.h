/* SPDX-License-Identifier: Apache-2.0 */
/* A hand-written client and daemon around an executor in a child process, with a driver made for tests. */
#ifndef HARNESS_H
#define HARNESS_H

#include <sys/types.h>

#include <orion/ring.h>

#include "check.h"
#include "wire.h"

/* Numbers that the spec does not use; fake_ops.c gives them bodies. */
enum {
    TEST_OP_SLOW = 6,   /* blocks for `value` ms in the driver */
    TEST_OP_FAIL = 7,   /* returns `value` */
    TEST_OP_FAULT = 8,  /* is malformed by its own judgement */
    TEST_OP_STUCK = 9,  /* never returns from the driver */
};

struct client {
    int socket, control; /* our ends */
    int region;          /* memfd, -1 over TCP */
    int doorbell;        /* eventfd, -1: none */
    int listener;        /* where the worker waits for another daemon, -1: it does not */
    bool quiet;          /* client_post sends no wake-up byte */
    pid_t worker;
    bool polled;         /* wakes nobody */
    uint8_t *memory;     /* the region as we map it; over TCP a private block */
    struct oc_channel *channel;
    struct oc_producer p;
};

#define HARNESS_BLOCK OC_EXTENT_BYTES       /* region offset of the channel block */
#define HARNESS_REGION (16 * OC_EXTENT_BYTES)

void client_start(struct client *c);
void client_start_doorbell(struct client *c);
void client_start_tcp(struct client *c);
void client_start_polled(struct client *c);
void client_start_kept(struct client *c); /* its worker outlives its daemon for 60 s */
/* Publishes a command with one u64 of payload, thread-safe; its sequence. */
uint64_t client_post(struct client *c, uint32_t thread, uint32_t op, uint64_t value, uint32_t flags);
/* Waits for the answer; false after `ms`. */
bool client_wait(struct client *c, uint32_t thread, uint64_t seq, uint32_t ms);
struct oc_slot *client_slot(struct client *c, uint32_t thread);
/* Round trip: the result; ends the test when there is no answer within 5 s. */
int client_call(struct client *c, uint32_t thread, uint32_t op, uint64_t value);
void client_wake(struct client *c);
/* Exit status of the worker (enum oc_close as oh_run returned it); -1 when it still runs after `ms`. */
int client_end(struct client *c, uint32_t ms);
void client_close(struct client *c);
uint64_t test_now_ns(void);

#endif
