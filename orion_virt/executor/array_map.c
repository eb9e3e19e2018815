/* SPDX-License-Identifier: Apache-2.0 */
/* Memory mapped into sparse arrays, which keeps its booking until the array ends: tiles are not counted one by one. */
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "gen/checks.h"

struct oh_hold {
    void *memory; /* of oh_memory_hold */
    struct oh_hold *next;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all lists */

/* Takes over the reference to `memory`. */
static CUresult hold(struct oh_array *a, void *memory)
{
    struct oh_hold *h = malloc(sizeof(*h)), *same;

    if (!h) {
        oh_memory_let_go(memory);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_lock(&lock);
    for (same = a->held; same && same->memory != memory; same = same->next)
        ;
    if (!same) {
        *h = (struct oh_hold){ memory, a->held };
        a->held = h;
    }
    pthread_mutex_unlock(&lock);
    if (same) {
        oh_memory_let_go(memory);
        free(h);
    }
    return CUDA_SUCCESS;
}

void oh_array_let_go(struct oh_array *a)
{
    struct oh_hold *h, *next;

    pthread_mutex_lock(&lock);
    h = a->held;
    a->held = NULL;
    pthread_mutex_unlock(&lock);
    for (; h; h = next) {
        next = h->next;
        oh_memory_let_go(h->memory);
        free(h);
    }
}

/* The mask names the client's devices; the driver wants its own ordinals. */
static bool translate_mask(unsigned *mask)
{
    unsigned physical = 0;

    for (unsigned i = 0; i < 32; i++) {
        if (!(*mask >> i & 1))
            continue;
        if (i >= oh_nr_devices || (unsigned)oh_devices[i].ordinal > 31)
            return false;
        physical |= 1u << oh_devices[i].ordinal;
    }
    *mask = physical;
    return true;
}

static CUresult translate(CUarrayMapInfo *m)
{
    enum ow_kind kind = m->resourceType == 0 ? OW_KIND_ARRAY : OW_KIND_MIPMAPPED_ARRAY; /* CUresourcetype */
    uint64_t id = (uint64_t)(uintptr_t)m->resource.array;
    void *real, *handle = NULL, *memory;
    struct oh_array *a;
    CUresult r = m->resourceType > 1 ? CUDA_ERROR_INVALID_VALUE : oh_get(kind, id, &real);

    if (r != CUDA_SUCCESS)
        return r;
    a = oh_data(kind, id);
    m->resource.array = real;
    if (m->memOperationType == 1) { /* CU_MEM_OPERATION_TYPE_MAP */
        memory = oh_memory_hold(m->memHandle.memHandle, &handle);
        if (!memory || !a)
            return CUDA_ERROR_INVALID_HANDLE;
        r = hold(a, memory);
    }
    m->memHandle.memHandle = (uint64_t)(uintptr_t)handle;
    return r == CUDA_SUCCESS && !translate_mask(&m->deviceBitMask) ? CUDA_ERROR_INVALID_VALUE : r;
}

CUresult oh_cuMemMapArrayAsync(struct oh_twin *t, const struct ow_cuMemMapArrayAsync_in *in, uint32_t bytes,
                               struct ow_cuMemMapArrayAsync_out *out, uint32_t *out_bytes)
{
    CUarrayMapInfo *list;
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->hStream, &stream);

    (void)t, (void)out, (void)out_bytes;
    if (oh_array_bytes(in->count, sizeof(*list)) > bytes - sizeof(*in))
        return CUDA_ERROR_INVALID_VALUE;
    list = malloc(in->count * sizeof(*list) + 1);
    if (!list)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(list, in + 1, in->count * sizeof(*list));
    for (uint32_t i = 0; i < in->count && r == CUDA_SUCCESS; i++)
        r = translate(&list[i]);
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuMemMapArrayAsync, list, in->count, stream);
    free(list);
    return r;
}
