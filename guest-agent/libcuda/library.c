/* SPDX-License-Identifier: Apache-2.0 */
/* Libraries: images that travel when something of them is first asked for, kernels, modules by context. */
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "gen/send.h"
#include "modules.h"

#define OG_BINARY_IS_PRESERVED 1

struct og_library {
    uint64_t handle;
    struct og_image image;
    struct og_jit jit;
    void *file;               /* contents of cuLibraryLoadFromFile */
    pthread_mutex_t lock;     /* of loading */
    bool loaded;
    CUresult failed;          /* loading did: the answer from then on */
    struct og_entry *kernels; /* under og_modules_lock */
    struct og_library *next;  /* of all, under og_modules_lock */
};

static struct og_library *og_all_libraries;

static struct og_library *og_library(CUlibrary library, CUresult *r)
{
    uint64_t handle = (uintptr_t)library;

    *r = og_check_init();
    if (*r != CUDA_SUCCESS)
        return NULL;
    if (handle && og_valid(OW_KIND_LIBRARY, handle))
        return og_data(handle);
    *r = CUDA_ERROR_INVALID_HANDLE;
    return NULL;
}

/* Under l->lock. */
static CUresult og_library_load_locked(struct og_library *l)
{
    uint64_t id;
    CUresult r = og_connect();

    if (r == CUDA_SUCCESS)
        r = og_image_send(&l->image, &id);
    if (r != CUDA_SUCCESS)
        return r;
    r = og_send_orion_library_load(l->handle, id, l->jit.nr, l->jit.packed);
    og_jit_results(&l->jit, id);
    og_image_drop(id);
    l->loaded = r == CUDA_SUCCESS;
    l->failed = r;
    return r;
}

/* On the host before this returns. Libraries need no context; where there is one the driver may use it. */
static CUresult og_library_ready(struct og_library *l)
{
    CUresult r = og_current() ? og_sync_context(false) : CUDA_SUCCESS;

    if (r != CUDA_SUCCESS)
        return r;
    pthread_mutex_lock(&l->lock);
    if (!l->loaded)
        r = l->failed != CUDA_SUCCESS ? l->failed : og_library_load_locked(l);
    if (l->loaded && l->image.copied)
        og_image_free(&l->image); /* our copy has served */
    pthread_mutex_unlock(&l->lock);
    return r;
}

static void og_library_free(struct og_library *l)
{
    struct og_library **p;

    pthread_mutex_lock(&og_modules_lock);
    for (p = &og_all_libraries; *p && *p != l; p = &(*p)->next)
        ;
    if (*p)
        *p = l->next;
    pthread_mutex_unlock(&og_modules_lock);
    og_modules_of_library_free(l->handle);
    og_entries_free(l->kernels);
    og_image_free(&l->image);
    og_unmint(OW_KIND_LIBRARY, l->handle);
    free(l->file);
    free(l);
}

static CUresult og_library_make(CUlibrary *library, const struct og_image *image, const struct og_jit *jit, void *file)
{
    struct og_library *l = calloc(1, sizeof(*l));

    if (!l)
        return CUDA_ERROR_OUT_OF_MEMORY;
    l->handle = og_mint(OW_KIND_LIBRARY);
    if (!l->handle) {
        free(l);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    l->image = *image;
    l->jit = *jit;
    pthread_mutex_init(&l->lock, NULL);
    pthread_mutex_lock(&og_modules_lock);
    l->next = og_all_libraries;
    og_all_libraries = l;
    pthread_mutex_unlock(&og_modules_lock);
    og_set_data(l->handle, l);
    /* Errors of a text and logs are for now, not for later; binaries wait for their first use. */
    if ((image->text && atomic_load(&og_life) == OG_CONNECTED) || jit->log[0] || jit->log[1] || jit->wall_out) {
        CUresult r = og_library_ready(l);

        memset(l->jit.log, 0, sizeof(l->jit.log));
        if (r != CUDA_SUCCESS) {
            memset(&l->image, 0, sizeof(l->image)); /* the caller's still */
            og_library_free(l);
            return r;
        }
    }
    l->file = file;
    *library = (CUlibrary)(uintptr_t)l->handle;
    return CUDA_SUCCESS;
}

static CUresult og_library_options(unsigned nr, const CUlibraryOption *options, void **values, bool *preserved)
{
    *preserved = false;
    if (nr && !options)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < nr; i++) {
        if (options[i] == OG_BINARY_IS_PRESERVED)
            *preserved = !values || values[i]; /* given alone, the option itself is the promise */
        else if (options[i] != 0)
            return CUDA_ERROR_INVALID_VALUE;
        else
            return og_unsupported("library option host universal function and data table");
    }
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jitOptions,
                                     void **jitOptionsValues, unsigned int numJitOptions,
                                     CUlibraryOption *libraryOptions, void **libraryOptionValues,
                                     unsigned int numLibraryOptions)
{
    struct og_image image;
    struct og_jit jit;
    bool preserved;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!library || !code)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_jit_parse(&jit, numJitOptions, jitOptions, jitOptionsValues);
    if (r == CUDA_SUCCESS)
        r = og_library_options(numLibraryOptions, libraryOptions, libraryOptionValues, &preserved);
    if (r == CUDA_SUCCESS)
        r = og_image_scan(code, UINT64_MAX, &image);
    if (r != CUDA_SUCCESS)
        return r;
    if (!preserved)
        r = og_image_copy(&image);
    if (r == CUDA_SUCCESS)
        r = og_library_make(library, &image, &jit, NULL);
    if (r != CUDA_SUCCESS)
        og_image_free(&image);
    return r;
}

OG_EXPORT CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *fileName, CUjit_option *jitOptions,
                                         void **jitOptionsValues, unsigned int numJitOptions,
                                         CUlibraryOption *libraryOptions, void **libraryOptionValues,
                                         unsigned int numLibraryOptions)
{
    struct og_image image = { 0 };
    struct og_jit jit;
    uint64_t bytes;
    void *file;
    bool preserved;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!library || !fileName)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_jit_parse(&jit, numJitOptions, jitOptions, jitOptionsValues);
    if (r == CUDA_SUCCESS)
        r = og_library_options(numLibraryOptions, libraryOptions, libraryOptionValues, &preserved);
    if (r == CUDA_SUCCESS)
        r = og_read_file(fileName, &file, &bytes);
    if (r != CUDA_SUCCESS)
        return r;
    r = og_image_scan(file, bytes, &image);
    if (r == CUDA_SUCCESS)
        r = og_library_make(library, &image, &jit, file);
    if (r != CUDA_SUCCESS) {
        og_image_free(&image);
        free(file);
    }
    return r;
}

OG_EXPORT CUresult cuLibraryUnload(CUlibrary library)
{
    CUresult r;
    struct og_library *l = og_library(library, &r);

    if (!l)
        return r;
    if (l->loaded)
        r = og_send_orion_library_unload(l->handle);
    og_library_free(l);
    return r;
}

/* ---- what is in a library ---- */
static struct og_library *og_library_loaded(CUlibrary library, const void *out, CUresult *r)
{
    struct og_library *l = og_library(library, r);

    if (l)
        *r = out ? og_library_ready(l) : CUDA_ERROR_INVALID_VALUE;
    return *r == CUDA_SUCCESS ? l : NULL;
}

static void og_library_keep(struct og_library *l, struct og_entry *e)
{
    pthread_mutex_lock(&og_modules_lock);
    e->next = l->kernels;
    l->kernels = e;
    pthread_mutex_unlock(&og_modules_lock);
}

OG_EXPORT CUresult cuLibraryGetKernel(CUkernel *pKernel, CUlibrary library, const char *name)
{
    CUresult r;
    struct og_library *l = og_library_loaded(library, pKernel && name ? name : NULL, &r);
    struct og_entry *e;

    if (!l)
        return r;
    pthread_mutex_lock(&og_modules_lock);
    e = og_entry_find(l->kernels, name);
    pthread_mutex_unlock(&og_modules_lock);
    if (!e) {
        e = og_entry_make(OW_KIND_KERNEL, l->handle, 0, name, &r);
        if (!e)
            return r;
        r = og_entry_named(OW_OP_orion_library_kernel, e);
        if (r != CUDA_SUCCESS) {
            og_entry_free(e);
            return r;
        }
        og_library_keep(l, e);
    }
    *pKernel = (CUkernel)(uintptr_t)e->f.handle;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuLibraryGetKernelCount(unsigned int *count, CUlibrary lib)
{
    CUresult r;
    struct og_library *l = og_library_loaded(lib, count, &r);

    return l ? og_send_orion_library_count(l->handle, count) : r;
}

/* Names come from the host one by one; kernels that are known keep their handle. */
static CUresult og_library_nth(struct og_library *l, uint32_t index, CUkernel *kernel)
{
    uint32_t total = 0;
    uint8_t name[900];
    CUresult r = og_send_orion_library_kernel_name(l->handle, index, sizeof(name) - 1, &total, name);

    if (r != CUDA_SUCCESS)
        return r;
    if (total >= sizeof(name))
        return CUDA_ERROR_NOT_SUPPORTED; /* no compiler was seen to make a longer name */
    name[total] = 0;
    return cuLibraryGetKernel(kernel, (CUlibrary)(uintptr_t)l->handle, (const char *)name);
}

OG_EXPORT CUresult cuLibraryEnumerateKernels(CUkernel *kernels, unsigned int numKernels, CUlibrary lib)
{
    CUresult r;
    struct og_library *l = og_library_loaded(lib, kernels, &r);
    unsigned count = 0;

    if (!l)
        return r;
    r = og_send_orion_library_count(l->handle, &count);
    for (unsigned i = 0; r == CUDA_SUCCESS && i < numKernels && i < count; i++)
        r = og_library_nth(l, i, &kernels[i]);
    return r;
}

OG_EXPORT CUresult cuLibraryGetModule(CUmodule *pMod, CUlibrary library)
{
    CUresult r;
    struct og_context *c;
    struct og_library *l;
    struct og_module *m;

    c = og_context_live(&r);
    l = c ? og_library_loaded(library, pMod, &r) : NULL;
    if (!l)
        return r;
    m = og_module_of(l->handle, og_context_home(c->handle));
    if (!m) {
        m = og_module_make(l->handle, &r);
        if (!m)
            return r;
        r = og_send_orion_library_module(l->handle, m->handle);
        if (r != CUDA_SUCCESS) {
            og_module_free(m);
            return r;
        }
    }
    *pMod = (CUmodule)(uintptr_t)m->handle;
    return CUDA_SUCCESS;
}

static CUresult og_library_global(CUdeviceptr *dptr, size_t *bytes, CUlibrary library, const char *name, bool managed)
{
    CUresult r;
    struct og_library *l;
    uint64_t p = 0, n = 0;

    if (!managed && !og_context_live(&r))
        return r;
    l = og_library_loaded(library, name, &r);
    if (!l)
        return r;
    r = managed ? og_send_orion_library_managed(l->handle, name, &p, &n)
                : og_send_orion_library_global(l->handle, 0, name, &p, &n);
    if (r == CUDA_SUCCESS)
        r = og_global_found(p, n, managed);
    if (r == CUDA_SUCCESS && dptr)
        *dptr = p;
    if (r == CUDA_SUCCESS && bytes)
        *bytes = n;
    return r;
}

OG_EXPORT CUresult cuLibraryGetGlobal(CUdeviceptr *dptr, size_t *bytes, CUlibrary library, const char *name)
{
    return og_library_global(dptr, bytes, library, name, false);
}

OG_EXPORT CUresult cuLibraryGetManaged(CUdeviceptr *dptr, size_t *bytes, CUlibrary library, const char *name)
{
    return og_library_global(dptr, bytes, library, name, true);
}

/* ---- kernels ---- */
static struct og_entry *og_function_in(struct og_entry *kernel, uint64_t context)
{
    struct og_entry *f;

    pthread_mutex_lock(&og_modules_lock);
    for (f = kernel->functions; f && f->context != context; f = f->next)
        ;
    pthread_mutex_unlock(&og_modules_lock);
    return f;
}

/* Parameters are the kernel's. */
static CUresult og_function_layout(struct og_entry *f, const struct og_entry *kernel)
{
    size_t bytes = kernel->f.nr_params * 2 * sizeof(uint16_t);

    f->f.nr_params = kernel->f.nr_params;
    f->f.params_bytes = kernel->f.params_bytes;
    if (!bytes)
        return CUDA_SUCCESS;
    f->f.offset = malloc(bytes);
    if (!f->f.offset)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(f->f.offset, kernel->f.offset, bytes);
    f->f.size = f->f.offset + f->f.nr_params;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuKernelGetFunction(CUfunction *pFunc, CUkernel kernel)
{
    CUresult r;
    struct og_context *c = og_context_live(&r);
    struct og_entry *k, *f;

    if (!c)
        return r;
    k = og_entry((uintptr_t)kernel);
    if (!k || !pFunc)
        return k ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
    f = og_function_in(k, og_context_home(c->handle));
    if (!f) {
        f = og_entry_make(OW_KIND_FUNCTION, k->f.handle, og_context_home(c->handle), k->name, &r);
        if (!f)
            return r;
        r = og_function_layout(f, k);
        if (r == CUDA_SUCCESS)
            r = og_send_orion_kernel_function(k->f.handle, f->f.handle);
        if (r != CUDA_SUCCESS) {
            og_entry_free(f);
            return r;
        }
        pthread_mutex_lock(&og_modules_lock);
        f->next = k->functions;
        k->functions = f;
        pthread_mutex_unlock(&og_modules_lock);
    }
    *pFunc = (CUfunction)(uintptr_t)f->f.handle;
    return CUDA_SUCCESS;
}

/* Takes the kernel's functions of one context out. */
static struct og_entry *og_functions_cut(struct og_entry *kernel, uint64_t context)
{
    struct og_entry *dead = NULL, **p = &kernel->functions;

    while (*p) {
        struct og_entry *f = *p;

        if (f->context != context) {
            p = &f->next;
            continue;
        }
        *p = f->next;
        f->next = dead;
        dead = f;
    }
    return dead;
}

void og_libraries_context_died(uint64_t context)
{
    pthread_mutex_lock(&og_modules_lock);
    for (struct og_library *l = og_all_libraries; l; l = l->next)
        for (struct og_entry *k = l->kernels; k; k = k->next)
            og_entries_free(og_functions_cut(k, context));
    pthread_mutex_unlock(&og_modules_lock);
}
