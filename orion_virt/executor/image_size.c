/* SPDX-License-Identifier: Apache-2.0 */
/* What the variables of an image take of a card, before it is loaded. Headers have been checked (image_check.c). */
#define _GNU_SOURCE
#include <ctype.h>
#include <elf.h>

#include "fatbin.h"
#include "modules.h"


static uint64_t more(uint64_t a, uint64_t b)
{
    uint64_t sum;

    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX / 2 : sum;
}

/* Sections that are loaded and are no code, above all .nv.global and its initial values. */
static uint64_t of_elf(const uint8_t *p, uint64_t bytes)
{
    Elf64_Ehdr h;
    uint64_t sum = 0;

    if (bytes < sizeof(h))
        return 0;
    memcpy(&h, p, sizeof(h));
    for (unsigned i = 0; i < h.e_shnum; i++) {
        Elf64_Shdr s;

        memcpy(&s, p + h.e_shoff + i * sizeof(s), sizeof(s));
        if (s.sh_flags & SHF_ALLOC && !(s.sh_flags & SHF_EXECINSTR))
            sum = more(sum, s.sh_size);
    }
    return sum;
}

/* ".b8" to ".b128": bytes of a scalar; vectors are told by .v2 and .v4 before it. */
static uint64_t width_of(const char *at, const char *end)
{
    unsigned bits = 0;

    for (at += 2; at < end && isdigit((unsigned char)*at) && bits < 1000; at++)
        bits = bits * 10 + (unsigned)(*at - '0');
    return bits / 8;
}

/* One declaration, up to its end: `.global .align 4 .b8 name[100][2];`. */
static uint64_t of_declaration(const char *at, const char *end)
{
    uint64_t width = 1, vector = 1, count = 1, n;

    for (; at < end; at++) {
        if (*at == '.' && end - at > 2 && at[1] == 'v' && (at[2] == '2' || at[2] == '4'))
            vector = (uint64_t)(at[2] - '0');
        else if (*at == '.' && end - at > 2 && strchr("bsuf", at[1]) && isdigit((unsigned char)at[2]))
            width = width_of(at, end);
        else if (*at == '[' && end - at > 1 && isdigit((unsigned char)at[1])) {
            for (n = 0, at++; at < end && isdigit((unsigned char)*at) && n < UINT64_MAX / 16; at++)
                n = n * 10 + (uint64_t)(*at - '0');
            if (__builtin_mul_overflow(count, n, &count))
                return UINT64_MAX / 2;
        }
    }
    return __builtin_mul_overflow(count, width * vector, &n) ? UINT64_MAX / 2 : n;
}

static uint64_t of_ptx(const char *text, uint64_t bytes)
{
    static const char *const spaces[] = { ".global", ".const" };
    const char *end = text + strnlen(text, bytes), *at, *stop;
    uint64_t sum = 0;

    for (at = memchr(text, '.', (size_t)(end - text)); at; at = at < end ? memchr(at, '.', (size_t)(end - at)) : NULL) {
        bool declares = false;

        for (unsigned i = 0; i < 2; i++) { /* not of an instruction: ld.global */
            size_t n = strlen(spaces[i]);

            declares = declares || ((uint64_t)(end - at) > n && !memcmp(at, spaces[i], n) && isspace((unsigned char)at[n]) &&
                                    (at == text || !isalnum((unsigned char)at[-1])));
        }
        stop = at + 1;
        if (declares) {
            for (; stop < end && *stop != ';' && *stop != '='; stop++)
                ;
            sum = more(sum, of_declaration(at, stop));
        }
        at = stop;
    }
    return sum;
}

/* The driver takes one of the entries. Of a compressed one nothing is known. */
static uint64_t of_fatbin(const uint8_t *p)
{
    struct oh_fatbin h;
    struct oh_fatbin_entry e;
    uint64_t most = 0, n;

    memcpy(&h, p, sizeof(h));
    for (uint64_t at = h.header_bytes, end = at + h.files_bytes; at < end; at += e.header_bytes + e.payload_bytes) {
        memcpy(&e, p + at, sizeof(e));
        if (e.flags & OH_COMPRESSED)
            continue;
        n = e.kind == OH_KIND_ELF ? of_elf(p + at + e.header_bytes, e.payload_bytes)
                                  : of_ptx((const char *)p + at + e.header_bytes, e.payload_bytes);
        most = n > most ? n : most;
    }
    return most;
}

uint64_t oh_image_variables(const uint8_t *p, uint64_t bytes)
{
    uint32_t magic = 0;

    if (bytes >= 16)
        memcpy(&magic, p, sizeof(magic));
    if (magic == OH_ELF_MAGIC)
        return of_elf(p, bytes);
    return magic == OH_FATBIN_MAGIC ? of_fatbin(p) : of_ptx((const char *)p, bytes);
}

/* As a word of PTX or a symbol of machine code. */
bool oh_image_names_malloc(const uint8_t *p, uint64_t bytes)
{
    const uint8_t *end = p + bytes, *at = p;

    while ((at = memmem(at, (size_t)(end - at), "malloc", 6))) {
        if ((at == p || !isalnum(at[-1])) && at + 6 < end && !isalnum(at[6]))
            return true;
        at += 6;
    }
    return false;
}
