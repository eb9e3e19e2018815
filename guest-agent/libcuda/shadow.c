/* SPDX-License-Identifier: Apache-2.0 */
/* Shadows: region memory that stands for ordinary host memory in copies that a graph records. */
#include <stdlib.h>
#include <string.h>

#include "memory.h"

struct og_shadow {
    void *host, *region;
    uint64_t bytes;
};

CUresult og_shadow_make(void *host, uint64_t bytes, struct og_shadow **shadow, void **region_addr)
{
    CUstreamCaptureMode mode = 2; /* RELAXED */
    struct og_shadow *s;
    CUresult r;

    if (!og_shared_memory()) {
        og_log("a graph that copies from or to ordinary memory needs the shared memory region");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    s = calloc(1, sizeof(*s));
    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    s->host = host;
    s->bytes = bytes;
    /* The application records; that we need memory for it is not its doing. */
    r = cuThreadExchangeStreamCaptureMode(&mode);
    if (r == CUDA_SUCCESS) {
        r = og_host_alloc(bytes, 0, false, &s->region);
        if (cuThreadExchangeStreamCaptureMode(&mode) != CUDA_SUCCESS)
            og_log("the capture mode of this thread stays relaxed");
    }
    if (r != CUDA_SUCCESS) {
        free(s);
        return r;
    }
    *shadow = s;
    *region_addr = s->region;
    return CUDA_SUCCESS;
}

void og_shadow_gather(void *shadow)
{
    struct og_shadow *s = shadow;

    memcpy(s->region, s->host, s->bytes);
}

void og_shadow_scatter(void *shadow)
{
    struct og_shadow *s = shadow;

    memcpy(s->host, s->region, s->bytes);
}
