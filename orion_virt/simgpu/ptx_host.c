/* SPDX-License-Identifier: Apache-2.0 */
/* Device functions that end on the host: printf and failed assertions. */
#include <stdio.h>

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
static void print_one(struct ptx_warp *w, unsigned lane, const char *spec, uint64_t *at)
{
    char kind = spec[strlen(spec) - 1], text[1024];
    bool wide = strchr(spec, 'l') || strchr(spec, 'z') || strchr(spec, 'j') || strchr(spec, 't') || kind == 'p';
    uint64_t v;

    switch (kind) {
    case 's':
        read_string(w, lane, argument(w, lane, at, 8), text, sizeof(text));
        printf(spec, text);
        return;
    case 'f': case 'F': case 'e': case 'E': case 'g': case 'G': case 'a': case 'A':
        printf(spec, ptx_f64(argument(w, lane, at, 8)));
        return;
    default:
        v = argument(w, lane, at, wide ? 8 : 4);
        if (wide)
            printf(spec, v);
        else
            printf(spec, (uint32_t)v);
    }
}

static void print(struct ptx_warp *w, unsigned lane, const char *format, uint64_t arguments)
{
    char spec[32];

    while (*format) {
        if (*format != '%') {
            putchar(*format++);
        } else if (format[1] == '%') {
            putchar('%');
            format += 2;
        } else {
            size_t n = strcspn(format + 1, "diouxXeEfFgGaAcsp") + 2;
            if (n >= sizeof(spec) || !format[n - 1])
                return;
            memcpy(spec, format, n);
            spec[n] = 0;
            print_one(w, lane, spec, &arguments);
            format += n;
        }
    }
}

/* The value of a parameter variable in local memory. */
static uint64_t parameter(struct ptx_warp *w, unsigned lane, int32_t slot)
{
    uint64_t v;

    memcpy(&v, w->local + (size_t)lane * w->local_bytes + REG(slot)[lane], 8);
    return v;
}

void ptx_vprintf(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    char format[1024];

    EACH {
        read_string(w, l, parameter(w, l, i->a), format, sizeof(format));
        print(w, l, format, parameter(w, l, i->b));
    }
    fflush(stdout);
}

void ptx_assertfail(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    char what[256], file[256];
    uint32_t line;

    EACH {
        read_string(w, l, parameter(w, l, i->a), what, sizeof(what));
        read_string(w, l, parameter(w, l, i->b), file, sizeof(file));
        memcpy(&line, w->local + (size_t)l * w->local_bytes + REG(i->c)[l], 4);
        ptx_fault(w, l, PTX_ASSERT, "%s:%u: assertion `%s` failed", file, line, what);
    }
}
