/* SPDX-License-Identifier: Apache-2.0 */
/* The set of live handles, so that a stale or foreign handle is an error and never a crash. */
#include <stdlib.h>

#include "sim.h"

#define BUCKETS 4096u

struct entry {
    const void *object;
    enum sim_kind kind;
    struct entry *next;
};
static struct entry *buckets[BUCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct entry **bucket(const void *object)
{
    uint64_t v = (uint64_t)(uintptr_t)object >> 4;

    return &buckets[(v ^ (v >> 12)) & (BUCKETS - 1)];
}

bool sim_register(void *object, enum sim_kind kind)
{
    struct entry *e = malloc(sizeof(*e)), **at = bucket(object);

    if (!e)
        return false;
    e->object = object;
    e->kind = kind;
    pthread_mutex_lock(&lock);
    e->next = *at;
    *at = e;
    pthread_mutex_unlock(&lock);
    return true;
}

void sim_unregister(void *object)
{
    struct entry **at = bucket(object), *e;

    pthread_mutex_lock(&lock);
    while ((e = *at) && e->object != object)
        at = &e->next;
    if (e)
        *at = e->next;
    pthread_mutex_unlock(&lock);
    free(e);
}

bool sim_valid(const void *object, enum sim_kind kind)
{
    struct entry *e;

    if (!object)
        return false;
    pthread_mutex_lock(&lock);
    for (e = *bucket(object); e && e->object != object; e = e->next)
        ;
    bool valid = e && e->kind == kind;
    pthread_mutex_unlock(&lock);
    return valid;
}
