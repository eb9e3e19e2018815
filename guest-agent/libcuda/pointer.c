/* SPDX-License-Identifier: Apache-2.0 */
/* Pointer attributes: host allocations from our own books, device memory from the host's ledger. */
#include <string.h>

#include "core.h"
#include "memory.h"
#include "variable.h"
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
    uint64_t sharing; /* the value of LEGACY_IPC or HANDLE_TYPES, whichever was asked for last */
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
    f->managed = f->host = og_variable_find(f->ptr, 1, &f->start, &f->bytes);
    f->mapped = f->device_sees = kind == 1;
    if (f->known)
        f->device = device;
    return r;
}

/* How device memory may be shared is asked for only when it is wanted. */
static void sharing_facts(struct facts *f, unsigned attribute)
{
    f->sharing = 0;
    if ((attribute == LEGACY_IPC || attribute == HANDLE_TYPES) && f->known && !f->host && og_shared_memory() &&
        og_send_orion_pointer_sharing(f->ptr, attribute, &f->sharing) != CUDA_SUCCESS)
        f->sharing = 0;
}

/* Needs no context, and no allocation either: a process that has none knows no pointer. */
static CUresult look_up(CUdeviceptr ptr, struct facts *f)
{
    struct og_host_range range;
    int life = atomic_load_explicit(&og_life, memory_order_acquire);

    *f = (struct facts){ .ptr = ptr, .device = DEVICE_INVALID };
    if (life != OG_CONNECTED)
        return og_life_result(life);
    if (og_self()->in_callback)
        return CUDA_ERROR_NOT_PERMITTED;
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

/* Bytes of an attribute's value. */
static size_t width_of(unsigned attribute)
{
    switch (attribute) {
    case MEMORY_TYPE:
    case SYNC_MEMOPS:
    case DEVICE_ORDINAL:
    case ACCESS_FLAGS:
    case IS_MANAGED: /* the runtime passes a word that it has not cleared */
        return 4;
    case LEGACY_IPC:
    case MAPPED:
    case GPUDIRECT_RDMA:
    case HW_DECOMPRESS:
        return 1;
    default:
        return 8;
    }
}

static uint64_t number_of(const struct facts *f, unsigned attribute)
{
    switch (attribute) {
    case CONTEXT:
        return f->context;
    case MEMORY_TYPE:
        return memory_type(f);
    case DEVICE_POINTER:
        return f->device_sees ? f->ptr : 0;
    case HOST_POINTER:
        return f->host ? f->ptr : 0;
    case BUFFER_ID:
    case MEMORY_BLOCK_ID:
        return f->id;
    case DEVICE_ORDINAL:
        return (uint32_t)f->device;
    case RANGE_START:
    case MAPPING_BASE:
        return f->start;
    case RANGE_SIZE:
    case MAPPING_SIZE:
        return f->bytes;
    case IS_MANAGED:
        return f->managed;
    case MAPPED:
        return f->mapped;
    case ACCESS_FLAGS:
        return f->device_sees ? 3 : 0; /* PROT_READWRITE */
    case MEMPOOL_HANDLE:
        return f->pool;
    case LEGACY_IPC:
    case HANDLE_TYPES:
        return f->sharing;
    default: /* SYNC_MEMOPS, RDMA, decompression: none */
        return 0;
    }
}

/* The value of an attribute in `bytes` bytes; false: this pointer has none. */
static bool value_of(const struct facts *f, unsigned attribute, uint64_t *value, size_t *bytes)
{
    *bytes = width_of(attribute);
    *value = number_of(f, attribute);
    switch (attribute) {
    case DEVICE_POINTER:
        return f->device_sees;
    case HOST_POINTER:
        return f->host;
    case MAPPED:
        return true;
    case P2P_TOKENS:
        return false;
    default:
        return f->known;
    }
}

OG_EXPORT CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    struct facts f;
    uint64_t value;
    size_t bytes;
    CUresult r;

    if (!data || attribute < CONTEXT || attribute > LAST_ATTRIBUTE)
        return CUDA_ERROR_INVALID_VALUE;
    if (attribute == P2P_TOKENS)
        return og_unsupported("CU_POINTER_ATTRIBUTE_P2P_TOKENS");
    r = look_up(ptr, &f);
    if (r != CUDA_SUCCESS)
        return r;
    sharing_facts(&f, attribute);
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
    CUresult r;

    if (!numAttributes || !attributes || !data)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < numAttributes; i++)
        if (attributes[i] < CONTEXT || attributes[i] > LAST_ATTRIBUTE || !data[i])
            return CUDA_ERROR_INVALID_VALUE;
    r = look_up(ptr, &f);
    if (r != CUDA_SUCCESS)
        return r;
    for (unsigned i = 0; i < numAttributes; i++) {
        sharing_facts(&f, attributes[i]);
        if (!value_of(&f, attributes[i], &value, &bytes) && attributes[i] == P2P_TOKENS)
            continue;
        memcpy(data[i], &value, bytes);
    }
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    struct facts f;
    CUresult r;

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
