/* SPDX-License-Identifier: Apache-2.0 */
/* Modules: images loaded into a context, their functions and variables. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"

CUresult sim_module_add(struct CUmod_st *m, const char *name, struct ptx_kernel *kernel)
{
    struct CUfunc_st *f = calloc(1, sizeof(*f));
    void *p = realloc(m->functions, (m->nr_functions + 1) * sizeof(*m->functions));

    if (p)
        m->functions = p;
    if (!f || !p || !(f->name = strdup(name)) || !sim_register(f, SIM_FUNCTION)) {
        if (f)
            free(f->name);
        free(f);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    f->module = m;
    f->kernel = kernel;
    f->carveout = -1;
    m->functions[m->nr_functions++] = f;
    return CUDA_SUCCESS;
}

static CUresult fill(struct CUmod_st *m, char *error, size_t error_bytes)
{
    struct ptx_memory memory = sim_ptx_memory;
    CUresult r = CUDA_SUCCESS;
    struct ptx_kernel *k;
    enum ptx_status s;

    if (!m->image.ptx)
        return sim_cubin_load(m);
    if (!memmem(m->image.ptx, m->image.ptx_bytes, ".version", 8))
        return CUDA_ERROR_INVALID_IMAGE; /* text, but no PTX at all */
    memory.arg = m->ctx;
    s = ptx_load(m->image.ptx, m->image.ptx_bytes, &memory, &m->ptx, error, error_bytes);
    if (s)
        return s == PTX_NO_MEMORY ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_PTX;
    for (unsigned i = 0; !r && (k = ptx_kernel_at(m->ptx, i)); i++)
        r = sim_module_add(m, ptx_kernel_name(k), k);
    return r;
}

CUresult sim_module_load(struct CUctx_st *ctx, const void *image, char *error, size_t error_bytes,
                         struct CUmod_st **out)
{
    struct CUmod_st *m = calloc(1, sizeof(*m));
    CUresult r;

    *out = NULL;
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    m->ctx = ctx;
    sim_output_show(ctx);
    r = sim_own_load(ctx);
    if (!r)
        r = sim_image_open(image, &m->image, error, error_bytes);
    if (!r)
        r = fill(m, error, error_bytes);
    if (!r && !sim_register(m, SIM_MODULE))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    if (r)
        sim_module_free(m);
    else
        *out = m;
    return r;
}

void sim_module_free(struct CUmod_st *m)
{
    sim_references_drop(m);
    sim_unregister(m);
    for (size_t i = 0; i < m->nr_functions; i++) {
        sim_unregister(m->functions[i]);
        sim_own_unload(m->functions[i]);
        free(m->functions[i]->name);
        free(m->functions[i]->params);
        free(m->functions[i]);
    }
    free(m->functions);
    if (m->ptx)
        ptx_unload(m->ptx);
    sim_cubin_unload(m);
    sim_image_close(&m->image);
    free(m);
}

struct CUfunc_st *sim_module_function(struct CUmod_st *m, const char *name)
{
    for (size_t i = 0; i < m->nr_functions; i++)
        if (!strcmp(m->functions[i]->name, name))
            return m->functions[i];
    return NULL;
}

/* Puts the explanation where the application asked for it, else on stderr. */
void sim_report(const char *error, unsigned nr, const CUjit_option *options, void **values)
{
    char *buffer = NULL;
    size_t room = 0;
    unsigned size_at = nr;

    for (unsigned i = 0; i < nr; i++) {
        if (options[i] == CU_JIT_ERROR_LOG_BUFFER)
            buffer = values[i];
        if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
            room = (uint32_t)(uintptr_t)values[size_at = i];
        if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES)
            values[i] = NULL;
    }
    if (buffer && room)
        snprintf(buffer, room, "%s", error);
    else if (*error)
        sim_say("%s", error);
    if (size_at < nr)
        values[size_at] = (void *)(uintptr_t)(buffer ? strlen(error) : 0);
}

SIM_API CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned nr, CUjit_option *options,
                                    void **values)
{
    struct CUctx_st *ctx;
    char error[512] = "";
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!module || !image || (nr && (!options || !values)))
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_module_load(ctx, image, error, sizeof(error), module);
    sim_report(error, nr, options, values);
    return r;
}

SIM_API CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

SIM_API CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

/* A whole file with a NUL behind it. */
CUresult sim_read_file(const char *path, char **out)
{
    FILE *f = path ? fopen(path, "rb") : NULL;
    long bytes;

    *out = NULL;
    if (!f)
        return path ? CUDA_ERROR_FILE_NOT_FOUND : CUDA_ERROR_INVALID_VALUE;
    if (fseek(f, 0, SEEK_END) || (bytes = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) ||
        !(*out = calloc(1, (size_t)bytes + 64)) || fread(*out, 1, (size_t)bytes, f) != (size_t)bytes) {
        free(*out);
        *out = NULL;
    }
    fclose(f);
    return *out ? CUDA_SUCCESS : CUDA_ERROR_FILE_NOT_FOUND;
}

SIM_API CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    char *bytes;
    CUresult r = sim_read_file(path, &bytes);

    if (r)
        return r;
    r = cuModuleLoadData(module, bytes);
    free(bytes);
    return r;
}

SIM_API CUresult cuModuleUnload(CUmodule module)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!sim_valid(module, SIM_MODULE) || module->library)
        return CUDA_ERROR_INVALID_HANDLE;
    r = sim_context_wait(module->ctx);
    sim_module_free(module);
    return r;
}

SIM_API CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
    if (!mode)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = CU_MODULE_EAGER_LOADING;
    return CUDA_SUCCESS;
}

static CUresult check(CUmodule module, const void *out)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    return sim_valid(module, SIM_MODULE) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuModuleGetFunction(CUfunction *f, CUmodule module, const char *name)
{
    CUresult r = check(module, f);

    if (r)
        return r;
    if (!name || !*name)
        return CUDA_ERROR_INVALID_VALUE;
    *f = sim_module_function(module, name);
    return *f ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

static bool find_global(const struct CUmod_st *m, const char *name, uint64_t *address, uint64_t *bytes)
{
    if (m->ptx)
        return ptx_find_global(m->ptx, name, address, bytes);
    for (size_t i = 0; i < m->nr_globals; i++) {
        if (strcmp(m->globals[i].name, name))
            continue;
        *address = (uintptr_t)m->globals[i].p;
        *bytes = m->globals[i].bytes;
        return true;
    }
    return false;
}

SIM_API CUresult cuModuleGetGlobal_v2(CUdeviceptr *p, size_t *bytes, CUmodule module, const char *name)
{
    uint64_t address, size;
    CUresult r = check(module, &module);

    if (r)
        return r;
    if (!name || (!p && !bytes))
        return CUDA_ERROR_INVALID_VALUE;
    if (!find_global(module, name, &address, &size))
        return CUDA_ERROR_NOT_FOUND;
    if (p)
        *p = address;
    if (bytes)
        *bytes = size;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuModuleGetFunctionCount(unsigned *count, CUmodule module)
{
    CUresult r = check(module, count);

    if (!r)
        *count = (unsigned)module->nr_functions;
    return r;
}

SIM_API CUresult cuModuleEnumerateFunctions(CUfunction *functions, unsigned nr, CUmodule module)
{
    CUresult r = check(module, functions);

    for (unsigned i = 0; !r && i < nr && i < module->nr_functions; i++)
        functions[i] = module->functions[i];
    return r;
}
