/* SPDX-License-Identifier: Apache-2.0 */
/* Occupancy questions, for the host's driver to compute. */
#include "launch.h"

CUresult oh_orion_occupancy(struct oh_twin *t, const struct ow_orion_occupancy_in *in, uint32_t bytes,
                            struct ow_orion_occupancy_out *out, uint32_t *out_bytes)
{
    struct oh_function *f;
    size_t shared = 0;
    int blocks = 0;
    void *real;
    CUresult r = oh_function_get(in->function, &real, &f);

    (void)t, (void)bytes;
    if (r != CUDA_SUCCESS)
        return r;
    if (in->what == 0 && in->flags)
        r = oh_drv.cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&blocks, real, in->a, in->b, in->flags);
    else if (in->what == 0)
        r = oh_drv.cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, real, in->a, in->b);
    else if (in->what == 1)
        r = oh_drv.cuOccupancyAvailableDynamicSMemPerBlock(&shared, real, in->a, (int)in->b);
    else
        return oh_fault(t, "occupancy question %u", in->what);
    out->value = in->what ? shared : (uint64_t)blocks;
    *out_bytes = sizeof(*out);
    return r;
}

CUresult oh_orion_occupancy_cluster(struct oh_twin *t, const struct ow_orion_occupancy_cluster_in *in, uint32_t bytes,
                                    struct ow_orion_occupancy_cluster_out *out, uint32_t *out_bytes)
{
    CUlaunchAttribute attrs[OH_MAX_ATTRIBUTES];
    CUlaunchConfig c = { 0 };
    struct oh_function *f;
    uint32_t attr_bytes = in->attributes_bytes == OW_NULL ? 0 : in->attributes_bytes, nr = 0;
    void *real;
    int value = 0;
    CUresult r = oh_function_get(in->function, &real, &f);

    if (attr_bytes > bytes - sizeof(*in))
        return oh_fault(t, "%u bytes of attributes in a command of %u", attr_bytes, bytes);
    if (r == CUDA_SUCCESS)
        r = oh_launch_attributes(in + 1, attr_bytes, attrs, &nr);
    if (r != CUDA_SUCCESS)
        return r;
    c.gridDimX = in->grid_x;
    c.gridDimY = in->grid_y;
    c.gridDimZ = in->grid_z;
    c.blockDimX = OH_BLOCK_X(in->block);
    c.blockDimY = OH_BLOCK_Y(in->block);
    c.blockDimZ = OH_BLOCK_Z(in->block);
    c.sharedMemBytes = in->shared;
    c.attrs = attrs;
    c.numAttrs = nr;
    if (in->what == 0)
        r = OH_CALL(cuOccupancyMaxPotentialClusterSize, &value, real, &c);
    else
        r = OH_CALL(cuOccupancyMaxActiveClusters, &value, real, &c);
    out->value = value;
    *out_bytes = sizeof(*out);
    return r;
}
