/* SPDX-License-Identifier: Apache-2.0 */
/* Libraries: images independent of a context, loaded into each context when it first uses them. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"


struct CUkern_st {
    struct CUlib_st *library;
    char *name;
    struct sim_tuning tuning;
};
struct CUlib_st {
    struct sim_image image;
    struct CUmod_st *modules;    /* one for each context that used it */
    struct CUkern_st **kernels;
    size_t nr_kernels;
    struct CUlib_st *next;
};
static struct CUlib_st *libraries;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const void *image_of(const struct CUlib_st *l)
{
    return l->image.ptx ? l->image.ptx : l->image.cubin;
}

/* The library's module in `ctx`, loaded now if need be. */
static CUresult module_in_locked(struct CUlib_st *l, struct CUctx_st *ctx, struct CUmod_st **out)
{
    char error[512] = "";
    CUresult r;

    for (*out = l->modules; *out; *out = (*out)->next)
        if ((*out)->ctx == ctx)
            return CUDA_SUCCESS;
    r = sim_module_load(ctx, image_of(l), error, sizeof(error), out);
    sim_report(error, 0, NULL, NULL);
    if (r)
        return r;
    (*out)->library = l;
    (*out)->next = l->modules;
    l->modules = *out;
    return CUDA_SUCCESS;
}

void sim_libraries_drop(struct CUctx_st *ctx)
{
    pthread_mutex_lock(&lock);
    for (struct CUlib_st *l = libraries; l; l = l->next)
        for (struct CUmod_st **at = &l->modules, *m; (m = *at);) {
            if (m->ctx != ctx) {
                at = &m->next;
                continue;
            }
            *at = m->next;
            sim_module_free(m);
        }
    pthread_mutex_unlock(&lock);
}

static CUresult add_kernel(struct CUlib_st *l, const char *name)
{
    struct CUkern_st *k = calloc(1, sizeof(*k));
    void *p = realloc(l->kernels, (l->nr_kernels + 1) * sizeof(*l->kernels));

    if (p)
        l->kernels = p;
    if (!k || !p || !(k->name = strdup(name)) || !sim_register(k, SIM_KERNEL)) {
        free(k);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    k->library = l;
    l->kernels[l->nr_kernels++] = k;
    return CUDA_SUCCESS;
}

static void library_free(struct CUlib_st *l)
{
    for (struct CUmod_st *m = l->modules, *next; m; m = next) {
        next = m->next;
        sim_module_free(m);
    }
    for (size_t i = 0; i < l->nr_kernels; i++) {
        sim_unregister(l->kernels[i]);
        free(l->kernels[i]->name);
        free(l->kernels[i]);
    }
    free(l->kernels);
    sim_image_close(&l->image);
    free(l);
}

/* Parses once without a context, for the names and for errors now instead of at first use. */
static CUresult find_kernels(struct CUlib_st *l, char *error, size_t error_bytes)
{
    struct CUctx_st *ctx = sim_current();
    struct CUctx_st probe = { .device = &sim_devices[0] };
    struct CUmod_st *m;
    bool keep = sim_context_valid(ctx) && ctx->active;
    CUresult r = sim_module_load(keep ? ctx : &probe, image_of(l), error, error_bytes, &m);

    if (r)
        return r;
    for (size_t i = 0; i < m->nr_functions && !r; i++)
        r = add_kernel(l, m->functions[i]->name);
    if (keep && !r) {
        m->library = l;
        l->modules = m;
    } else {
        sim_module_free(m);
    }
    return r;
}

SIM_API CUresult cuLibraryLoadData(CUlibrary *out, const void *code, CUjit_option *jit, void **jit_values,
                                   unsigned nr_jit, CUlibraryOption *options, void **values, unsigned nr)
{
    char error[512] = "";
    struct CUlib_st *l;
    CUresult r;

    (void)options;
    (void)values;
    (void)nr;
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!out || !code || (nr_jit && (!jit || !jit_values)))
        return CUDA_ERROR_INVALID_VALUE;
    l = calloc(1, sizeof(*l));
    if (!l)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = sim_image_open(code, &l->image, error, sizeof(error));
    if (!r)
        r = find_kernels(l, error, sizeof(error));
    sim_report(error, nr_jit, jit, jit_values);
    if (r || !sim_register(l, SIM_LIBRARY)) {
        library_free(l);
        return r ? r : CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_lock(&lock);
    l->next = libraries;
    libraries = l;
    pthread_mutex_unlock(&lock);
    *out = l;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuLibraryLoadFromFile(CUlibrary *out, const char *path, CUjit_option *jit, void **jit_values,
                                       unsigned nr_jit, CUlibraryOption *options, void **values, unsigned nr)
{
    char *bytes;
    CUresult r = sim_read_file(path, &bytes);

    if (r)
        return r;
    r = cuLibraryLoadData(out, bytes, jit, jit_values, nr_jit, options, values, nr);
    free(bytes);
    return r;
}

SIM_API CUresult cuLibraryUnload(CUlibrary library)
{
    struct CUlib_st **at;

    if (!sim_valid(library, SIM_LIBRARY))
        return CUDA_ERROR_INVALID_HANDLE;
    for (struct CUmod_st *m = library->modules; m; m = m->next)
        sim_context_wait(m->ctx);
    pthread_mutex_lock(&lock);
    for (at = &libraries; *at && *at != library; at = &(*at)->next)
        ;
    if (*at)
        *at = library->next;
    sim_unregister(library);
    library_free(library);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuLibraryGetKernel(CUkernel *out, CUlibrary library, const char *name)
{
    if (!out || !name)
        return CUDA_ERROR_INVALID_VALUE;
    *out = NULL;
    if (!sim_valid(library, SIM_LIBRARY))
        return CUDA_ERROR_INVALID_HANDLE;
    for (size_t i = 0; i < library->nr_kernels; i++)
        if (!strcmp(library->kernels[i]->name, name))
            *out = library->kernels[i];
    return *out ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

SIM_API CUresult cuLibraryGetKernelCount(unsigned *count, CUlibrary library)
{
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_valid(library, SIM_LIBRARY))
        return CUDA_ERROR_INVALID_HANDLE;
    *count = (unsigned)library->nr_kernels;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuLibraryEnumerateKernels(CUkernel *kernels, unsigned nr, CUlibrary library)
{
    if (!kernels)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_valid(library, SIM_LIBRARY))
        return CUDA_ERROR_INVALID_HANDLE;
    for (size_t i = 0; i < nr && i < library->nr_kernels; i++)
        kernels[i] = library->kernels[i];
    return CUDA_SUCCESS;
}

SIM_API CUresult cuLibraryGetModule(CUmodule *module, CUlibrary library)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!module)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_valid(library, SIM_LIBRARY))
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&lock);
    r = module_in_locked(library, ctx, module);
    pthread_mutex_unlock(&lock);
    return r;
}

SIM_API CUresult cuLibraryGetGlobal(CUdeviceptr *p, size_t *bytes, CUlibrary library, const char *name)
{
    CUmodule module;
    CUresult r = cuLibraryGetModule(&module, library);

    return r ? r : cuModuleGetGlobal_v2(p, bytes, module, name);
}

SIM_API CUresult cuLibraryGetManaged(CUdeviceptr *p, size_t *bytes, CUlibrary library, const char *name)
{
    struct sim_range range;
    CUdeviceptr at;
    CUmodule module;
    CUresult r = cuLibraryGetModule(&module, library);

    if (!r)
        r = cuModuleGetGlobal_v2(&at, bytes, module, name);
    if (r)
        return r;
    if (!sim_space_find(at, &range) || range.kind != SIM_MEM_MANAGED)
        return CUDA_ERROR_NOT_FOUND;
    if (p)
        *p = at;
    return CUDA_SUCCESS;
}

/* What was set for a kernel holds for its functions, where nothing else was set for one. */
static void take_over(struct sim_tuning *f, const struct sim_tuning *k)
{
    if (k->max_dynamic > f->max_dynamic)
        f->max_dynamic = k->max_dynamic;
    if (!f->cluster[0] && !f->cluster[1] && !f->cluster[2])
        memcpy(f->cluster, k->cluster, sizeof(f->cluster));
    f->beyond_portable |= k->beyond_portable;
    if (!f->policy)
        f->policy = k->policy;
}

CUresult sim_function(struct CUctx_st *ctx, void *handle, struct CUfunc_st **out)
{
    struct CUkern_st *k = handle;
    struct CUmod_st *m;
    CUresult r;

    *out = handle;
    if (sim_valid(handle, SIM_FUNCTION))
        return CUDA_SUCCESS;
    if (!sim_valid(handle, SIM_KERNEL))
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&lock);
    r = module_in_locked(k->library, ctx, &m);
    if (!r && !(*out = sim_module_function(m, k->name)))
        r = CUDA_ERROR_NOT_FOUND;
    if (!r)
        take_over(&(*out)->tuning, &k->tuning);
    pthread_mutex_unlock(&lock);
    return r;
}

SIM_API CUresult cuKernelGetFunction(CUfunction *out, CUkernel kernel)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    return sim_valid(kernel, SIM_KERNEL) ? sim_function(ctx, kernel, out) : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuKernelGetName(const char **name, CUkernel kernel)
{
    if (!name)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_valid(kernel, SIM_KERNEL))
        return CUDA_ERROR_INVALID_HANDLE;
    *name = kernel->name;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuKernelGetLibrary(CUlibrary *library, CUkernel kernel)
{
    if (!library)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_valid(kernel, SIM_KERNEL))
        return CUDA_ERROR_INVALID_HANDLE;
    *library = kernel->library;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuKernelSetAttribute(CUfunction_attribute what, int value, CUkernel kernel, CUdevice dev)
{
    if (!sim_valid(kernel, SIM_KERNEL))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!sim_device(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    return sim_set_attribute(&kernel->tuning, what, value, 0);
}
