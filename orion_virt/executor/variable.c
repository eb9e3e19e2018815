/* SPDX-License-Identifier: Apache-2.0 */
/* Managed variables of libraries: found and first read before the client has a context, as the runtime does it. */
#include <string.h>

#include "loop.h"
#include "memory.h"
#include "modules.h"

#define READ_MAX 880u /* beside the answer's fixed part */

/* The twin's context, or the one that the client will have; *had says what to restore. */
static bool enter(CUcontext *had)
{
    CUcontext use;

    if (OH_CALL(cuCtxGetCurrent, had) != CUDA_SUCCESS)
        return false;
    use = *had ? *had : oh_context_ahead();
    return use && (use == *had || OH_CALL(cuCtxSetCurrent, use) == CUDA_SUCCESS);
}

static void leave(CUcontext had)
{
    if (!had)
        OH_CALL(cuCtxSetCurrent, NULL);
}

CUresult oh_orion_library_managed(struct oh_twin *t, const struct ow_orion_library_managed_in *in, uint32_t bytes,
                                  struct ow_orion_library_managed_out *out, uint32_t *out_bytes)
{
    const char *name = oh_string(in, sizeof(*in), bytes, in->name_bytes);
    CUdeviceptr ptr = 0;
    size_t size = 0;
    void *library;
    struct oh_code *code;
    CUcontext had = NULL;
    CUresult r = oh_get(OW_KIND_LIBRARY, in->library, &library);

    if (!name)
        return oh_fault(t, "a variable's name without end");
    if (r == CUDA_SUCCESS && !enter(&had))
        r = CUDA_ERROR_INVALID_CONTEXT;
    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuLibraryGetManaged, &ptr, &size, library, name);
    leave(had);
    if (r != CUDA_SUCCESS)
        return r;
    code = oh_data(OW_KIND_LIBRARY, in->library);
    if (code)
        oh_code_global(code, t->device < 0 ? 0 : t->device, ptr, size);
    out->ptr = ptr;
    out->bytes = size;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_orion_is_managed(struct oh_twin *t, const struct ow_orion_is_managed_in *in, uint32_t bytes,
                             struct ow_orion_is_managed_out *out, uint32_t *out_bytes)
{
    unsigned value = 0;

    (void)t, (void)bytes;
    if (oh_ledger_has(in->ptr, 1) && OH_CALL(cuPointerGetAttribute, &value, 8 /* IS_MANAGED */, in->ptr) == CUDA_SUCCESS)
        out->managed = value & 1;
    else
        out->managed = 0;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_orion_variable_read(struct oh_twin *t, const struct ow_orion_variable_read_in *in, uint32_t bytes,
                                struct ow_orion_variable_read_out *out, uint32_t *out_bytes)
{
    CUstreamCaptureMode mode;
    CUcontext had = NULL;
    CUresult r;

    (void)t, (void)bytes;
    if (!in->bytes || in->bytes > READ_MAX || !oh_ledger_has(in->ptr, in->bytes))
        return CUDA_ERROR_INVALID_VALUE;
    if (!enter(&had))
        return CUDA_ERROR_INVALID_CONTEXT;
    mode = oh_relax();
    r = oh_drv.cuMemcpyDtoH_v2(out + 1, in->ptr, in->bytes);
    oh_unrelax(mode);
    leave(had);
    out->data_bytes = in->bytes;
    *out_bytes = (uint32_t)sizeof(*out) + in->bytes;
    return r;
}
