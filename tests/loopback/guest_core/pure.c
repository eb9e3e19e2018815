/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the core that need no server: handles, HMAC, settings, addresses. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>

#include "check.h"
#include "core.h"

CUresult og_sync_context(bool needed)
{
    (void)needed;
    return CUDA_SUCCESS;
}

uint64_t og_current(void)
{
    return og_self()->stack[0];
}

static void visit(uint64_t handle, void *data, void *arg)
{
    CHECK(data == (void *)(uintptr_t)handle);
    ++*(unsigned *)arg;
}

static void test_handles(void)
{
    static uint64_t h[3000];
    unsigned seen = 0;

    for (unsigned i = 0; i < 3000; i++) {
        h[i] = og_mint(OW_KIND_EVENT);
        CHECK(h[i] > 2 && og_valid(OW_KIND_EVENT, h[i]) && !og_valid(OW_KIND_STREAM, h[i]));
        CHECK(!og_data(h[i]));
        og_set_data(h[i], (void *)(uintptr_t)h[i]);
    }
    for (unsigned i = 0; i < 3000; i += 2)
        og_unmint(OW_KIND_EVENT, h[i]);
    og_unmint(OW_KIND_EVENT, h[0]);  /* twice: nothing */
    og_unmint(OW_KIND_STREAM, h[1]); /* another kind: nothing */
    og_each(OW_KIND_EVENT, visit, &seen);
    CHECK(seen == 1500 && og_valid(OW_KIND_EVENT, h[1]) && !og_valid(OW_KIND_EVENT, h[0]) && !og_data(h[0]));
    for (unsigned i = 0; i < 1500; i++) { /* the indices return, the handles do not */
        uint64_t again = og_mint(OW_KIND_EVENT);

        CHECK((again >> 4 & 0xfffff) < 3000 && again != h[again >> 4 & 0xfffff]);
    }
}

static void test_foreign_handles(void)
{
    static const uint64_t foreign[] = { 0, 1, 2, 0x7f0012345678, ~0ull, 1ull << 46, 7ull << 40 | 8 };

    CHECK(og_mint(OW_KIND_EVENT));
    for (unsigned i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
        for (unsigned kind = 1; kind < 64; kind++)
            CHECK(!og_valid((enum ow_kind)kind, foreign[i]) && !og_data(foreign[i]));
}

static void *churn(void *unused)
{
    (void)unused;
    for (int i = 0; i < 20000; i++) {
        uint64_t h = og_mint(OW_KIND_STREAM);

        CHECK(og_valid(OW_KIND_STREAM, h));
        og_set_data(h, &h);
        CHECK(og_data(h) == &h);
        og_unmint(OW_KIND_STREAM, h);
    }
    return NULL;
}

static void test_handle_threads(void)
{
    pthread_t t[4];
    unsigned seen = 0;

    for (int i = 0; i < 4; i++)
        CHECK(!pthread_create(&t[i], NULL, churn, NULL));
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    og_each(OW_KIND_STREAM, visit, &seen);
    CHECK(seen == 0);
}

static void print_hmac(const char *key, const char *a, const char *b)
{
    uint8_t mac[32];
    char hex[65];

    og_hmac_sha256(key, strlen(key), a, strlen(a), b, strlen(b), mac);
    og_hex(mac, sizeof(mac), hex);
    puts(hex);
}

static void print_addr(const char *text)
{
    char addr[OG_ADDR_BYTES];

    puts(og_parse_addr(text, 9123, addr) ? addr : "bad");
}

static void print_settings(void)
{
    const struct og_settings *s = &og_settings;
    CUresult r = og_settings_load();

    printf("result %d vgpus %d gmem %llu controller '%s' server '%s' region '%s' wc %d sync %d screen %d time %d "
           "level %d\n", (int)r, s->vgpus, (unsigned long long)s->gmem_bytes, s->controller, s->server, s->region,
           s->bar_wc, s->sync, s->log_to_screen, s->log_with_time, (int)s->level);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (!strcmp(what, "handles")) {
        test_handles();
        test_foreign_handles();
        test_handle_threads();
    } else if (!strcmp(what, "hmac") && argc == 5) {
        print_hmac(argv[2], argv[3], argv[4]);
    } else if (!strcmp(what, "addr") && argc == 3) {
        print_addr(argv[2]);
    } else if (!strcmp(what, "settings")) {
        print_settings();
    } else {
        return 2;
    }
    return 0;
}
