/* SPDX-License-Identifier: Apache-2.0 */
/* Launches: checks lengths and handles, points the driver at the packed parameters in our private buffer. */
#include "launch.h"

/* One launch, out of the command. */
struct launch {
    void *real;
    struct oh_function *f;
    void *stream;
    void *params[OH_MAX_PARAMS];
    void *extra[5];
    size_t params_bytes;
};

static _Thread_local struct launch scratch; /* too large for the stack of a twin's deep calls */

/* Parameters as the guest packed them. A short buffer goes as it is: the driver refuses it. */
static void **point_at(struct launch *l, uint8_t *params, uint32_t bytes, void ***extra)
{
    *extra = NULL;
    if (bytes >= l->f->params_bytes) {
        for (uint32_t i = 0; i < l->f->nr_params; i++)
            l->params[i] = params + l->f->offset[i];
        return l->params;
    }
    l->params_bytes = bytes;
    l->extra[0] = (void *)1; /* CU_LAUNCH_PARAM_BUFFER_POINTER */
    l->extra[1] = params;
    l->extra[2] = (void *)2; /* CU_LAUNCH_PARAM_BUFFER_SIZE */
    l->extra[3] = &l->params_bytes;
    l->extra[4] = NULL;
    *extra = l->extra;
    return NULL;
}

CUresult oh_orion_launch(struct oh_twin *t, const struct ow_orion_launch_in *in, uint32_t bytes,
                         struct ow_orion_launch_out *out, uint32_t *out_bytes)
{
    struct launch *l = &scratch;
    void **params, **extra;
    CUresult r;

    (void)out, (void)out_bytes;
    if (in->params_bytes > bytes - sizeof(*in))
        return oh_fault(t, "%u bytes of parameters in a command of %u", in->params_bytes, bytes);
    r = oh_function_get(in->function, &l->real, &l->f);
    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_STREAM, in->stream, &l->stream);
    if (r == CUDA_SUCCESS)
        r = oh_function_room(t->device, t->stack_slot, in->function, l->real, l->f);
    if (r != CUDA_SUCCESS)
        return r;
    params = point_at(l, (uint8_t *)(uintptr_t)(in + 1), in->params_bytes, &extra);
    return oh_drv.cuLaunchKernel(l->real, in->grid_x, in->grid_y, in->grid_z, OH_BLOCK_X(in->block),
                                 OH_BLOCK_Y(in->block), OH_BLOCK_Z(in->block), in->shared, l->stream, params, extra);
}

/* Attributes that hold handles or addresses get ours; those that we do not know are refused. */
static CUresult attribute(CUlaunchAttribute *a)
{
    void *event;
    CUresult r;

    switch (a->id) {
    case 0: case 2: case 3: case 4: case 5: case 6: case 8: case 9: case 10: case 11: case 14: case 16: case 17:
    case 18:
        return CUDA_SUCCESS; /* numbers */
    case 1: /* access policy window */
        if (a->value.accessPolicyWindow.num_bytes &&
            !oh_ledger_has((uintptr_t)a->value.accessPolicyWindow.base_ptr, a->value.accessPolicyWindow.num_bytes))
            return CUDA_ERROR_INVALID_VALUE;
        return CUDA_SUCCESS;
    case 7:  /* programmatic event; the event is the first member of both */
    case 12: /* launch completion event */
        r = oh_get(OW_KIND_EVENT, (uintptr_t)a->value.programmaticEvent.event, &event);
        a->value.programmaticEvent.event = event;
        return r;
    case 13: /* device-updatable node: what the driver calls it comes back */
        a->value.deviceUpdatableKernelNode.devNode = NULL;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

CUresult oh_launch_attributes(const void *bytes, uint32_t nr_bytes, CUlaunchAttribute *to, uint32_t *nr)
{
    CUresult r = CUDA_SUCCESS;

    *nr = nr_bytes / (uint32_t)sizeof(*to);
    if (nr_bytes % sizeof(*to) || *nr > OH_MAX_ATTRIBUTES)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(to, bytes, nr_bytes);
    for (uint32_t i = 0; r == CUDA_SUCCESS && i < *nr; i++)
        r = attribute(&to[i]);
    return r;
}

static CUresult launch_ex(struct oh_twin *t, const struct ow_orion_launch_ex_in *in, uint32_t bytes,
                          CUlaunchAttribute *attrs, uint32_t *nr_attrs)
{
    struct launch *l = &scratch;
    CUlaunchConfig c = { 0 };
    void **params, **extra;
    CUresult r;

    if ((uint64_t)in->attributes_bytes + in->params_bytes > bytes - sizeof(*in) || in->attributes_bytes % 8)
        return oh_fault(t, "%u bytes of attributes and %u of parameters in a command of %u", in->attributes_bytes,
                        in->params_bytes, bytes);
    r = oh_function_get(in->function, &l->real, &l->f);
    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_STREAM, in->stream, &l->stream);
    if (r == CUDA_SUCCESS)
        r = oh_function_room(t->device, t->stack_slot, in->function, l->real, l->f);
    if (r == CUDA_SUCCESS)
        r = oh_launch_attributes(in + 1, in->attributes_bytes, attrs, nr_attrs);
    if (r != CUDA_SUCCESS)
        return r;
    c.gridDimX = in->grid_x;
    c.gridDimY = in->grid_y;
    c.gridDimZ = in->grid_z;
    c.blockDimX = OH_BLOCK_X(in->block);
    c.blockDimY = OH_BLOCK_Y(in->block);
    c.blockDimZ = OH_BLOCK_Z(in->block);
    c.sharedMemBytes = in->shared;
    c.hStream = l->stream;
    c.attrs = attrs;
    c.numAttrs = *nr_attrs;
    params = point_at(l, (uint8_t *)(uintptr_t)(in + 1) + in->attributes_bytes, in->params_bytes, &extra);
    return oh_drv.cuLaunchKernelEx ? oh_drv.cuLaunchKernelEx(&c, l->real, params, extra) : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult oh_orion_launch_ex(struct oh_twin *t, const struct ow_orion_launch_ex_in *in, uint32_t bytes,
                            struct ow_orion_launch_ex_out *out, uint32_t *out_bytes)
{
    CUlaunchAttribute attrs[OH_MAX_ATTRIBUTES];
    uint32_t nr = 0;

    (void)out, (void)out_bytes;
    return launch_ex(t, in, bytes, attrs, &nr);
}

_Static_assert(sizeof(struct ow_orion_launch_ex_in) == sizeof(struct ow_orion_launch_updatable_in),
               "one payload, two operations");

CUresult oh_orion_launch_updatable(struct oh_twin *t, const struct ow_orion_launch_updatable_in *in, uint32_t bytes,
                                   struct ow_orion_launch_updatable_out *out, uint32_t *out_bytes)
{
    CUlaunchAttribute attrs[OH_MAX_ATTRIBUTES];
    uint32_t nr = 0;
    CUresult r = launch_ex(t, (const struct ow_orion_launch_ex_in *)in, bytes, attrs, &nr);

    if (r != CUDA_SUCCESS)
        return r;
    out->node = 0;
    for (uint32_t i = 0; i < nr; i++)
        if (attrs[i].id == 13)
            out->node = (uintptr_t)attrs[i].value.deviceUpdatableKernelNode.devNode;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}
