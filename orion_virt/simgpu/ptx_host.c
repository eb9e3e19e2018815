/* SPDX-License-Identifier: Apache-2.0 */
/* Device functions that end on the host: printf and failed assertions. */
#include <stdio.h>
#include <stdlib.h>

#include "ptx_internal.h"

/* A NUL-terminated string in device memory; long ones are cut. */
static void read_string(struct ptx_warp *w, unsigned lane, uint64_t address, char *out, size_t room)
{
    size_t n = 0;

    for (; n + 1 < room; n++) {
        const char *p = ptx_at(w, lane, S_GENERIC, address + n, 1);
        if (!p || !*p)
            break;
        out[n] = *p;
    }
    out[n] = 0;
}

static uint64_t argument(struct ptx_warp *w, unsigned lane, uint64_t *at, unsigned bytes)
{
    uint64_t v = 0;
    const void *p;

    *at = (*at + bytes - 1) / bytes * bytes;
    p = ptx_at(w, lane, S_GENERIC, *at, bytes);
    if (p)
        memcpy(&v, p, bytes);
    *at += bytes;
    return v;
}

/* Prints one conversion, whose text is `spec`. */
static void print_one(struct ptx_warp *w, unsigned lane, FILE *out, const char *spec, uint64_t *at)
{
    char kind = spec[strlen(spec) - 1], text[1024];
    bool wide = strchr(spec, 'l') || strchr(spec, 'z') || strchr(spec, 'j') || strchr(spec, 't') || kind == 'p';
    uint64_t v;

    switch (kind) {
    case 's':
        read_string(w, lane, argument(w, lane, at, 8), text, sizeof(text));
        fprintf(out, spec, text);
        return;
    case 'f': case 'F': case 'e': case 'E': case 'g': case 'G': case 'a': case 'A':
        fprintf(out, spec, ptx_f64(argument(w, lane, at, 8)));
        return;
    default:
        v = argument(w, lane, at, wide ? 8 : 4);
        if (wide)
            fprintf(out, spec, v);
        else
            fprintf(out, spec, (uint32_t)v);
    }
}

/* Returns how many arguments were printed, as vprintf of a kernel does. */
static unsigned print(struct ptx_warp *w, unsigned lane, FILE *out, const char *format, uint64_t arguments)
{
    char spec[32];
    unsigned nr = 0;

    while (*format) {
        if (*format != '%') {
            fputc(*format++, out);
        } else if (format[1] == '%') {
            fputc('%', out);
            format += 2;
        } else {
            size_t n = strcspn(format + 1, "diouxXeEfFgGaAcsp") + 2;
            if (n >= sizeof(spec) || !format[n - 1])
                break;
            memcpy(spec, format, n);
            spec[n] = 0;
            print_one(w, lane, out, spec, &arguments);
            format += n;
            nr++;
        }
    }
    return nr;
}

/* The value of a parameter variable in local memory. */
static uint64_t parameter(struct ptx_warp *w, unsigned lane, int32_t slot)
{
    uint64_t v;

    memcpy(&v, w->local + (size_t)lane * w->local_bytes + REG(slot)[lane], 8);
    return v;
}

static void say(struct ptx_warp *w, int fd, const char *text, size_t bytes)
{
    w->block->memory->print(w->block->memory->arg, fd, text, bytes);
}

void ptx_vprintf(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    char format[1024], *text;
    unsigned nr;
    size_t bytes;

    EACH {
        FILE *out = open_memstream(&text, &bytes);

        if (!out)
            return;
        read_string(w, l, parameter(w, l, i->a), format, sizeof(format));
        nr = print(w, l, out, format, parameter(w, l, i->b));
        if (i->d >= 0)
            memcpy(w->local + (size_t)l * w->local_bytes + REG(i->d)[l], &nr, sizeof(nr));
        fclose(out);
        say(w, 1, text, bytes);
        free(text);
    }
}

/* The driver's own words. */
void ptx_assertfail(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    const struct ptx_block *b = w->block;
    unsigned x = b->launch->block[0], y = b->launch->block[1], t;
    char what[256], file[256], function[256], text[1024];
    uint32_t line;
    int n;

    EACH {
        t = w->index * PTX_LANES + l;
        read_string(w, l, parameter(w, l, i->a), what, sizeof(what));
        read_string(w, l, parameter(w, l, i->b), file, sizeof(file));
        memcpy(&line, w->local + (size_t)l * w->local_bytes + REG(i->c)[l], 4);
        read_string(w, l, parameter(w, l, i->e), function, sizeof(function));
        n = snprintf(text, sizeof(text), "%s:%u: %s: block: [%u,%u,%u], thread: [%u,%u,%u] Assertion `%s` failed.\n", file,
                     line, function, b->ctaid[0], b->ctaid[1], b->ctaid[2], t % x, t / x % y, t / x / y, what);
        say(w, 2, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
    }
    for (unsigned l = 0; l < PTX_LANES; l++)
        if (m >> l & 1)
            ptx_fault(w, l, PTX_ASSERT, "assertion failed");
}

/* cudaGraphSetConditional: a graph's condition is a word of device memory, and its handle the address. */
void ptx_setcondition(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    EACH {
        const uint8_t *base = w->local + (size_t)l * w->local_bytes;
        uint64_t handle;
        uint32_t value, *word;
        memcpy(&handle, base + REG(i->a)[l], sizeof(handle));
        memcpy(&value, base + REG(i->b)[l], sizeof(value));
        if (!(word = ptx_at(w, l, S_GLOBAL, handle, sizeof(*word))))
            return;
        __atomic_store_n(word, value, __ATOMIC_RELEASE);
    }
}
