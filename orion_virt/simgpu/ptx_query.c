/* SPDX-License-Identifier: Apache-2.0 */
/* What a driver asks about a loaded module. */
#include <stdlib.h>

#include "ptx_translate.h"

struct ptx_kernel *ptx_kernel_at(struct ptx_module *m, unsigned index)
{
    for (unsigned i = 0; i < m->nr_functions; i++)
        if (m->functions[i]->entry && m->functions[i]->defined && !index--)
            return m->functions[i];
    return NULL;
}

struct ptx_kernel *ptx_find_kernel(struct ptx_module *m, const char *name)
{
    for (unsigned i = 0; i < m->nr_functions; i++)
        if (m->functions[i]->entry && !strcmp(m->functions[i]->name, name))
            return m->functions[i];
    return NULL;
}

const char *ptx_kernel_name(const struct ptx_kernel *k)
{
    return k->name;
}

int ptx_find_global(struct ptx_module *m, const char *name, uint64_t *address, uint64_t *bytes)
{
    for (unsigned i = 0; i < m->nr_variables; i++) {
        const struct ptx_variable *v = &m->variables[i];
        if ((v->space != S_GLOBAL && v->space != S_CONST) || strcmp(v->name, name))
            continue;
        *address = v->address;
        *bytes = v->bytes;
        return 1;
    }
    return 0;
}

int ptx_find_reference(struct ptx_module *m, const char *name, uint64_t *address)
{
    for (unsigned i = 0; i < m->nr_variables; i++)
        if (m->variables[i].reference && !strcmp(m->variables[i].name, name)) {
            *address = m->variables[i].address;
            return 1;
        }
    return 0;
}

unsigned ptx_nr_params(const struct ptx_kernel *k)
{
    return k->nr_params;
}

int ptx_param(const struct ptx_kernel *k, unsigned index, size_t *offset, size_t *bytes)
{
    if (index >= k->nr_params)
        return -1;
    *offset = k->params[index].address;
    *bytes = k->params[index].bytes;
    return 0;
}

size_t ptx_params_bytes(const struct ptx_kernel *k)
{
    return k->params_bytes;
}

size_t ptx_shared_bytes(const struct ptx_kernel *k)
{
    return k->shared_bytes ? k->module->shared_bytes + k->shared_bytes : k->module->shared_used;
}

size_t ptx_local_bytes(const struct ptx_kernel *k)
{
    return k->local_bytes + (k->nr_calls ? k->module->local_bytes : 0);
}

size_t ptx_constant_bytes(const struct ptx_kernel *k)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < k->module->nr_variables; i++)
        bytes += k->module->variables[i].space == S_CONST ? k->module->variables[i].bytes : 0;
    return bytes;
}

unsigned ptx_target(const struct ptx_kernel *k)
{
    return k->target;
}

unsigned ptx_max_threads(const struct ptx_kernel *k)
{
    return k->max_threads;
}

bool ptx_cluster(const struct ptx_kernel *k, unsigned blocks[3])
{
    memcpy(blocks, k->cluster, sizeof(k->cluster));
    return k->clustered;
}

/* Where a slot is first and last named: in between it needs a register. */
static void note_range(uint32_t *first, uint32_t *last, int32_t slot, uint32_t pc)
{
    first[slot] = first[slot] < pc ? first[slot] : pc;
    last[slot] = pc;
}

/* The most 32-bit registers that values need at one time, in the order of the text. */
static unsigned pressure(const struct ptx_kernel *k, uint32_t *first, uint32_t *last, int32_t *change)
{
    const struct translator t = { .m = k->module };
    int32_t slots[2 * PTX_OPERANDS_MAX], now = 0, most = 0;
    unsigned base = k->module->slots;

    memset(first, 0xff, k->slots * sizeof(*first));
    for (uint32_t pc = k->first; pc < k->end; pc++) {
        const struct ptx_insn *i = &k->module->code[pc];
        unsigned nr = ptx_uses(&t, i, slots);
        nr += ptx_defs(&t, i, slots + nr);
        for (unsigned s = 0; s < nr; s++)
            note_range(first, last, slots[s], pc);
    }
    for (unsigned c = 0; c < k->nr_constants; c++) /* those are no registers */
        first[k->constants[c].slot] = UINT32_MAX;
    for (unsigned s = base; s < k->slots; s++) {
        int32_t words = k->widths[s - base] / 32;
        if (first[s] == UINT32_MAX)
            continue;
        change[first[s] - k->first] += words;
        change[last[s] - k->first + 1] -= words;
    }
    for (uint32_t pc = k->first; pc < k->end; pc++) {
        now += change[pc - k->first];
        most = now > most ? now : most;
    }
    return (unsigned)most;
}

unsigned ptx_nr_registers(const struct ptx_kernel *k)
{
    uint32_t *first = malloc((k->slots + 1u) * sizeof(*first)), *last = malloc((k->slots + 1u) * sizeof(*last));
    int32_t *change = calloc(k->end - k->first + 2, sizeof(*change));
    unsigned n = first && last && change ? pressure(k, first, last, change) + 8 : 32; /* addresses and what the machine keeps */

    free(first);
    free(last);
    free(change);
    return n < 16 ? 16 : n < 255 ? n : 255;
}
