/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of the round-trip program share. */
#ifndef FAKE_H
#define FAKE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const char *seen;      /* last function of the fake driver that ran */
extern int driver_says;       /* its result */
extern int hostile_mode;      /* payloads are made up: the fake driver only reads what it was given */
extern uint64_t minted;       /* last handle that the client made */

struct pair {
    uint32_t op;
    void *fake;
    void (*send)(void);
};
extern const struct pair pairs[];

void install(uint32_t op, void *f);
int bridge(uint32_t op, const void *in, uint32_t bytes, void *out, uint32_t *out_bytes);
uint32_t fixed_bytes(uint32_t op);

#define CHECK(x) ((x) ? (void)0 : fail(__func__, __LINE__, #x, 0))
#define EXPECT(x, want) expect((int)(x), (want), __func__, #x)

static inline void fail(const char *where, int line, const char *what, int got)
{
    fprintf(stderr, "%s:%d: %s (%d)\n", where, line, what, got);
    exit(1);
}

static inline void expect(int got, int want, const char *where, const char *what)
{
    if (got != want)
        fail(where, want, what, got);
}

/* A pattern that depends on the parameter; handles are multiples of 16, and the host's are 7 higher. */
static inline void fill(void *p, size_t bytes, int salt, int handles)
{
    uint8_t *b = p;
    uint64_t *h = p;

    for (size_t i = 0; !handles && i < bytes; i++)
        b[i] = (uint8_t)(salt * 31 + (int)i);
    for (size_t i = 0; handles && i < bytes / 8; i++)
        h[i] = 0x10000ull * (uint64_t)salt + 16 * i;
}

static inline int looks_like(const void *p, size_t bytes, int salt, int handles)
{
    uint8_t want[4096];

    fill(want, bytes, salt, handles);
    for (size_t i = 0; handles && i < bytes / 8; i++)
        ((uint64_t *)(void *)want)[i] += 7;
    return memcmp(p, want, bytes) == 0;
}

/* Reads every byte, so that the sanitizer sees a pointer that leads outside the command. */
static inline void touch(const void *p, uint64_t bytes)
{
    for (uint64_t i = 0; p && i < bytes; i++)
        (void)((const volatile uint8_t *)p)[i];
}

#endif
