/* SPDX-License-Identifier: Apache-2.0 */
/* What does the card give up for an array, beside what its descriptor says? Quotas book the latter. */
#include "probe.h"

#define COUNT 2000

static void measure(const char *what, size_t w, size_t h, size_t d, unsigned flags, unsigned levels)
{
    CUDA_ARRAY3D_DESCRIPTOR desc = { .Width = w, .Height = h, .Depth = d, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1,
                                     .Flags = flags };
    static CUmipmappedArray mipmaps[COUNT];
    static CUarray arrays[COUNT];
    size_t before, after, total, said = 0;

    for (unsigned i = 0; i < levels || i == 0; i++)
        said += 4 * (w >> i ? w >> i : 1) * (h >> i ? h >> i : 1) * (d ? d : 1);
    NEED(cuMemGetInfo(&before, &total));
    for (int i = 0; i < COUNT; i++)
        if (levels)
            NEED(cuMipmappedArrayCreate(&mipmaps[i], &desc, levels));
        else
            NEED(cuArray3DCreate(&arrays[i], &desc));
    NEED(cuMemGetInfo(&after, &total));
    fact("%s: %zu bytes by descriptor, %zu taken", what, said, (before - after) / COUNT);
    for (int i = 0; i < COUNT; i++)
        if (levels)
            NEED(cuMipmappedArrayDestroy(mipmaps[i]));
        else
            NEED(cuArrayDestroy(arrays[i]));
}

static void linear(size_t bytes)
{
    static CUdeviceptr p[COUNT];
    size_t before, after, total;

    NEED(cuMemGetInfo(&before, &total));
    for (int i = 0; i < COUNT; i++)
        NEED(cuMemAlloc(&p[i], bytes));
    NEED(cuMemGetInfo(&after, &total));
    fact("cuMemAlloc of %zu bytes: %zu taken", bytes, (before - after) / COUNT);
    for (int i = 0; i < COUNT; i++)
        NEED(cuMemFree(p[i]));
}

int main(void)
{
    start();
    linear(4);
    measure("one element", 1, 0, 0, 0, 0);
    measure("1000 elements", 1000, 0, 0, 0, 0);
    measure("8 x 8", 8, 8, 0, 0, 0);
    measure("8 x 8 for surfaces", 8, 8, 0, CUDA_ARRAY3D_SURFACE_LDST, 0);
    measure("100 x 100", 100, 100, 0, 0, 0);
    measure("8 x 8 x 8", 8, 8, 8, 0, 0);
    measure("8 x 8, 8 layers", 8, 8, 8, CUDA_ARRAY3D_LAYERED, 0);
    measure("64 x 64 with 7 levels", 64, 64, 0, 0, 7);
    return 0;
}
