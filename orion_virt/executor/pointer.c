/* SPDX-License-Identifier: Apache-2.0 */
/* What the ledger and the driver know of a device address, for the guest's pointer attributes. */
#include "memory.h"

static uint64_t ask(CUdeviceptr p, CUpointer_attribute attribute)
{
    uint64_t value = 0;

    return OH_CALL(cuPointerGetAttribute, &value, attribute, p) == CUDA_SUCCESS ? value : 0;
}

CUresult oh_orion_pointer(struct oh_twin *t, const struct ow_orion_pointer_in *in, uint32_t bytes,
                          struct ow_orion_pointer_out *out, uint32_t *out_bytes)
{
    int device = -1;

    (void)t;
    (void)bytes;
    *out = (struct ow_orion_pointer_out){ .device = -1 };
    if (oh_ledger_find(in->ptr, &out->start, &out->bytes, &device)) {
        out->kind = 1;
        out->device = device;
        /* 1 CONTEXT, 7 BUFFER_ID, 17 MEMPOOL_HANDLE */
        out->context = oh_find(OW_KIND_CONTEXT, (void *)(uintptr_t)ask(in->ptr, 1));
        out->id = ask(in->ptr, 7);
        out->pool = oh_find(OW_KIND_MEMPOOL, (void *)(uintptr_t)ask(in->ptr, 17));
    } else if (oh_reservation_find(in->ptr, &out->start, &out->bytes)) {
        out->kind = 2;
    }
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_orion_pointer_sharing(struct oh_twin *t, const struct ow_orion_pointer_sharing_in *in, uint32_t bytes,
                                  struct ow_orion_pointer_sharing_out *out, uint32_t *out_bytes)
{
    uint64_t value = 0; /* the driver writes a byte of one and eight of the other */

    (void)t;
    (void)bytes;
    if (oh_ledger_has(in->ptr, 1) && (in->attribute == 10 || in->attribute == 14))
        value = ask(in->ptr, in->attribute);
    out->value = value & 1; /* yes; of handle types the descriptor, which is all that a guest can pass on */
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}
