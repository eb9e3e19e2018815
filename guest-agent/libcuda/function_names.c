/* SPDX-License-Identifier: Apache-2.0 */
/* Questions about functions that are answered from what the client knows, and lazy loading. */
#include "gen/send.h"
#include "modules.h"

static struct og_entry *og_entry_checked(uint64_t handle, const void *out, CUresult *r)
{
    struct og_entry *e;

    *r = og_check_init();
    if (*r != CUDA_SUCCESS)
        return NULL;
    e = og_entry(handle);
    if (!e)
        *r = CUDA_ERROR_INVALID_HANDLE;
    else if (!out)
        *r = CUDA_ERROR_INVALID_VALUE;
    return *r == CUDA_SUCCESS ? e : NULL;
}

OG_EXPORT CUresult cuFuncGetName(const char **name, CUfunction hfunc)
{
    CUresult r;
    struct og_entry *e = og_entry_checked((uintptr_t)hfunc, name, &r);

    if (e)
        *name = e->name;
    return r;
}

OG_EXPORT CUresult cuKernelGetName(const char **name, CUkernel hfunc)
{
    return cuFuncGetName(name, (CUfunction)hfunc);
}

OG_EXPORT CUresult cuFuncGetModule(CUmodule *hmod, CUfunction hfunc)
{
    CUresult r;
    struct og_entry *e = og_entry_checked((uintptr_t)hfunc, hmod, &r), *kernel;

    if (!e)
        return r;
    if (og_module(e->owner)) {
        *hmod = (CUmodule)(uintptr_t)e->owner;
        return CUDA_SUCCESS;
    }
    /* of a kernel: the module of its library in the current context */
    kernel = og_entry(e->owner);
    return cuLibraryGetModule(hmod, (CUlibrary)(uintptr_t)(kernel ? kernel->owner : e->owner));
}

OG_EXPORT CUresult cuKernelGetLibrary(CUlibrary *pLib, CUkernel kernel)
{
    CUresult r;
    struct og_entry *e = og_entry_checked((uintptr_t)kernel, pLib, &r);

    if (e)
        *pLib = (CUlibrary)(uintptr_t)e->owner;
    return r;
}

OG_EXPORT CUresult cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction function)
{
    CUresult r;
    struct og_entry *e = og_entry_checked((uintptr_t)function, state, &r);
    uint32_t loaded = 0;

    if (!e)
        return r;
    r = og_send_orion_function_load(e->f.handle, 1, &loaded);
    *state = (CUfunctionLoadingState)loaded;
    return r;
}

OG_EXPORT CUresult cuFuncLoad(CUfunction function)
{
    CUresult r;
    uint32_t loaded = 0;
    struct og_entry *e = og_entry_checked((uintptr_t)function, &loaded, &r);

    return e ? og_send_orion_function_load(e->f.handle, 0, &loaded) : r;
}
