/* SPDX-License-Identifier: Apache-2.0 */
/* cuGetProcAddress over this library's own exports. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "sim.h"

/* Names of which more than one version is exported, newest first: from `since` on the symbol is `symbol`. */
static const struct { const char *name; int since; const char *symbol; } versions[] = {
    { "cuCtxCreate", 12050, "cuCtxCreate_v4" }, { "cuCtxCreate", 11040, "cuCtxCreate_v3" },
    { "cuCtxCreate", 0, "cuCtxCreate_v2" },
    /* cuda.h does not map these names to their _v2, which takes a context. */
    { "cuCtxSynchronize", 0, "cuCtxSynchronize" }, { "cuCtxGetDevice", 0, "cuCtxGetDevice" },
    { "cuEventElapsedTime", 12080, "cuEventElapsedTime_v2" }, { "cuEventElapsedTime", 0, "cuEventElapsedTime" },
    { "cuStreamGetCaptureInfo", 12030, "cuStreamGetCaptureInfo_v3" },
    { "cuStreamGetCaptureInfo", 11030, "cuStreamGetCaptureInfo_v2" },
    { "cuStreamBeginCapture", 10010, "cuStreamBeginCapture_v2" },
    { "cuStreamUpdateCaptureDependencies", 12030, "cuStreamUpdateCaptureDependencies_v2" },
    { "cuStreamUpdateCaptureDependencies", 0, "cuStreamUpdateCaptureDependencies" },
    { "cuGraphGetEdges", 12030, "cuGraphGetEdges_v2" }, { "cuGraphGetEdges", 0, "cuGraphGetEdges" },
    { "cuGraphNodeGetDependencies", 12030, "cuGraphNodeGetDependencies_v2" },
    { "cuGraphNodeGetDependencies", 0, "cuGraphNodeGetDependencies" },
    { "cuGraphAddDependencies", 12030, "cuGraphAddDependencies_v2" },
    { "cuGraphAddDependencies", 0, "cuGraphAddDependencies" },
    { "cuGraphAddKernelNode", 12000, "cuGraphAddKernelNode_v2" },
    { "cuGraphInstantiate", 12000, "cuGraphInstantiateWithFlags" },
    { "cuMemPrefetchAsync", 12020, "cuMemPrefetchAsync_v2" }, { "cuMemPrefetchAsync", 0, "cuMemPrefetchAsync" },
    { "cuMemAdvise", 12020, "cuMemAdvise_v2" }, { "cuMemAdvise", 0, "cuMemAdvise" },
    { "cuDeviceGetUuid", 11040, "cuDeviceGetUuid_v2" }, { "cuDeviceGetUuid", 0, "cuDeviceGetUuid" },
    { "cuGetProcAddress", 12000, "cuGetProcAddress_v2" }, { "cuGetProcAddress", 0, "cuGetProcAddress" },
};

static void *self(void)
{
    static void *handle;
    Dl_info info;

    if (!handle && dladdr((void *)(uintptr_t)cuInit, &info))
        handle = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    return handle;
}

static void *lookup(const char *name, int version)
{
    char symbol[128];

    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
        if (!strcmp(versions[i].name, name) && version >= versions[i].since)
            return dlsym(self(), versions[i].symbol);
    for (int v = 4; v >= 2; v--) {
        snprintf(symbol, sizeof(symbol), "%s_v%d", name, v);
        void *p = dlsym(self(), symbol);
        if (p)
            return p;
    }
    return dlsym(self(), name);
}

SIM_API CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int version, cuuint64_t flags,
                                     CUdriverProcAddressQueryResult *status)
{
    (void)flags;
    if (!symbol || !pfn || version > 13999)
        return CUDA_ERROR_INVALID_VALUE;
    *pfn = strncmp(symbol, "cu", 2) || !self() ? NULL : lookup(symbol, version);
    if (status)
        *status = *pfn ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return CUDA_SUCCESS;
}


SIM_API CUresult cuGetProcAddress(const char *symbol, void **pfn, int version, cuuint64_t flags)
{
    CUresult r = cuGetProcAddress_v2(symbol, pfn, version, flags, NULL);

    return r ? r : *pfn ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

SIM_API CUresult cuGetExportTable(const void **table, const CUuuid *id)
{
    (void)id;
    if (table)
        *table = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}
