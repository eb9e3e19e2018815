/* SPDX-License-Identifier: Apache-2.0 */
/* Modules: load, functions by name, globals, unload. */
#include "modules.h"
#include "variable.h"

#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "gen/send.h"

static struct og_module *og_all_modules; /* under og_modules_lock */

struct og_module *og_module(uint64_t handle)
{
    return handle && og_valid(OW_KIND_MODULE, handle) ? og_data(handle) : NULL;
}

struct og_module *og_module_make(uint64_t library, CUresult *r)
{
    struct og_module *m = calloc(1, sizeof(*m));

    *r = CUDA_ERROR_OUT_OF_MEMORY;
    if (!m)
        return NULL;
    m->handle = og_mint(OW_KIND_MODULE);
    if (!m->handle) {
        free(m);
        return NULL;
    }
    m->context = og_context_home(og_current());
    m->library = library;
    og_set_data(m->handle, m);
    pthread_mutex_lock(&og_modules_lock);
    m->next = og_all_modules;
    og_all_modules = m;
    pthread_mutex_unlock(&og_modules_lock);
    *r = CUDA_SUCCESS;
    return m;
}

void og_module_free(struct og_module *m)
{
    struct og_module **p;

    pthread_mutex_lock(&og_modules_lock);
    for (p = &og_all_modules; *p && *p != m; p = &(*p)->next)
        ;
    if (*p)
        *p = m->next;
    pthread_mutex_unlock(&og_modules_lock);
    og_entries_free(m->entries);
    og_unmint(OW_KIND_MODULE, m->handle);
    free(m);
}

/* First module of a library and, context != 0, in that context; library 0: any. */
static struct og_module *og_module_search(uint64_t library, uint64_t context)
{
    struct og_module *m;

    pthread_mutex_lock(&og_modules_lock);
    for (m = og_all_modules; m; m = m->next)
        if ((!library || m->library == library) && (!context || m->context == context))
            break;
    pthread_mutex_unlock(&og_modules_lock);
    return m;
}

struct og_module *og_module_of(uint64_t library, uint64_t context)
{
    return og_module_search(library, context);
}

void og_modules_of_library_free(uint64_t library)
{
    struct og_module *m;

    while ((m = og_module_search(library, 0)))
        og_module_free(m);
}

void og_modules_context_died(uint64_t context)
{
    struct og_module *m;

    while ((m = og_module_search(0, context)))
        og_module_free(m);
    og_libraries_context_died(context);
}

/* ---- load ---- */
static CUresult og_module_load(CUmodule *module, const struct og_image *image, const struct og_jit *jit)
{
    struct og_module *m;
    uint64_t id;
    CUresult r = og_image_send(image, &id);

    if (r != CUDA_SUCCESS)
        return r;
    m = og_module_make(0, &r);
    if (m) {
        r = og_send_orion_module_load(m->handle, id, jit->nr, jit->packed);
        og_jit_results(jit, id);
        if (r == CUDA_SUCCESS)
            *module = (CUmodule)(uintptr_t)m->handle;
        else
            og_module_free(m);
    }
    og_image_drop(id);
    return r;
}

static CUresult og_load(CUmodule *module, const void *code, uint64_t limit, const struct og_jit *jit)
{
    struct og_image image;
    CUresult r;

    if (!og_context_live(&r))
        return r;
    if (!module || !code)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_image_scan(code, limit, &image);
    if (r != CUDA_SUCCESS)
        return r;
    r = og_module_load(module, &image, jit);
    og_image_free(&image);
    return r;
}

OG_EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    static const struct og_jit none;

    return og_load(module, image, UINT64_MAX, &none);
}

OG_EXPORT CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int numOptions,
                                      CUjit_option *options, void **optionValues)
{
    struct og_jit jit;
    CUresult r = og_jit_parse(&jit, numOptions, options, optionValues);

    return r == CUDA_SUCCESS ? og_load(module, image, UINT64_MAX, &jit) : r;
}

OG_EXPORT CUresult cuModuleLoadFatBinary(CUmodule *module, const void *fatCubin)
{
    return cuModuleLoadData(module, fatCubin);
}

OG_EXPORT CUresult cuModuleLoad(CUmodule *module, const char *fname)
{
    static const struct og_jit none;
    void *data;
    uint64_t bytes;
    CUresult r;

    if (!module || !fname)
        return CUDA_ERROR_INVALID_VALUE;
    if (!og_context_live(&r))
        return r;
    r = og_read_file(fname, &data, &bytes);
    if (r == CUDA_SUCCESS)
        r = og_load(module, data, bytes, &none);
    free(data);
    return r;
}

OG_EXPORT CUresult cuModuleUnload(CUmodule hmod)
{
    struct og_module *m;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    m = og_module((uintptr_t)hmod);
    if (!m)
        return CUDA_ERROR_INVALID_HANDLE;
    if (m->library)
        return CUDA_ERROR_NOT_PERMITTED; /* its library owns it */
    r = og_send_orion_module_unload(m->handle);
    og_module_free(m);
    return r;
}

OG_EXPORT CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!mode)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = 2; /* lazy: an image travels when something of it is asked for */
    return CUDA_SUCCESS;
}

/* ---- what is in a module ---- */
static struct og_module *og_module_checked(CUmodule mod, const void *out, CUresult *r)
{
    struct og_module *m;

    *r = og_check_init();
    if (*r != CUDA_SUCCESS)
        return NULL;
    m = og_module((uintptr_t)mod);
    if (!m)
        *r = CUDA_ERROR_INVALID_HANDLE;
    else if (!out)
        *r = CUDA_ERROR_INVALID_VALUE;
    return *r == CUDA_SUCCESS ? m : NULL;
}

static void og_module_keep(struct og_module *m, struct og_entry *e)
{
    pthread_mutex_lock(&og_modules_lock);
    e->next = m->entries;
    m->entries = e;
    pthread_mutex_unlock(&og_modules_lock);
}

OG_EXPORT CUresult cuModuleGetFunction(CUfunction *hfunc, CUmodule hmod, const char *name)
{
    CUresult r;
    struct og_module *m = og_module_checked(hmod, hfunc && name ? hfunc : NULL, &r);
    struct og_entry *e;

    if (!m)
        return r;
    pthread_mutex_lock(&og_modules_lock);
    e = og_entry_find(m->entries, name);
    pthread_mutex_unlock(&og_modules_lock);
    if (!e) {
        e = og_entry_make(OW_KIND_FUNCTION, m->handle, m->context, name, &r);
        if (!e)
            return r;
        r = og_entry_named(OW_OP_orion_module_function, e);
        if (r != CUDA_SUCCESS) {
            og_entry_free(e);
            return r;
        }
        og_module_keep(m, e);
    }
    *hfunc = (CUfunction)(uintptr_t)e->f.handle;
    return CUDA_SUCCESS;
}

CUresult og_global_found(uint64_t start, uint64_t bytes, bool managed)
{
    uint32_t is = managed;

    if (!managed && og_peer_knows(OW_OP_orion_is_managed) && og_send_orion_is_managed(start, &is) != CUDA_SUCCESS)
        is = 0;
    return is ? og_variable_add(start, bytes) : CUDA_SUCCESS;
}

OG_EXPORT CUresult cuModuleGetGlobal_v2(CUdeviceptr *dptr, size_t *bytes, CUmodule hmod, const char *name)
{
    CUresult r;
    struct og_module *m = og_module_checked(hmod, name, &r);
    uint64_t p = 0, n = 0;

    if (!m)
        return r;
    r = og_send_orion_module_global(m->handle, name, &p, &n);
    if (r == CUDA_SUCCESS)
        r = og_global_found(p, n, false);
    if (r == CUDA_SUCCESS && dptr)
        *dptr = p;
    if (r == CUDA_SUCCESS && bytes)
        *bytes = n;
    return r;
}

OG_EXPORT CUresult cuModuleGetFunctionCount(unsigned int *count, CUmodule mod)
{
    CUresult r;
    struct og_module *m = og_module_checked(mod, count, &r);

    return m ? og_send_orion_module_count(m->handle, count) : r;
}

/* One of the functions that were enumerated: its name comes from the host. */
static CUresult og_enumerated(struct og_module *m, struct og_entry *e)
{
    uint32_t total, at = 0, nr = 0, got;
    uint32_t none[1];
    char name[4096];
    CUresult r;

    do {
        uint8_t piece[512];
        uint32_t n;

        r = og_send_orion_function_name(e->f.handle, at, sizeof(piece), &total, piece);
        if (r != CUDA_SUCCESS || total >= sizeof(name))
            return r != CUDA_SUCCESS ? r : CUDA_ERROR_UNKNOWN;
        n = total - at < sizeof(piece) ? total - at : (uint32_t)sizeof(piece);
        for (uint32_t i = 0; i < n; i++)
            name[at + i] = (char)piece[i];
        at += n;
    } while (at < total);
    name[at] = 0;
    free(e->name);
    e->name = strdup(name);
    if (!e->name)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = og_send_orion_function_params(e->f.handle, UINT32_MAX, 0, &nr, &got, none);
    if (r == CUDA_SUCCESS)
        r = og_entry_layout(e, nr, got);
    if (r == CUDA_SUCCESS)
        og_module_keep(m, e);
    return r;
}

static CUresult og_enumerate(struct og_module *m, CUfunction *functions, uint32_t first, uint32_t count, uint32_t *done)
{
    struct og_entry *made[64];
    uint64_t handles[64];
    uint32_t n = 0, got = 0;
    CUresult r = CUDA_SUCCESS;

    while (n < count && n < 64 && (made[n] = og_entry_make(OW_KIND_FUNCTION, m->handle, m->context, "", &r))) {
        handles[n] = made[n]->f.handle;
        n++;
    }
    if (n)
        r = og_send_orion_module_enumerate(m->handle, first, n, handles, &got);
    if (r != CUDA_SUCCESS || got > n)
        got = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i < got && r == CUDA_SUCCESS)
            r = og_enumerated(m, made[i]);
        else
            og_entry_free(made[i]);
        if (i < got && r == CUDA_SUCCESS)
            functions[i] = (CUfunction)(uintptr_t)made[i]->f.handle;
    }
    *done = got;
    return r;
}

OG_EXPORT CUresult cuModuleEnumerateFunctions(CUfunction *functions, unsigned int numFunctions, CUmodule mod)
{
    CUresult r;
    struct og_module *m = og_module_checked(mod, functions, &r);
    uint32_t done = 1;

    if (!m)
        return r;
    for (uint32_t at = 0; r == CUDA_SUCCESS && done && at < numFunctions; at += done)
        r = og_enumerate(m, functions + at, at, numFunctions - at, &done);
    return r;
}
