/* SPDX-License-Identifier: Apache-2.0 */
/* Libraries: load, kernels, the module of a context, globals. */
#include <stdlib.h>

#include "extra.h"
#include "modules.h"

#define OH_BINARY_IS_PRESERVED 1
#define OH_NAME_A_REPLY 900u

CUresult oh_orion_library_load(struct oh_twin *t, const struct ow_orion_library_load_in *in, uint32_t bytes,
                               struct ow_orion_library_load_out *out, uint32_t *out_bytes)
{
    CUlibraryOption option = OH_BINARY_IS_PRESERVED; /* the image stays with us, the driver need not copy it */
    void *yes = (void *)1;
    struct oh_image *image;
    CUlibrary library = NULL;
    struct oh_jit jit;
    CUresult r;

    (void)out, (void)out_bytes;
    if (in->options_bytes > bytes - sizeof(*in) || in->options_bytes != in->count * 8ull)
        return oh_fault(t, "%u options in %u bytes", in->count, in->options_bytes);
    image = oh_image_get(in->image, &r);
    if (image)
        r = oh_jit_get(&jit, image, (const uint64_t *)(in + 1), in->count);
    if (r == CUDA_SUCCESS) {
        r = oh_drv.cuLibraryLoadData(&library, oh_image_code(image), jit.option, jit.value, jit.nr, &option, &yes, 1);
        oh_jit_keep(&jit, image);
    }
    if (r == CUDA_SUCCESS) {
        r = oh_code_put(OW_KIND_LIBRARY, in->library, library, 0, image);
        if (r != CUDA_SUCCESS)
            oh_drv.cuLibraryUnload(library);
    }
    if (r != CUDA_SUCCESS)
        oh_image_put(image);
    else
        oh_code_takes(OW_KIND_LIBRARY, in->library, -1, image);
    return r;
}

struct use {
    void *library;
    struct oh_code *code;
    bool first; /* on this device */
};

/* A library is loaded to a device when something of it is first used there. A success goes to use_end. */
static CUresult use_begin(struct oh_twin *t, uint64_t id, struct use *u)
{
    CUresult r = oh_get(OW_KIND_LIBRARY, id, &u->library);

    if (r != CUDA_SUCCESS)
        return r;
    u->code = oh_data(OW_KIND_LIBRARY, id);
    u->first = u->code && t->device >= 0 && !(atomic_load(&u->code->loaded) >> t->device & 1);
    return u->first ? oh_load_begin(t->stack_slot, t->device, u->code->takes, u->code->mallocs) : CUDA_SUCCESS;
}

/* `r`: how the use ended. The driver does not unload a part: what is beyond the limit stays, and counts. */
static CUresult use_end(struct oh_twin *t, const struct use *u, CUresult r)
{
    if (!u->first)
        return r;
    if (r != CUDA_SUCCESS) {
        oh_extra_less(t->device, u->code->takes);
        return r;
    }
    atomic_fetch_or(&u->code->loaded, 1u << t->device);
    return oh_load_end(t->stack_slot, t->device, u->code->takes, u->code->mallocs);
}

CUresult oh_orion_library_unload(struct oh_twin *t, const struct ow_orion_library_unload_in *in, uint32_t bytes,
                                 struct ow_orion_library_unload_out *out, uint32_t *out_bytes)
{
    struct oh_code *code;
    void *library;
    CUresult r;

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    if (!oh_take(OW_KIND_LIBRARY, in->library, &library, (void **)&code))
        return CUDA_ERROR_INVALID_HANDLE;
    oh_drop_owned(in->library);
    r = oh_drv.cuLibraryUnload(library);
    oh_code_free(code);
    return r;
}

CUresult oh_orion_library_kernel(struct oh_twin *t, const struct ow_orion_library_kernel_in *in, uint32_t bytes,
                                 struct ow_orion_library_kernel_out *out, uint32_t *out_bytes)
{
    const char *name = oh_string(in, sizeof(*in), bytes, in->name_bytes);
    CUkernel kernel = NULL;
    struct oh_function *f;
    struct use u;
    void *real;
    CUresult r;

    if (!name)
        return oh_fault(t, "a kernel's name without end");
    r = use_begin(t, in->library, &u);
    if (r != CUDA_SUCCESS)
        return r;
    r = oh_drv.cuLibraryGetKernel(&kernel, u.library, name);
    if (r == CUDA_SUCCESS)
        r = oh_function_put(OW_KIND_KERNEL, in->kernel, kernel, in->library, 0);
    r = use_end(t, &u, r);
    if (r == CUDA_SUCCESS)
        r = oh_function_get(in->kernel, &real, &f);
    if (r != CUDA_SUCCESS)
        return r;
    out->total = f->nr_params;
    out->bytes = f->params_bytes;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_orion_library_module(struct oh_twin *t, const struct ow_orion_library_module_in *in, uint32_t bytes,
                                 struct ow_orion_library_module_out *out, uint32_t *out_bytes)
{
    CUmodule module = NULL;
    struct use u;
    CUresult r = use_begin(t, in->library, &u);

    (void)bytes, (void)out, (void)out_bytes;
    if (r != CUDA_SUCCESS)
        return r;
    r = use_end(t, &u, oh_drv.cuLibraryGetModule(&module, u.library));
    return r == CUDA_SUCCESS ? oh_code_put(OW_KIND_MODULE, in->module, module, in->library, NULL) : r;
}

CUresult oh_orion_library_global(struct oh_twin *t, const struct ow_orion_library_global_in *in, uint32_t bytes,
                                 struct ow_orion_library_global_out *out, uint32_t *out_bytes)
{
    const char *name = oh_string(in, sizeof(*in), bytes, in->name_bytes);
    CUdeviceptr ptr = 0;
    size_t size = 0;
    struct use u;
    CUresult r;

    if (!name)
        return oh_fault(t, "a variable's name without end");
    if (in->managed)
        return CUDA_ERROR_NOT_SUPPORTED; /* orion_library_managed */
    r = use_begin(t, in->library, &u);
    if (r != CUDA_SUCCESS)
        return r;
    r = use_end(t, &u, oh_drv.cuLibraryGetGlobal(&ptr, &size, u.library, name));
    if (r != CUDA_SUCCESS)
        return r;
    if (u.code)
        oh_code_global(u.code, t->device, ptr, size);
    out->ptr = ptr;
    out->bytes = size;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_orion_library_count(struct oh_twin *t, const struct ow_orion_library_count_in *in, uint32_t bytes,
                                struct ow_orion_library_count_out *out, uint32_t *out_bytes)
{
    void *library;
    unsigned count = 0;
    CUresult r = oh_get(OW_KIND_LIBRARY, in->library, &library);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS)
        r = oh_drv.cuLibraryGetKernelCount ? oh_drv.cuLibraryGetKernelCount(&count, library) : CUDA_ERROR_NOT_SUPPORTED;
    out->count = count;
    *out_bytes = sizeof(*out);
    return r;
}

static CUresult nth_name(CUlibrary library, uint32_t index, const char **name)
{
    unsigned total = 0;
    CUkernel *all;
    CUresult r = oh_drv.cuLibraryGetKernelCount(&total, library);

    if (r != CUDA_SUCCESS || index >= total)
        return r != CUDA_SUCCESS ? r : CUDA_ERROR_NOT_FOUND;
    all = calloc(total, sizeof(*all));
    r = all ? oh_drv.cuLibraryEnumerateKernels(all, total, library) : CUDA_ERROR_OUT_OF_MEMORY;
    if (r == CUDA_SUCCESS)
        r = oh_drv.cuKernelGetName(name, all[index]);
    free(all);
    return r;
}

CUresult oh_orion_library_kernel_name(struct oh_twin *t, const struct ow_orion_library_kernel_name_in *in,
                                      uint32_t bytes, struct ow_orion_library_kernel_name_out *out,
                                      uint32_t *out_bytes)
{
    const char *name = NULL;
    void *library;
    uint32_t n;
    CUresult r = oh_get(OW_KIND_LIBRARY, in->library, &library);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS && (!oh_drv.cuLibraryGetKernelCount || !oh_drv.cuLibraryEnumerateKernels))
        r = CUDA_ERROR_NOT_SUPPORTED;
    if (r == CUDA_SUCCESS)
        r = nth_name(library, in->index, &name);
    if (r != CUDA_SUCCESS || !name)
        return r != CUDA_SUCCESS ? r : CUDA_ERROR_NOT_FOUND;
    out->total = (uint32_t)strnlen(name, 64u << 10);
    n = out->total < in->room ? out->total : in->room;
    n = n < OH_NAME_A_REPLY ? n : OH_NAME_A_REPLY;
    memcpy(out + 1, name, n);
    out->data_bytes = n;
    *out_bytes = (uint32_t)sizeof(*out) + n;
    return CUDA_SUCCESS;
}

CUresult oh_orion_kernel_function(struct oh_twin *t, const struct ow_orion_kernel_function_in *in, uint32_t bytes,
                                  struct ow_orion_kernel_function_out *out, uint32_t *out_bytes)
{
    CUfunction function = NULL;
    void *kernel;
    CUresult r = oh_get(OW_KIND_KERNEL, in->kernel, &kernel);

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    if (r == CUDA_SUCCESS)
        r = oh_drv.cuKernelGetFunction(&function, kernel);
    if (r != CUDA_SUCCESS)
        return r;
    return oh_function_put(OW_KIND_FUNCTION, in->function, function, in->kernel, oh_current_context());
}
