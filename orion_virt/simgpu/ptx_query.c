/* SPDX-License-Identifier: Apache-2.0 */
/* What a driver asks about a loaded module. */
#include "ptx_internal.h"

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

unsigned ptx_max_threads(const struct ptx_kernel *k)
{
    return k->max_threads;
}

unsigned ptx_nr_registers(const struct ptx_kernel *k)
{
    unsigned n = k->slots / 3 + 8; /* names outnumber live values by about that much */

    return n < 255 ? n : 255;
}
