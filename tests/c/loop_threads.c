/* SPDX-License-Identifier: Apache-2.0 */
/* Threads: guest threads that alternate, with one-way commands between, all are answered. */
#include <pthread.h>
#include <unistd.h>

#include "harness.h"

#define CALLS 1500

static struct client c;

static void *work(void *arg)
{
    uint32_t thread = (uint32_t)(uintptr_t)arg;

    for (uint64_t i = 0; i < CALLS; i++) {
        client_post(&c, thread, OW_OP_orion_nop, 0, 0);
        CHECK(client_call(&c, thread, OW_OP_orion_ping, i) == 0);
        CHECK(*(uint64_t *)(void *)client_slot(&c, thread)->out == i + 1);
        if (i % 100 == 0)
            CHECK(client_call(&c, thread, TEST_OP_SLOW, 1) == 0);
    }
    client_post(&c, thread, OW_OP_orion_thread_exit, 0, 0);
    return NULL;
}

int main(void)
{
    pthread_t t[3];

    client_start(&c);
    for (uintptr_t i = 0; i < 3; i++)
        CHECK(!pthread_create(&t[i], NULL, work, (void *)i));
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    CHECK(client_call(&c, 1, OW_OP_orion_ping, 7) == 0); /* a slot that was used before */
    close(c.socket);
    CHECK(client_end(&c, 20000) == OC_CLOSED_BY_GUEST);
    return 0;
}
