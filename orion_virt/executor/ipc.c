/* SPDX-License-Identifier: Apache-2.0 */
/* Sharing with other processes of the domain: the client names objects by tokens, the driver gets its own handles. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gen/ops.h"
#include "memory.h"
#include "share.h"

/* Memory of another process that is mapped here, by one mapping for each card: the driver lets one context of a process
 * have it, and contexts of one card reach each other's memory. */
struct opened {
    uint64_t ptr;
    int ordinal;
    CUcontext context;       /* that it was opened in */
    struct oh_share *share;
    unsigned refs;           /* times that the client opened it */
    struct opened *next;
};

static pthread_mutex_t showing = PTHREAD_MUTEX_INITIALIZER; /* one object is shown once */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* held over the driver's opening and closing */
static struct opened *all;

/* ---- to show ---- */

/* Fills the driver's handle of an object into as->handle. */
static CUresult driver_handle(uint32_t kind, uint64_t object, void *real, struct oh_share *as)
{
    CUmemPoolPtrExportData data;
    CUipcEventHandle event;
    CUipcMemHandle memory;
    CUresult r;

    memset(as->handle, 0, sizeof(as->handle));
    if (kind == OC_SHARE_EVENT) {
        r = OH_CALL(cuIpcGetEventHandle, &event, real);
        memcpy(as->handle, &event, sizeof(event));
    } else if (kind == OC_SHARE_POINTER) {
        r = OH_CALL(cuMemPoolExportPointer, &data, object);
        memcpy(as->handle, &data, sizeof(data));
    } else {
        r = OH_CALL(cuIpcGetMemHandle, &memory, object);
        memcpy(as->handle, &memory, sizeof(memory));
    }
    return r;
}

static CUresult share_event(uint64_t id, struct oh_share **share)
{
    struct oh_share as = { .kind = OC_SHARE_EVENT };
    void *real;
    CUresult r = oh_get(OW_KIND_EVENT, id, &real);

    if (r != CUDA_SUCCESS)
        return r;
    *share = oh_data(OW_KIND_EVENT, id);
    if (*share)
        return CUDA_SUCCESS;
    r = driver_handle(OC_SHARE_EVENT, 0, real, &as);
    if (r == CUDA_SUCCESS)
        r = oh_share_new(&as, -1, share);
    if (r != CUDA_SUCCESS)
        return r;
    oh_set_data(OW_KIND_EVENT, id, *share);
    if (oh_data(OW_KIND_EVENT, id) == *share)
        return CUDA_SUCCESS;
    oh_share_put(*share, false); /* destroyed meanwhile */
    return CUDA_ERROR_INVALID_HANDLE;
}

/* Natively a handle is that of the whole allocation, whatever pointer into it is given. */
static CUresult share_memory(uint32_t kind, uint64_t ptr, struct oh_share **share)
{
    struct oh_share as = { .kind = kind }, *has;
    uint64_t start;
    CUresult r;

    if (!oh_ledger_find(ptr, &start, &as.bytes, &as.device))
        return CUDA_ERROR_INVALID_VALUE;
    *share = oh_ledger_share(start, NULL);
    if (*share)
        return CUDA_SUCCESS;
    r = driver_handle(kind, start, NULL, &as);
    if (r == CUDA_SUCCESS)
        r = oh_share_new(&as, -1, share);
    if (r != CUDA_SUCCESS)
        return r;
    has = oh_ledger_share(start, *share);
    if (has == *share)
        return CUDA_SUCCESS;
    oh_share_put(*share, false); /* freed meanwhile */
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult oh_orion_share(struct oh_twin *t, const struct ow_orion_share_in *in, uint32_t bytes,
                        struct ow_orion_share_out *out, uint32_t *out_bytes)
{
    struct oh_share *share = NULL, now;
    CUresult r;

    (void)bytes;
    if (in->kind != OC_SHARE_EVENT && in->kind != OC_SHARE_MEMORY && in->kind != OC_SHARE_POINTER)
        return oh_fault(t, "to show an object of kind %u", in->kind);
    pthread_mutex_lock(&showing);
    r = in->kind == OC_SHARE_EVENT ? share_event(in->object, &share) : share_memory(in->kind, in->object, &share);
    pthread_mutex_unlock(&showing);
    if (r == CUDA_SUCCESS && (!oh_share_look(share, &now) || now.kind != in->kind || !now.ours))
        r = CUDA_ERROR_INVALID_VALUE; /* freed by another thread, or what another process shows us */
    if (r != CUDA_SUCCESS)
        return r;
    out->token_bytes = OC_TOKEN_BYTES;
    memcpy(out + 1, now.token, OC_TOKEN_BYTES);
    *out_bytes = (uint32_t)sizeof(*out) + OC_TOKEN_BYTES;
    return CUDA_SUCCESS;
}

/* ---- to open ---- */

static struct opened *opened_locked(const struct oh_share *share, int ordinal)
{
    struct opened *o = all;

    while (o && (o->share != share || o->ordinal != ordinal))
        o = o->next;
    return o;
}

/* In the context that has other memory of this kind already, if there is one for the card: the driver allows one. */
static CUcontext context_locked(int ordinal, CUcontext current)
{
    for (struct opened *o = all; o; o = o->next)
        if (o->ordinal == ordinal)
            return o->context;
    return current;
}

static CUresult map_locked(struct opened *o, unsigned flags)
{
    CUcontext current = NULL;
    CUipcMemHandle handle;
    CUdeviceptr p = 0;
    CUresult r = oh_drv.cuCtxGetCurrent(&current);

    o->context = context_locked(o->ordinal, current);
    memcpy(&handle, o->share->handle, sizeof(handle));
    if (r == CUDA_SUCCESS && o->context != current)
        r = oh_drv.cuCtxSetCurrent(o->context);
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuIpcOpenMemHandle_v2, &p, handle, flags);
    if (o->context != current)
        (void)oh_drv.cuCtxSetCurrent(current);
    o->ptr = p;
    return r;
}

/* Takes over the reference to the share. */
static CUresult open_memory(struct oh_twin *t, struct oh_share *share, unsigned flags, struct ow_orion_open_out *out)
{
    int ordinal = oh_devices[t->device].ordinal;
    struct opened *o;
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&lock);
    o = opened_locked(share, ordinal);
    if (o) {
        o->refs++;
        oh_share_put(share, false);
    } else {
        o = calloc(1, sizeof(*o));
        if (o) {
            *o = (struct opened){ .ordinal = ordinal, .share = share, .refs = 1 };
            r = map_locked(o, flags);
        }
        if (!o || r != CUDA_SUCCESS) {
            free(o);
            pthread_mutex_unlock(&lock);
            oh_share_put(share, false);
            return r != CUDA_SUCCESS ? r : CUDA_ERROR_OUT_OF_MEMORY;
        }
        o->next = all;
        all = o;
        oh_ledger_add(o->ptr, share->bytes, t->device, 0); /* its maker books it */
    }
    out->ptr = o->ptr;
    out->bytes = share->bytes;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

static CUresult open_event(uint64_t id, struct oh_share *share)
{
    CUipcEventHandle handle;
    CUevent event = NULL;
    CUresult r;

    memcpy(&handle, share->handle, sizeof(handle));
    r = OH_CALL(cuIpcOpenEventHandle, &event, handle);
    if (r == CUDA_SUCCESS) {
        r = oh_put(OW_KIND_EVENT, id, event);
        if (r == CUDA_SUCCESS)
            oh_set_data(OW_KIND_EVENT, id, share);
        else
            oh_drv.cuEventDestroy_v2(event);
    }
    if (r != CUDA_SUCCESS)
        oh_share_put(share, false);
    return r;
}

static CUresult open_pointer(struct oh_twin *t, uint64_t pool_id, struct oh_share *share, struct ow_orion_open_out *out)
{
    CUmemPoolPtrExportData data;
    CUdeviceptr p = 0;
    void *pool;
    CUresult r = oh_get(OW_KIND_MEMPOOL, pool_id, &pool) == CUDA_SUCCESS ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;

    memcpy(&data, share->handle, sizeof(data));
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuMemPoolImportPointer, &p, pool, &data);
    if (r != CUDA_SUCCESS) {
        oh_share_put(share, false);
        return r;
    }
    oh_ledger_add(p, share->bytes, t->device, 0);
    oh_ledger_share(p, share);
    out->ptr = p;
    out->bytes = share->bytes;
    return CUDA_SUCCESS;
}

CUresult oh_orion_open(struct oh_twin *t, const struct ow_orion_open_in *in, uint32_t bytes,
                       struct ow_orion_open_out *out, uint32_t *out_bytes)
{
    struct oh_share *share;
    CUresult r;
    int fd;

    if (in->kind != OC_SHARE_MEMORY && in->kind != OC_SHARE_EVENT && in->kind != OC_SHARE_POINTER)
        return oh_fault(t, "to open an object of kind %u", in->kind);
    if (bytes < sizeof(*in) + OC_TOKEN_BYTES || t->device < 0)
        return CUDA_ERROR_INVALID_VALUE;
    r = oh_share_find(in->kind, (const uint8_t *)(in + 1), t->device, &fd, &share);
    if (r == CUDA_ERROR_NOT_FOUND) /* what the driver says of bytes that are no handle */
        return in->kind == OC_SHARE_EVENT ? CUDA_ERROR_MAP_FAILED : CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    if (fd >= 0)
        close(fd);
    *out = (struct ow_orion_open_out){ 0 };
    *out_bytes = sizeof(*out);
    if (in->kind == OC_SHARE_EVENT)
        return open_event(in->object, share);
    if (in->kind == OC_SHARE_POINTER)
        return open_pointer(t, in->object, share, out);
    return open_memory(t, share, in->flags, out);
}

/* ---- to close ---- */

static void unlink_locked(struct opened *o)
{
    struct opened **at = &all;

    while (*at != o)
        at = &(*at)->next;
    *at = o->next;
}

static CUresult close_locked(struct opened *o)
{
    CUcontext current = NULL;
    CUresult r = oh_drv.cuCtxGetCurrent(&current);

    if (r == CUDA_SUCCESS && o->context != current)
        r = oh_drv.cuCtxSetCurrent(o->context);
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuIpcCloseMemHandle, o->ptr);
    if (o->context != current)
        (void)oh_drv.cuCtxSetCurrent(current);
    if (r != CUDA_SUCCESS)
        return r;
    oh_ledger_del(o->ptr);
    unlink_locked(o);
    return CUDA_SUCCESS;
}

CUresult oh_orion_close(struct oh_twin *t, const struct ow_orion_close_in *in, uint32_t bytes,
                        struct ow_orion_close_out *out, uint32_t *out_bytes)
{
    struct opened *o;
    CUresult r = CUDA_ERROR_INVALID_VALUE;

    (void)t;
    (void)bytes;
    out->left = 0;
    *out_bytes = sizeof(*out);
    pthread_mutex_lock(&lock);
    for (o = all; o && o->ptr != in->ptr; o = o->next)
        ;
    if (o && o->refs > 1) {
        o->refs--;
        out->left = 1;
        o = NULL;
        r = CUDA_SUCCESS;
    } else if (o) {
        r = close_locked(o);
    }
    pthread_mutex_unlock(&lock);
    if (o && r == CUDA_SUCCESS) {
        oh_share_put(o->share, false);
        free(o);
    }
    return r;
}

void oh_ipc_drop_context(CUcontext context)
{
    struct opened *gone = NULL, *next;

    pthread_mutex_lock(&lock);
    for (struct opened *o = all; o; o = next) {
        next = o->next;
        if (o->context != context)
            continue;
        unlink_locked(o);
        oh_ledger_del(o->ptr);
        o->next = gone;
        gone = o;
    }
    pthread_mutex_unlock(&lock);
    for (; gone; gone = next) {
        next = gone->next;
        oh_share_put(gone->share, false);
        free(gone);
    }
}

CUresult oh_cuEventDestroy_v2(struct oh_twin *t, const struct ow_cuEventDestroy_v2_in *in, uint32_t bytes,
                              struct ow_cuEventDestroy_v2_out *out, uint32_t *out_bytes)
{
    void *event, *share;

    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (!oh_take(OW_KIND_EVENT, in->hEvent, &event, &share))
        return CUDA_ERROR_INVALID_HANDLE;
    if (share) {
        oh_unlock_ring(t); /* the daemon answers */
        oh_share_put(share, false);
    }
    return OH_CALL(cuEventDestroy_v2, event);
}

/* ---- by descriptor ---- */

CUresult oh_orion_export(struct oh_twin *t, const struct ow_orion_export_in *in, uint32_t bytes,
                         struct ow_orion_export_out *out, uint32_t *out_bytes)
{
    uint8_t token[OC_TOKEN_BYTES];
    CUresult r;

    (void)bytes;
    if (in->kind == OC_SHARE_ALLOCATION)
        r = oh_vmm_export(in->object, in->flags, token);
    else if (in->kind == OC_SHARE_POOL)
        r = oh_pool_export(in->object, in->flags, token);
    else
        return oh_fault(t, "to export an object of kind %u", in->kind);
    if (r != CUDA_SUCCESS)
        return r;
    out->token_bytes = OC_TOKEN_BYTES;
    memcpy(out + 1, token, OC_TOKEN_BYTES);
    *out_bytes = (uint32_t)sizeof(*out) + OC_TOKEN_BYTES;
    return CUDA_SUCCESS;
}

CUresult oh_orion_import(struct oh_twin *t, const struct ow_orion_import_in *in, uint32_t bytes,
                         struct ow_orion_import_out *out, uint32_t *out_bytes)
{
    const uint8_t *token = (const uint8_t *)(in + 1);
    CUresult r;

    (void)out;
    (void)out_bytes;
    if (bytes < sizeof(*in) + OC_TOKEN_BYTES)
        return CUDA_ERROR_INVALID_VALUE;
    if (in->kind == OC_SHARE_ALLOCATION)
        r = oh_vmm_import(t, in->object, token);
    else if (in->kind == OC_SHARE_POOL)
        r = oh_pool_import(in->object, in->flags, token);
    else
        return oh_fault(t, "to import an object of kind %u", in->kind);
    return r == CUDA_ERROR_NOT_FOUND ? CUDA_ERROR_INVALID_VALUE : r;
}
