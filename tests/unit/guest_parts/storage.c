/* SPDX-License-Identifier: Apache-2.0 */
/* Context-local storage: replace, delete, death of a context, many values, readers against writers. */
#include <pthread.h>
#include <stdio.h>

#include "check.h"
#include "storage.h"

static int dtors;
static uint64_t dtor_context;

static void dtor(uint64_t context, void *key, void *value)
{
    void *again = NULL;

    CHECK(value == (char *)key + 1);
    CHECK(og_storage_get(context, key, &again) == CUDA_ERROR_INVALID_HANDLE); /* gone already, and no lock is held */
    dtors++;
    dtor_context = context;
}

static void semantics(void)
{
    char keys[4];
    void *value = (void *)7;

    CHECK(og_storage_get(16, &keys[0], &value) == CUDA_ERROR_INVALID_HANDLE && value == (void *)7);
    CHECK(og_storage_put(16, &keys[0], &keys[1], dtor) == CUDA_SUCCESS);
    CHECK(og_storage_get(16, &keys[0], &value) == CUDA_SUCCESS && value == &keys[1]);
    CHECK(og_storage_get(32, &keys[0], &value) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(og_storage_put(16, &keys[0], &keys[2], dtor) == CUDA_SUCCESS); /* replaces, without the destructor */
    CHECK(og_storage_get(16, &keys[0], &value) == CUDA_SUCCESS && value == &keys[2] && dtors == 0);
    CHECK(og_storage_delete(16, &keys[0]) == CUDA_SUCCESS && dtors == 0);
    CHECK(og_storage_delete(16, &keys[0]) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(og_storage_get(16, &keys[0], &value) == CUDA_ERROR_INVALID_HANDLE);
}

static void death(void)
{
    static char keys[100];
    void *value;

    for (int i = 0; i < 99; i++)
        CHECK(og_storage_put(i % 3 ? 48 : 64, &keys[i], &keys[i] + 1, dtor) == CUDA_SUCCESS);
    og_storage_context_died(64);
    CHECK(dtors == 33 && dtor_context == 64);
    CHECK(og_storage_get(48, &keys[1], &value) == CUDA_SUCCESS);
    CHECK(og_storage_get(64, &keys[0], &value) == CUDA_ERROR_INVALID_HANDLE);
    og_storage_context_died(48);
    CHECK(dtors == 99);
}

/* Contexts come and go for ever: slots are used again. */
static void many(void)
{
    char key;
    void *value;

    for (uint64_t c = 1; c < 20000; c++) {
        CHECK(og_storage_put(c << 4, &key, &key, NULL) == CUDA_SUCCESS);
        CHECK(og_storage_get(c << 4, &key, &value) == CUDA_SUCCESS && value == &key);
        og_storage_context_died(c << 4);
    }
}

static _Atomic int stop;
static char shared_key;

static void *reader(void *arg)
{
    (void)arg;
    while (!stop) {
        void *value = NULL;

        if (og_storage_get(80, &shared_key, &value) == CUDA_SUCCESS)
            CHECK(value == (void *)0x11 || value == (void *)0x22);
    }
    return NULL;
}

static void readers_and_writers(void)
{
    pthread_t threads[2];

    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, reader, NULL);
    for (int i = 0; i < 20000; i++) {
        CHECK(og_storage_put(80, &shared_key, (void *)(uintptr_t)(i & 1 ? 0x11 : 0x22), NULL) == CUDA_SUCCESS);
        if (i % 7 == 0)
            CHECK(og_storage_delete(80, &shared_key) == CUDA_SUCCESS);
    }
    stop = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    semantics();
    death();
    many();
    readers_and_writers();
    return 0;
}
