/* SPDX-License-Identifier: Apache-2.0 */
/* One program for all behaviours of the guest library's core; the first argument names the behaviour. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "client_calls.h"

/* The context family's part, which is not under test. */
CUresult og_sync_context(bool needed)
{
    (void)needed;
    return CUDA_SUCCESS;
}

uint64_t og_current(void)
{
    return og_self()->stack[0];
}

static void start(void)
{
    CHECK(og_check_init() == CUDA_ERROR_NOT_INITIALIZED);
    CHECK(og_init() == CUDA_SUCCESS);
    CHECK(og_init() == CUDA_SUCCESS);
    og_self()->device = 0;
}

static double cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void test_init(void)
{
    CUresult r = og_init();

    printf("result %d devices %d life %d\n", (int)r, og_nr_devices(), atomic_load(&og_life));
    for (int i = 0; r == CUDA_SUCCESS && i < og_nr_devices(); i++) {
        uint8_t uuid[16];
        char text[37];

        og_device_uuid(i, uuid);
        og_uuid_text(uuid, text);
        printf("device %d %s %llu bus %d uuid %s\n", i, og_device_gpu(i)->name,
               (unsigned long long)og_device_bytes(i), og_device_bus(i), text);
    }
}

static void test_connect(void)
{
    CHECK(og_init() == CUDA_SUCCESS);
    printf("connect %d\n", (int)og_connect());
    printf("again %d bytes %llu\n", (int)og_connect(), (unsigned long long)og_device_bytes(0));
}

static void test_calls(void)
{
    uint8_t out[4096];

    start();
    for (uint32_t n = 0; n < 3000; n++) {
        uint32_t bytes = 1 + n * 37 % OC_SLOT_OUT_BYTES;
        uint8_t in[OC_SLOT_OUT_BYTES];

        memset(in, (int)(n & 255), bytes);
        CHECK(echo(in, bytes, out) == bytes);
        CHECK(!memcmp(in, out, bytes));
    }
    /* long ones wrap the ring with pads of all sizes */
    for (uint32_t n = 0; n < 400; n++)
        CHECK(count_item(0, n, 8 + n * 997 % (OG_MAX_PAYLOAD - 8)) == CUDA_SUCCESS);
    CHECK(count_item(0, 400, OG_MAX_PAYLOAD) == CUDA_SUCCESS);
    CHECK(count_item(0, 401, OG_MAX_PAYLOAD + 1) == CUDA_ERROR_INVALID_VALUE);
    CHECK(totals().counted == 401 && totals().disordered == 0);
}

static void *many_calls(void *arg)
{
    uint32_t thread = (uint32_t)(uintptr_t)arg;
    uint8_t in[64], out[4096];

    memset(in, (int)thread, sizeof(in));
    for (uint32_t n = 0; n < 3000; n++) {
        CHECK(count_item(thread, n, 8 + n % 200) == CUDA_SUCCESS);
        if (n % 64 == 0) {
            CHECK(echo(in, sizeof(in), out) == sizeof(in));
            CHECK(!memcmp(in, out, sizeof(in)));
        }
    }
    return NULL;
}

static void test_threads(void)
{
    pthread_t t[6];

    start();
    for (uintptr_t i = 0; i < 6; i++)
        CHECK(!pthread_create(&t[i], NULL, many_calls, (void *)(i + 1)));
    for (int i = 0; i < 6; i++)
        pthread_join(t[i], NULL);
    CHECK(totals().counted == 18000 && totals().disordered == 0 && totals().exits == 6);
}

static void *one_call(void *unused)
{
    (void)unused;
    CHECK(og_self()->slot == OC_NR_SLOTS);
    CHECK(send_value(FAKE_COUNT, 0) == CUDA_SUCCESS);
    CHECK(og_self()->slot < 4);
    return NULL;
}

/* Slots are given back: far more threads than there are slots. */
static void test_slots(void)
{
    start();
    for (uint32_t n = 0; n < OC_NR_SLOTS + 100; n++) {
        pthread_t t;

        CHECK(!pthread_create(&t, NULL, one_call, NULL));
        pthread_join(t, NULL);
    }
    CHECK(totals().exits == OC_NR_SLOTS + 100);
}

static void test_full(void)
{
    start();
    CHECK(send_value(FAKE_SLEEP, 300) == CUDA_SUCCESS);
    for (uint32_t n = 0; n < 3 * OC_RING_LINES; n++)
        CHECK(count_item(1, n, 8) == CUDA_SUCCESS);
    CHECK(totals().counted == 3 * OC_RING_LINES && totals().disordered == 0);
}

static void *sleep_call(void *unused)
{
    (void)unused;
    CHECK(ask_value(FAKE_SLEEP, 100) == CUDA_SUCCESS);
    return NULL;
}

/* Waiters sleep: several threads wait 100 ms each, one after the other, without burning the CPU. */
static void test_park(void)
{
    pthread_t t[4];
    double before;

    start();
    before = cpu_seconds();
    for (int i = 0; i < 4; i++)
        CHECK(!pthread_create(&t[i], NULL, sleep_call, NULL));
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    CHECK(cpu_seconds() - before < 0.1);
    CHECK(!og_shared_memory() || totals().wakes >= 4);
}

/* The host's end of an idle consumer: wakes arrive after its sleep. */
static void test_idle(void)
{
    uint64_t began;
    uint8_t out[4096];

    start();
    for (int i = 0; i < 3; i++) {
        usleep(50000);
        began = og_now_ns();
        CHECK(echo("abc", 4, out) == 4);
        CHECK(og_now_ns() - began < 500000000u);
    }
}

/* Every call but the first, which opens the channel, finds the host asleep and wakes it. */
static void test_ring(void)
{
    uint8_t out[4096];

    start();
    CHECK(echo("abc", 4, out) == 4);
    for (int i = 0; i < 3; i++) {
        while (!atomic_load(&og_channel()->consumer_parked))
            usleep(1000);
        CHECK(echo("abc", 4, out) == 4);
    }
}

static bool fence_seen(void *arg)
{
    return atomic_load_explicit(&og_channel()->fence_done, memory_order_acquire) >= *(uint64_t *)arg;
}

static void test_fence(void)
{
    uint64_t fence = 5;

    start();
    CHECK(send_value(FAKE_FENCE, fence) == CUDA_SUCCESS);
    CHECK(og_wait(fence_seen, &fence, NULL) == CUDA_SUCCESS);
}

static void test_lost(const char *how)
{
    uint8_t out[4096];

    start();
    CHECK(echo("abc", 4, out) == 4);
    CHECK(ask_value(FAKE_END, (uint64_t)atoi(how)) == CUDA_ERROR_DEVICE_UNAVAILABLE);
    CHECK(send_value(FAKE_COUNT, 1) == CUDA_ERROR_DEVICE_UNAVAILABLE);
    CHECK(og_check_init() == CUDA_ERROR_DEVICE_UNAVAILABLE);
    CHECK(og_connect() == CUDA_ERROR_DEVICE_UNAVAILABLE);
}

static void *blocked(void *result)
{
    *(CUresult *)result = ask_value(FAKE_SLEEP, 100000);
    return NULL;
}

/* One thread waits for an answer, another finds the ring full: both learn of the end. */
static void test_lost_waiting(void)
{
    CUresult waiting = CUDA_SUCCESS, r = CUDA_SUCCESS;
    pthread_t t;

    start();
    CHECK(send_value(FAKE_SLEEP, 200) == CUDA_SUCCESS);
    CHECK(send_value(FAKE_END, 0) == CUDA_SUCCESS);
    CHECK(!pthread_create(&t, NULL, blocked, &waiting));
    while (r == CUDA_SUCCESS)
        r = count_item(0, 0, 4000);
    pthread_join(t, NULL);
    CHECK(r == CUDA_ERROR_DEVICE_UNAVAILABLE && waiting == CUDA_ERROR_DEVICE_UNAVAILABLE);
}

static void in_child(void)
{
    CHECK(og_check_init() == CUDA_ERROR_NOT_INITIALIZED);
    CHECK(og_init() == CUDA_ERROR_NOT_INITIALIZED);
    CHECK(send_value(FAKE_COUNT, 1) == CUDA_ERROR_NOT_INITIALIZED);
    CHECK(og_link.fd == -1);
    exit(0);
}

static void test_fork(void)
{
    uint8_t out[4096];
    int status;

    start();
    for (int i = 0; i < 2; i++) {
        CHECK(echo("abc", 4, out) == 4);
        if (fork() == 0)
            in_child();
        CHECK(wait(&status) > 0 && status == 0);
    }
    CHECK(echo("abc", 4, out) == 4);
}

/* A child of a process that has not used CUDA may use it. */
static void test_fork_fresh(void)
{
    int status;

    if (fork() == 0) {
        test_idle();
        exit(0);
    }
    CHECK(wait(&status) > 0 && status == 0);
}

static void test_sticky(void)
{
    uint8_t out[4096];

    start();
    CHECK(begin_and_abandon(OW_OP_cuCtxSynchronize) == CUDA_ERROR_INVALID_CONTEXT);
    CHECK(atomic_load(&og_life) == OG_INITIALIZED); /* no allocation was taken for that */
    CHECK(echo("abc", 4, out) == 4);
    CHECK(ask_value(FAKE_STICKY, 700) == CUDA_SUCCESS);
    CHECK(count_item(0, 0, 8) == CUDA_SUCCESS); /* our own operations go on, so that a reset can */
    CHECK(og_unsupported("cuNothing") == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(begin_and_abandon(OW_OP_cuCtxSynchronize) == (CUresult)700);
    og_self()->device = 1;
    CHECK(begin_and_abandon(OW_OP_cuCtxSynchronize) == CUDA_SUCCESS);
    og_self()->in_callback = true;
    CHECK(send_value(FAKE_COUNT, 1) == CUDA_ERROR_NOT_PERMITTED);
    og_self()->in_callback = false;
}

static int by_size(const void *a, const void *b)
{
    return *(const uint64_t *)a < *(const uint64_t *)b ? -1 : 1;
}

/* Prints the cost of one way; the figure is for people. */
static void test_flood(void)
{
    static uint64_t ns[200];

    start();
    CHECK(totals().counted == 0);
    for (uint32_t round = 0; round < 200; round++) {
        ns[round] = og_now_ns();
        for (uint32_t n = 0; n < 500; n++)
            CHECK(count_item(FAKE_SLOW_THREAD, round * 500 + n, 96) == CUDA_SUCCESS);
        ns[round] = (og_now_ns() - ns[round]) / 500;
        CHECK(totals().disordered == 0);
    }
    qsort(ns, 200, sizeof(ns[0]), by_size);
    printf("a one-way call of 96 bytes: %llu ns best, %llu ns median of 200 rounds\n", (unsigned long long)ns[0],
           (unsigned long long)ns[100]);
}

static void test_reserved(void)
{
    void *p;

    start();
    p = map_hint(OC_DEVICE_LOW + (1ull << 32));
    CHECK((uintptr_t)p < OC_DEVICE_LOW || (uintptr_t)p >= OC_DEVICE_HIGH);
}

/* After the library's destructor every call answers DEINITIALIZED, and nothing is sent. */
__attribute__((destructor(101))) static void late(void)
{
    if (atomic_load(&og_life) != OG_EXITED)
        return;
    if (og_check_init() != CUDA_ERROR_DEINITIALIZED || send_value(FAKE_COUNT, 1) != CUDA_ERROR_DEINITIALIZED)
        _exit(9);
}

static void pci_path(void)
{
    const char *path = getenv("TEST_PCI");

    og_pci_path = path ? path : "/nonexistent";
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        { "init", test_init },       { "connect", test_connect },       { "calls", test_calls },
        { "threads", test_threads }, { "slots", test_slots },           { "full", test_full },
        { "park", test_park },       { "ring", test_ring },             { "idle", test_idle },
        { "fence", test_fence },
        { "fork", test_fork },       { "fork-fresh", test_fork_fresh }, { "sticky", test_sticky },
        { "flood", test_flood },     { "lost-waiting", test_lost_waiting }, { "reserved", test_reserved },
    };

    pci_path();
    if (argc == 3 && !strcmp(argv[1], "lost")) {
        test_lost(argv[2]);
        return 0;
    }
    for (unsigned i = 0; argc == 2 && i < sizeof(tests) / sizeof(tests[0]); i++) {
        if (!strcmp(argv[1], tests[i].name)) {
            tests[i].run();
            return 0;
        }
    }
    fprintf(stderr, "no such test\n");
    return 2;
}
