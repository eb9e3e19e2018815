/* SPDX-License-Identifier: Apache-2.0 */
/* Pointer attributes: host allocations from our own books, device memory from the host's ledger. */
#include <string.h>

#include "memory.h"
#include "gen/send.h"

enum attribute { /* CUpointer_attribute */
    CONTEXT = 1, MEMORY_TYPE, DEVICE_POINTER, HOST_POINTER, P2P_TOKENS, SYNC_MEMOPS, BUFFER_ID, IS_MANAGED,
    DEVICE_ORDINAL, LEGACY_IPC, RANGE_START, RANGE_SIZE, MAPPED, HANDLE_TYPES, GPUDIRECT_RDMA, ACCESS_FLAGS,
    MEMPOOL_HANDLE, MAPPING_SIZE, MAPPING_BASE, MEMORY_BLOCK_ID, HW_DECOMPRESS, LAST_ATTRIBUTE = HW_DECOMPRESS,
};
#define DEVICE_INVALID (-2)

/* All that is known of a pointer. */
struct facts {
    bool known;  /* an allocation or registration of ours */
    bool host, managed, mapped, device_sees;
    uint64_t context, id, start, bytes, pool, ptr;
    int device;
};

static void host_facts(const struct og_host_range *range, struct facts *f)
{
    f->known = f->host = true;
    f->managed = range->managed;
    f->mapped = f->device_sees = range->in_region;
    f->context = range->context;
    f->id = range->id;
    f->start = range->start;
    f->bytes = range->bytes;
    f->device = range->device;
}

static CUresult device_facts(struct facts *f)
{
    uint32_t kind = 0;
    int32_t device = -1;
    CUresult r = og_send_orion_pointer(f->ptr, &f->start, &f->bytes, &f->context, &f->id, &f->pool, &device, &kind);

    f->known = r == CUDA_SUCCESS && kind != 0;
    f->mapped = f->device_sees = kind == 1;
    if (f->known)
        f->device = device;
    return r;
}

static CUresult look_up(CUdeviceptr ptr, struct facts *f)
{
    struct og_host_range range;

    *f = (struct facts){ .ptr = ptr, .device = DEVICE_INVALID };
    if (og_host_find((void *)(uintptr_t)ptr, 1, &range)) {
        host_facts(&range, f);
        return CUDA_SUCCESS;
    }
    return og_is_device(ptr) ? device_facts(f) : CUDA_SUCCESS;
}

static uint32_t memory_type(const struct facts *f)
{
    if (!f->known)
        return 0;
    return f->host && !f->managed ? OC_MEMORY_HOST : OC_MEMORY_DEVICE;
}

/* The value of an attribute in `bytes` bytes; false: this pointer has none. */
static bool value_of(const struct facts *f, unsigned attribute, uint64_t *value, size_t *bytes)
{
    *bytes = 8;
    *value = 0;
    switch (attribute) {
    case CONTEXT:
        *value = f->context;
        return f->known;
    case MEMORY_TYPE:
        *bytes = 4;
        *value = memory_type(f);
        return f->known;
    case DEVICE_POINTER:
        *value = f->device_sees ? f->ptr : 0;
        return f->device_sees;
    case HOST_POINTER:
        *value = f->host ? f->ptr : 0;
        return f->host;
    case BUFFER_ID:
        *value = f->id;
        return f->known;
    case DEVICE_ORDINAL:
        *bytes = 4;
        *value = (uint32_t)f->device;
        return f->known;
    case RANGE_START:
    case MAPPING_BASE:
        *value = f->start;
        return f->known;
    case RANGE_SIZE:
    case MAPPING_SIZE:
        *value = f->bytes;
        return f->known;
    case SYNC_MEMOPS:
        *bytes = 4;
        return f->known;
    case IS_MANAGED:
        *bytes = 1;
        *value = f->managed;
        return f->known;
    case MAPPED:
        *bytes = 1;
        *value = f->mapped;
        return true;
    case ACCESS_FLAGS:
        *bytes = 4;
        *value = f->device_sees ? 3 : 0; /* PROT_READWRITE */
        return f->known;
    case MEMPOOL_HANDLE:
        *value = f->pool;
        return f->known;
    case MEMORY_BLOCK_ID:
        *value = f->id;
        return f->known;
    case LEGACY_IPC:
    case GPUDIRECT_RDMA:
    case HW_DECOMPRESS:
        *bytes = 1;
        return f->known;
    case HANDLE_TYPES:
        return f->known;
    default:
        return false;
    }
}

OG_EXPORT CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    struct facts f;
    uint64_t value;
    size_t bytes;
    CUresult r = og_need_context();

    if (r != CUDA_SUCCESS)
        return r;
    if (!data || attribute < CONTEXT || attribute > LAST_ATTRIBUTE)
        return CUDA_ERROR_INVALID_VALUE;
    if (attribute == P2P_TOKENS)
        return og_unsupported("CU_POINTER_ATTRIBUTE_P2P_TOKENS");
    r = look_up(ptr, &f);
    if (r != CUDA_SUCCESS)
        return r;
    if (!value_of(&f, attribute, &value, &bytes))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(data, &value, bytes);
    return CUDA_SUCCESS;
}

/* Unlike the single question, this one answers zeros for a pointer that CUDA does not know. */
OG_EXPORT CUresult cuPointerGetAttributes(unsigned int numAttributes, CUpointer_attribute *attributes, void **data,
                                          CUdeviceptr ptr)
{
    struct facts f;
    uint64_t value;
    size_t bytes;
    CUresult r = og_need_context();

    if (r != CUDA_SUCCESS)
        return r;
    if (!numAttributes || !attributes || !data)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < numAttributes; i++)
        if (attributes[i] < CONTEXT || attributes[i] > LAST_ATTRIBUTE || !data[i])
            return CUDA_ERROR_INVALID_VALUE;
    r = look_up(ptr, &f);
    if (r != CUDA_SUCCESS)
        return r;
    for (unsigned i = 0; i < numAttributes; i++) {
        if (!value_of(&f, attributes[i], &value, &bytes) && attributes[i] == P2P_TOKENS)
            continue;
        memcpy(data[i], &value, bytes);
    }
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    struct facts f;
    CUresult r = og_need_context();

    if (r != CUDA_SUCCESS)
        return r;
    if (!value || attribute != SYNC_MEMOPS)
        return CUDA_ERROR_INVALID_VALUE;
    r = look_up(ptr, &f);
    if (r != CUDA_SUCCESS)
        return r;
    if (!f.known)
        return CUDA_ERROR_INVALID_VALUE;
    /* Copies that CUDA lets return early already wait for their reply here. */
    return CUDA_SUCCESS;
}
