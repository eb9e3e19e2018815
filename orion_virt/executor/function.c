/* SPDX-License-Identifier: Apache-2.0 */
/* Functions and kernels: parameters learnt once, attributes, lazy loading. */
#include <stdlib.h>

#include "extra.h"
#include "modules.h"

#define LOCAL_SIZE_BYTES 3 /* CUfunction_attribute */
#define OH_PARAMS_A_REPLY 200u
#define OH_NAME_A_REPLY 900u

bool oh_is_kernel(uint64_t id)
{
    return id >> 40 == OW_KIND_KERNEL;
}

CUresult oh_function_get(uint64_t id, void **real, struct oh_function **data)
{
    enum ow_kind kind = oh_is_kernel(id) ? OW_KIND_KERNEL : OW_KIND_FUNCTION;
    CUresult r = oh_get(kind, id, real);

    *data = r == CUDA_SUCCESS ? oh_data(kind, id) : NULL;
    return r == CUDA_SUCCESS && !*data ? CUDA_ERROR_INVALID_HANDLE : r;
}

static CUresult make_room(int device, int slot, uint64_t id, void *real)
{
    int local = 0;
    CUdevice dev;
    CUresult r = oh_extra_step(device, true);

    if (r != CUDA_SUCCESS)
        return r;
    if (!oh_is_kernel(id))
        (void)OH_CALL(cuFuncGetAttribute, &local, LOCAL_SIZE_BYTES, real);
    else if (oh_drv.cuDeviceGet(&dev, oh_devices[device].ordinal) == CUDA_SUCCESS)
        (void)OH_CALL(cuKernelGetAttribute, &local, LOCAL_SIZE_BYTES, real, dev);
    return local > 0 ? oh_stack_for(slot, (uint64_t)local) : CUDA_SUCCESS;
}

CUresult oh_function_room(int device, int slot, uint64_t id, void *real, struct oh_function *f)
{
    CUresult r;

    if (device < 0 || slot < 0 || atomic_load_explicit(&f->ran, memory_order_relaxed) >> slot & 1)
        return CUDA_SUCCESS;
    r = make_room(device, slot, id, real);
    if (r == CUDA_SUCCESS)
        atomic_fetch_or(&f->ran, 1ull << slot);
    return r;
}

static CUresult param_info(bool kernel, void *real, uint32_t index, size_t *offset, size_t *size)
{
    if (kernel)
        return oh_drv.cuKernelGetParamInfo ? oh_drv.cuKernelGetParamInfo(real, index, offset, size)
                                           : CUDA_ERROR_NOT_SUPPORTED;
    return oh_drv.cuFuncGetParamInfo ? oh_drv.cuFuncGetParamInfo(real, index, offset, size) : CUDA_ERROR_NOT_SUPPORTED;
}

static uint32_t count_params(bool kernel, void *real, CUresult *r)
{
    size_t offset, size;
    uint32_t n = 0;

    while (n < OH_MAX_PARAMS && (*r = param_info(kernel, real, n, &offset, &size)) == CUDA_SUCCESS)
        n++;
    return n;
}

static struct oh_function *learn(bool kernel, void *real, CUresult *r)
{
    uint32_t n = count_params(kernel, real, r);
    struct oh_function *f;

    if (*r != CUDA_ERROR_INVALID_VALUE) { /* which ends the list */
        if (*r == CUDA_SUCCESS || *r == CUDA_ERROR_NOT_SUPPORTED)
            *r = CUDA_ERROR_NOT_SUPPORTED;
        return NULL;
    }
    f = calloc(1, sizeof(*f) + 2 * n * sizeof(uint16_t));
    *r = f ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    for (uint32_t i = 0; f && i < n; i++) {
        size_t offset = 0, size = 0;

        (void)param_info(kernel, real, i, &offset, &size);
        f->offset[i] = (uint16_t)offset;
        f->offset[n + i] = (uint16_t)size;
        if (offset + size > f->params_bytes)
            f->params_bytes = (uint32_t)(offset + size);
    }
    if (f)
        f->nr_params = n;
    return f;
}

static CUcontext some_context(void)
{
    for (uint32_t i = 0; i < oh_nr_devices; i++)
        if (oh_devices[i].context)
            return oh_devices[i].context;
    return oh_context_ahead();
}

/* A thread without a context may ask for kernels, the runtime does before it makes one: the driver, which tells
 * parameters in a context only, borrows one. */
static struct oh_function *learn_somewhere(bool kernel, void *real, CUresult *r)
{
    struct oh_function *f = learn(kernel, real, r);
    CUcontext before = NULL, context;

    if (f || *r != CUDA_ERROR_INVALID_CONTEXT || oh_drv.cuCtxGetCurrent(&before) != CUDA_SUCCESS || before)
        return f;
    context = some_context();
    if (context && oh_drv.cuCtxSetCurrent(context) == CUDA_SUCCESS) {
        f = learn(kernel, real, r);
        (void)oh_drv.cuCtxSetCurrent(NULL);
    }
    return f;
}

CUresult oh_function_put(enum ow_kind kind, uint64_t id, void *real, uint64_t owner, uint64_t context)
{
    CUresult r;
    struct oh_function *f = learn_somewhere(kind == OW_KIND_KERNEL, real, &r);

    if (!f) {
        if (r == CUDA_ERROR_NOT_SUPPORTED)
            oh_log("the host's driver does not tell kernel parameters; version 550 or newer is needed");
        return r;
    }
    f->owner = owner;
    f->context = context;
    r = oh_put(kind, id, real);
    if (r == CUDA_SUCCESS)
        oh_set_data(kind, id, f);
    else
        free(f);
    return r;
}

CUresult oh_orion_function_params(struct oh_twin *t, const struct ow_orion_function_params_in *in, uint32_t bytes,
                                  struct ow_orion_function_params_out *out, uint32_t *out_bytes)
{
    struct oh_function *f;
    void *real;
    uint32_t *pairs = (uint32_t *)(out + 1), n = 0;
    CUresult r = oh_function_get(in->function, &real, &f);

    (void)t, (void)bytes;
    if (r != CUDA_SUCCESS)
        return r;
    out->total = f->nr_params;
    if (in->first == UINT32_MAX) { /* asks for the size of all of them */
        out->got = f->params_bytes;
    } else {
        while (n < in->room && n < OH_PARAMS_A_REPLY && in->first < f->nr_params && n < f->nr_params - in->first) {
            pairs[n] = f->offset[in->first + n] | (uint32_t)f->offset[f->nr_params + in->first + n] << 16;
            n++;
        }
        out->got = n;
    }
    out->params_bytes = n * (uint32_t)sizeof(*pairs);
    *out_bytes = (uint32_t)sizeof(*out) + out->params_bytes;
    return CUDA_SUCCESS;
}

CUresult oh_orion_function_name(struct oh_twin *t, const struct ow_orion_function_name_in *in, uint32_t bytes,
                                struct ow_orion_function_name_out *out, uint32_t *out_bytes)
{
    struct oh_function *f;
    const char *name = NULL;
    uint32_t n;
    void *real;
    CUresult r = oh_function_get(in->function, &real, &f);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS)
        r = oh_is_kernel(in->function) ? OH_CALL(cuKernelGetName, &name, real) : OH_CALL(cuFuncGetName, &name, real);
    if (r != CUDA_SUCCESS || !name)
        return r != CUDA_SUCCESS ? r : CUDA_ERROR_NOT_FOUND;
    out->total = (uint32_t)strnlen(name, 64u << 10);
    n = in->offset < out->total ? out->total - in->offset : 0;
    n = n < in->room ? n : in->room;
    n = n < OH_NAME_A_REPLY ? n : OH_NAME_A_REPLY;
    memcpy(out + 1, name + (n ? in->offset : 0), n);
    out->data_bytes = n;
    *out_bytes = (uint32_t)sizeof(*out) + n;
    return CUDA_SUCCESS;
}

/* The physical device of the client's, -1: that of the current context. */
static CUresult device_of(struct oh_twin *t, int32_t device, CUdevice *dev)
{
    if (device < 0)
        device = t->device;
    if (device < 0 || (uint32_t)device >= oh_nr_devices)
        return device < 0 ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_INVALID_DEVICE;
    return oh_drv.cuDeviceGet(dev, oh_devices[device].ordinal);
}

CUresult oh_orion_function_get(struct oh_twin *t, const struct ow_orion_function_get_in *in, uint32_t bytes,
                               struct ow_orion_function_get_out *out, uint32_t *out_bytes)
{
    struct oh_function *f;
    CUdevice dev;
    void *real;
    int value = 0;
    CUresult r = oh_function_get(in->function, &real, &f);

    (void)bytes;
    if (r == CUDA_SUCCESS && oh_is_kernel(in->function)) {
        r = device_of(t, in->device, &dev);
        if (r == CUDA_SUCCESS)
            r = oh_drv.cuKernelGetAttribute(&value, in->attribute, real, dev);
    } else if (r == CUDA_SUCCESS) {
        r = oh_drv.cuFuncGetAttribute(&value, in->attribute, real);
    }
    out->value = value;
    *out_bytes = sizeof(*out);
    return r;
}

CUresult oh_orion_function_set(struct oh_twin *t, const struct ow_orion_function_set_in *in, uint32_t bytes,
                               struct ow_orion_function_set_out *out, uint32_t *out_bytes)
{
    struct oh_function *f;
    CUdevice dev;
    void *real;
    CUresult r = oh_function_get(in->function, &real, &f);

    (void)bytes, (void)out, (void)out_bytes;
    if (r != CUDA_SUCCESS)
        return r;
    if (!oh_is_kernel(in->function))
        return oh_drv.cuFuncSetAttribute(real, in->attribute, in->value);
    r = device_of(t, in->device, &dev);
    return r == CUDA_SUCCESS ? oh_drv.cuKernelSetAttribute(in->attribute, in->value, real, dev) : r;
}

CUresult oh_orion_function_cache(struct oh_twin *t, const struct ow_orion_function_cache_in *in, uint32_t bytes,
                                 struct ow_orion_function_cache_out *out, uint32_t *out_bytes)
{
    struct oh_function *f;
    CUdevice dev;
    void *real;
    CUresult r = oh_function_get(in->function, &real, &f);

    (void)bytes, (void)out, (void)out_bytes;
    if (r != CUDA_SUCCESS)
        return r;
    if (!oh_is_kernel(in->function))
        return in->what ? OH_CALL(cuFuncSetSharedMemConfig, real, in->config)
                        : OH_CALL(cuFuncSetCacheConfig, real, in->config);
    r = device_of(t, in->device, &dev);
    return r == CUDA_SUCCESS ? OH_CALL(cuKernelSetCacheConfig, real, in->config, dev) : r;
}

CUresult oh_orion_function_load(struct oh_twin *t, const struct ow_orion_function_load_in *in, uint32_t bytes,
                                struct ow_orion_function_load_out *out, uint32_t *out_bytes)
{
    struct oh_function *f;
    CUfunctionLoadingState state = 1;
    void *real;
    CUresult r = oh_function_get(in->function, &real, &f);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS && in->query)
        r = OH_CALL(cuFuncIsLoaded, &state, real);
    else if (r == CUDA_SUCCESS)
        r = OH_CALL(cuFuncLoad, real);
    out->state = state;
    *out_bytes = sizeof(*out);
    return r;
}
