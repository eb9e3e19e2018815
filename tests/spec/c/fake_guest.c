/* SPDX-License-Identifier: Apache-2.0 */
/* Guest's half of the round-trip program: a transport that is a function call, and the checks. */
#include "client.h"

#include "gen/send.h"

#include "fake.h"

const char *seen = "";
int driver_says, hostile_mode;
uint64_t minted = 0x5000;
static uint8_t in[OG_MAX_PAYLOAD], out[OC_SLOT_OUT_BYTES];
static uint32_t op, bytes;
static int live;

CUresult og_check_init(void)
{
    return CUDA_SUCCESS;
}

CUresult og_begin(struct og_call *c, uint32_t o, uint32_t n)
{
    op = o;
    bytes = n;
    memset(in, 0xaa, sizeof(in));
    c->in = in;
    return CUDA_SUCCESS;
}

CUresult og_call(struct og_call *c)
{
    /* an exact copy on the heap, so that the sanitizer sees a read behind the command */
    uint8_t *copy = malloc(bytes ? bytes : 1);
    int r;

    memcpy(copy, in, bytes);
    c->out_bytes = 0;
    c->out = out;
    r = bridge(op, copy, bytes, out, &c->out_bytes);
    free(copy);
    return (CUresult)r;
}

CUresult og_post(struct og_call *c)
{
    return og_call(c);
}

uint64_t og_mint(enum ow_kind kind)
{
    (void)kind;
    live++;
    return minted += 16;
}

void og_unmint(enum ow_kind kind, uint64_t handle)
{
    (void)kind;
    (void)handle;
    live--;
}

bool og_valid(enum ow_kind kind, uint64_t handle)
{
    (void)kind;
    return handle != 0;
}

bool og_stream_valid(uint64_t stream)
{
    (void)stream;
    return true;
}

/* Of a thread that has a current context. */
struct og_thread *og_self(void)
{
    static struct og_thread t = { .depth = 1 };

    return &t;
}

bool og_is_pinned(const void *p, uint64_t bytes)
{
    (void)p;
    (void)bytes;
    return false;
}

void og_take_back(struct og_thread **lent)
{
    (void)lent;
}

struct og_function *og_function(uint64_t handle)
{
    static struct og_function f;

    return handle ? &f : NULL;
}

/* Payloads that a stub never sends, of small numbers so that counts and lengths nearly agree: the executor
 * must refuse them or pass them on, never read or write beyond them. */
static void hostile(const struct pair *p)
{
    static const uint32_t words[] = { 0, 0, 0, 1, 2, 3, 8, 16, 24, 0x7fffffff, 0x80000000, OW_NULL };
    uint32_t fixed = fixed_bytes(p->op), seed = p->op;

    for (int round = 0; round < 4000; round++) {
        uint32_t size = fixed + (uint32_t)round % 40, got = 0;
        uint8_t *copy = malloc(size ? size : 1), *reply = malloc(OC_SLOT_OUT_BYTES);

        memset(copy, round % 2, size);
        for (uint32_t at = 0; at + 4 <= fixed; at += 4) {
            seed = seed * 1664525 + 1013904223;
            memcpy(copy + at, &words[(seed >> 16) % (sizeof(words) / sizeof(words[0]))], 4);
        }
        bridge(p->op, copy, size, reply, &got);
        CHECK(got <= OC_SLOT_OUT_BYTES);
        free(copy);
        free(reply);
    }
}

int main(int argc, char **argv)
{
    static const uint8_t zeros[256];

    (void)argv;
    hostile_mode = argc > 1;
    for (const struct pair *p = pairs; p->op; p++) {
        uint32_t got = 0;
        int before = live;

        EXPECT(bridge(p->op, zeros, fixed_bytes(p->op), out, &got), CUDA_ERROR_NOT_SUPPORTED);
        install(p->op, p->fake);
        hostile_mode ? hostile(p) : p->send();
        CHECK(live - before <= 1); /* a failed call keeps no handle */
    }
    return 0;
}
