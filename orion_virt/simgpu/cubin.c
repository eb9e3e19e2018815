/* SPDX-License-Identifier: Apache-2.0 */
/* Machine code (cubin): kernels with parameters and shared memory, which can be asked about but not run; variables. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define INFO_SIZED 4           /* format of an entry of .nv.info.KERNEL with a size and a payload */
#define INFO_PARAM 0x17        /* ordinal, offset and, in the upper 14 bits of the last word, size */
#define INFO_PARAM_WIDE 0x45   /* the same with a word for the size */
#define PARAM_BYTES 12
#define SHARED_RESERVED 1024   /* at the start of each block's shared memory since sm_90 */
#define NOBITS 8
#define SYMTAB 2
#define SYMBOL_BYTES 24
#define OBJECT 1

struct section {
    const char *name;
    const uint8_t *data;
    uint64_t bytes;
    unsigned type, link;
};

static uint64_t word(const void *p, unsigned bytes)
{
    uint64_t v = 0;

    memcpy(&v, p, bytes);
    return v;
}

static unsigned nr_sections(const struct sim_image *image)
{
    const char *elf = image->cubin;
    uint64_t off = word(elf + 40, 8), size = word(elf + 58, 2), nr = word(elf + 60, 2);

    if (size < 64 || word(elf + 62, 2) >= nr || off > image->cubin_bytes || size * nr > image->cubin_bytes - off)
        return 0;
    return (unsigned)nr;
}

static bool section_at(const struct sim_image *image, unsigned i, struct section *out)
{
    const char *elf = image->cubin, *first = elf + word(elf + 40, 8);
    uint64_t size = word(elf + 58, 2), names = word(first + size * word(elf + 62, 2) + 24, 8);
    const char *header = first + size * i;
    uint64_t name = names + word(header, 4), at = word(header + 24, 8);

    if (name < names || name >= image->cubin_bytes || !memchr(elf + name, 0, image->cubin_bytes - name))
        return false;
    out->name = elf + name;
    out->data = (const uint8_t *)elf + at;
    out->bytes = word(header + 32, 8);
    out->type = (unsigned)word(header + 4, 4);
    out->link = (unsigned)word(header + 40, 4);
    return out->type == NOBITS || (at <= image->cubin_bytes && out->bytes <= image->cubin_bytes - at);
}

static CUresult add_param(struct CUfunc_st *f, unsigned ordinal, unsigned offset, unsigned bytes)
{
    struct sim_param *p;

    if (ordinal >= f->nr_params) {
        p = realloc(f->params, (ordinal + 1) * sizeof(*p));
        if (!p)
            return CUDA_ERROR_OUT_OF_MEMORY;
        memset(p + f->nr_params, 0, (ordinal + 1 - f->nr_params) * sizeof(*p));
        f->params = p;
        f->nr_params = ordinal + 1;
    }
    f->params[ordinal] = (struct sim_param){ offset, bytes };
    return CUDA_SUCCESS;
}

/* Entries of one .nv.info.KERNEL: format, attribute, then a value of two bytes or a size and as many bytes. */
static CUresult take_info(struct CUfunc_st *f, const struct section *s)
{
    const uint8_t *at = s->data, *end = s->data + s->bytes;
    CUresult r = CUDA_SUCCESS;

    while (!r && end - at >= 4) {
        uint64_t bytes = at[0] == INFO_SIZED ? word(at + 2, 2) : 0;

        if (bytes > (uint64_t)(end - at - 4))
            return CUDA_ERROR_INVALID_IMAGE;
        if (at[0] == INFO_SIZED && bytes == PARAM_BYTES && (at[1] == INFO_PARAM || at[1] == INFO_PARAM_WIDE)) {
            uint64_t size = word(at + 12, 4);
            r = add_param(f, (unsigned)word(at + 8, 2), (unsigned)word(at + 10, 2),
                          (unsigned)(at[1] == INFO_PARAM ? size >> 18 : size));
        }
        at += 4 + bytes;
    }
    return r;
}

/* The rest of `name` behind `prefix`, NULL if it does not begin so. */
static const char *behind(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(name, prefix, n) ? NULL : name + n;
}

static CUresult add_functions(struct CUmod_st *m, unsigned nr)
{
    CUresult r = nr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
    struct CUfunc_st *f;
    struct section s;
    const char *name;

    for (unsigned i = 0; i < nr && !r; i++) {
        if (!section_at(&m->image, i, &s))
            return CUDA_ERROR_INVALID_IMAGE;
        if ((name = behind(s.name, ".text.")))
            r = sim_module_add(m, name, NULL);
    }
    for (unsigned i = 0; i < nr && !r; i++) {
        section_at(&m->image, i, &s);
        if ((name = behind(s.name, ".nv.info.")) && (f = sim_module_function(m, name)))
            r = take_info(f, &s);
        else if ((name = behind(s.name, ".nv.shared.")) && (f = sim_module_function(m, name)))
            f->shared_bytes = s.bytes > SHARED_RESERVED ? s.bytes - SHARED_RESERVED : 0;
    }
    return r;
}

static CUresult add_global(struct CUmod_st *m, const char *name, const struct section *home, uint64_t at, uint64_t bytes)
{
    struct sim_global *g = realloc(m->globals, (m->nr_globals + 1) * sizeof(*g));
    void *p = g ? sim_ptx_memory.alloc(m->ctx, bytes, 0) : NULL;

    if (g)
        m->globals = g;
    if (!p)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (home->type != NOBITS)
        memcpy(p, home->data + at, bytes);
    m->globals[m->nr_globals++] = (struct sim_global){ name, p, bytes };
    return CUDA_SUCCESS;
}

/* Variables are the symbols of type OBJECT in .nv.global* and .nv.constantN. */
static CUresult take_symbols(struct CUmod_st *m, unsigned nr, const struct section *table)
{
    struct section names, home;
    CUresult r = CUDA_SUCCESS;

    if (table->link >= nr || !section_at(&m->image, table->link, &names))
        return CUDA_ERROR_INVALID_IMAGE;
    for (const uint8_t *at = table->data; !r && table->data + table->bytes - at >= SYMBOL_BYTES; at += SYMBOL_BYTES) {
        uint64_t name = word(at, 4), index = word(at + 6, 2), value = word(at + 8, 8), bytes = word(at + 16, 8);

        if ((at[4] & 15) != OBJECT || !bytes || index >= nr || !section_at(&m->image, (unsigned)index, &home))
            continue;
        if (!behind(home.name, ".nv.global") && !behind(home.name, ".nv.constant"))
            continue;
        if (name >= names.bytes || !memchr(names.data + name, 0, names.bytes - name) || value > home.bytes ||
            bytes > home.bytes - value)
            return CUDA_ERROR_INVALID_IMAGE;
        r = add_global(m, (const char *)names.data + name, &home, value, bytes);
    }
    return r;
}

CUresult sim_cubin_load(struct CUmod_st *m)
{
    unsigned nr = nr_sections(&m->image);
    CUresult r = add_functions(m, nr);
    struct section s;

    for (unsigned i = 0; i < nr && !r; i++)
        if (section_at(&m->image, i, &s) && s.type == SYMTAB)
            r = take_symbols(m, nr, &s);
    return r;
}

void sim_cubin_unload(struct CUmod_st *m)
{
    for (size_t i = 0; i < m->nr_globals; i++)
        sim_ptx_memory.free(m->ctx, m->globals[i].p);
    free(m->globals);
}
