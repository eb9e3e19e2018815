/* SPDX-License-Identifier: Apache-2.0 */
/* Memory pools: the devices' own, created ones, and who may access them. */
#include <string.h>
#include <unistd.h>

#include "extra.h"
#include "memory.h"
#include "gen/checks.h"
#include "gen/ops.h"
#include "share.h"

#define MAX_ACCESS 32u   /* devices of one client */
#define BY_DESCRIPTOR 1u /* CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR */

/* The client's number for a pool of the driver: the one it has, else `candidate`. */
static CUresult name(CUmemoryPool pool, uint64_t candidate, uint64_t *id)
{
    *id = oh_find(OW_KIND_MEMPOOL, pool);
    if (*id)
        return CUDA_SUCCESS;
    *id = candidate;
    return oh_put(OW_KIND_MEMPOOL, candidate, pool);
}

CUresult oh_cuDeviceGetDefaultMemPool(struct oh_twin *t, const struct ow_cuDeviceGetDefaultMemPool_in *in,
                                      uint32_t bytes, struct ow_cuDeviceGetDefaultMemPool_out *out, uint32_t *out_bytes)
{
    CUmemoryPool pool = NULL;
    int ordinal;
    CUresult r = oh_ordinal(in->dev, &ordinal);

    (void)t;
    (void)bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuDeviceGetDefaultMemPool, &pool, ordinal);
    if (r == CUDA_SUCCESS)
        r = name(pool, in->pool_out, &out->pool_out);
    if (r == CUDA_SUCCESS)
        *out_bytes = sizeof(*out);
    return r;
}

CUresult oh_cuDeviceGetMemPool(struct oh_twin *t, const struct ow_cuDeviceGetMemPool_in *in, uint32_t bytes,
                               struct ow_cuDeviceGetMemPool_out *out, uint32_t *out_bytes)
{
    CUmemoryPool pool = NULL;
    int ordinal;
    CUresult r = oh_ordinal(in->dev, &ordinal);

    (void)t;
    (void)bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuDeviceGetMemPool, &pool, ordinal);
    if (r == CUDA_SUCCESS)
        r = name(pool, in->pool, &out->pool);
    if (r == CUDA_SUCCESS)
        *out_bytes = sizeof(*out);
    return r;
}

CUresult oh_cuMemPoolCreate(struct oh_twin *t, const struct ow_cuMemPoolCreate_in *in, uint32_t bytes,
                            struct ow_cuMemPoolCreate_out *out, uint32_t *out_bytes)
{
    CUmemPoolProps props;
    CUmemoryPool pool = NULL;
    CUresult r;

    (void)t;
    (void)out;
    (void)out_bytes;
    if (bytes < sizeof(*in) + sizeof(props))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&props, in + 1, sizeof(props));
    if (props.handleTypes & ~BY_DESCRIPTOR || (props.handleTypes && oh_config.region_fd < 0) || props.location.type != 1)
        return CUDA_ERROR_NOT_SUPPORTED; /* fabric handles, shared pools over TCP, host pools */
    r = oh_ordinal(props.location.id, &props.location.id);
    if (r != CUDA_SUCCESS)
        return r;
    props.win32SecurityAttributes = NULL;
    r = OH_CALL(cuMemPoolCreate, &pool, &props);
    if (r != CUDA_SUCCESS)
        return r;
    r = oh_put(OW_KIND_MEMPOOL, in->pool, pool);
    if (r != CUDA_SUCCESS)
        OH_CALL(cuMemPoolDestroy, pool);
    return r;
}

/* A pool's data is its share, if other processes may have it; one that was imported is not ours. */
CUresult oh_cuMemPoolDestroy(struct oh_twin *t, const struct ow_cuMemPoolDestroy_in *in, uint32_t bytes,
                             struct ow_cuMemPoolDestroy_out *out, uint32_t *out_bytes)
{
    void *pool, *share;
    CUresult r;

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (!oh_take(OW_KIND_MEMPOOL, in->pool, &pool, &share))
        return CUDA_ERROR_INVALID_VALUE;
    r = OH_CALL(cuMemPoolDestroy, pool);
    if (r == CUDA_SUCCESS && share)
        oh_share_put(share, false);
    if (r == CUDA_SUCCESS)
        return r;
    if (oh_put(OW_KIND_MEMPOOL, in->pool, pool) != CUDA_SUCCESS)
        return OH_FAULT;
    oh_set_data(OW_KIND_MEMPOOL, in->pool, share);
    return r;
}

static CUresult show(uint64_t id, void *pool, unsigned long long flags)
{
    struct oh_share as = { .kind = OC_SHARE_POOL }, *share;
    int fd = -1;
    CUresult r = OH_CALL(cuMemPoolExportToShareableHandle, &fd, pool, BY_DESCRIPTOR, flags);

    if (r != CUDA_SUCCESS)
        return r;
    r = oh_share_new(&as, fd, &share);
    close(fd);
    if (r == CUDA_SUCCESS)
        oh_set_data(OW_KIND_MEMPOOL, id, share);
    return r;
}

CUresult oh_pool_export(uint64_t id, unsigned long long flags, uint8_t token[OC_TOKEN_BYTES])
{
    static pthread_mutex_t showing = PTHREAD_MUTEX_INITIALIZER;
    struct oh_share now;
    CUresult r = CUDA_SUCCESS;
    void *pool;

    pthread_mutex_lock(&showing);
    if (oh_get(OW_KIND_MEMPOOL, id, &pool) != CUDA_SUCCESS)
        r = CUDA_ERROR_INVALID_VALUE;
    else if (!oh_data(OW_KIND_MEMPOOL, id))
        r = show(id, pool, flags);
    if (r == CUDA_SUCCESS && (!oh_share_look(oh_data(OW_KIND_MEMPOOL, id), &now) || !now.ours))
        r = CUDA_ERROR_INVALID_VALUE; /* an imported pool */
    pthread_mutex_unlock(&showing);
    if (r == CUDA_SUCCESS)
        memcpy(token, now.token, OC_TOKEN_BYTES);
    return r;
}

CUresult oh_pool_import(uint64_t id, unsigned long long flags, const uint8_t *token)
{
    CUmemoryPool pool = NULL;
    struct oh_share *share;
    int fd;
    CUresult r = oh_share_find(OC_SHARE_POOL, token, 0, &fd, &share);

    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuMemPoolImportFromShareableHandle, &pool, (void *)(intptr_t)fd, BY_DESCRIPTOR, flags);
    close(fd);
    if (r == CUDA_SUCCESS) {
        r = oh_put(OW_KIND_MEMPOOL, id, pool);
        if (r != CUDA_SUCCESS)
            OH_CALL(cuMemPoolDestroy, pool);
    }
    if (r == CUDA_SUCCESS)
        oh_set_data(OW_KIND_MEMPOOL, id, share);
    else
        oh_share_put(share, false);
    return r;
}

CUresult oh_cuMemPoolSetAccess(struct oh_twin *t, const struct ow_cuMemPoolSetAccess_in *in, uint32_t bytes,
                               struct ow_cuMemPoolSetAccess_out *out, uint32_t *out_bytes)
{
    CUmemAccessDesc access[MAX_ACCESS];
    void *pool;
    CUresult r = oh_get(OW_KIND_MEMPOOL, in->pool, &pool);

    (void)t;
    (void)out;
    (void)out_bytes;
    if (in->count == 0 || in->count > MAX_ACCESS || bytes < sizeof(*in) + in->count * sizeof(access[0]))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(access, in + 1, in->count * sizeof(access[0]));
    for (uint64_t i = 0; i < in->count && r == CUDA_SUCCESS; i++)
        r = access[i].location.type == 1 ? oh_ordinal(access[i].location.id, &access[i].location.id)
                                         : CUDA_ERROR_INVALID_VALUE;
    return r == CUDA_SUCCESS ? OH_CALL(cuMemPoolSetAccess, pool, access, in->count) : r;
}

CUresult oh_cuMemPoolGetAccess(struct oh_twin *t, const struct ow_cuMemPoolGetAccess_in *in, uint32_t bytes,
                               struct ow_cuMemPoolGetAccess_out *out, uint32_t *out_bytes)
{
    CUmemLocation location;
    CUmemAccess_flags flags = 0;
    void *pool;
    CUresult r = oh_get(OW_KIND_MEMPOOL, in->memPool, &pool);

    (void)t;
    if (bytes < sizeof(*in) + sizeof(location))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&location, in + 1, sizeof(location));
    if (r == CUDA_SUCCESS)
        r = location.type == 1 ? oh_ordinal(location.id, &location.id) : CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuMemPoolGetAccess, &flags, pool, &location);
    if (r != CUDA_SUCCESS)
        return r;
    out->flags = flags;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

/* ---- pools keep what the client freed: booked no more, but still taken ---- */

enum { RESERVED_NOW = 5, USED_NOW = 7 }; /* CUmemPool_attribute */
#define LOOK_EVERY (64ull << 20) /* bytes allocated between two looks at the pools, where the driver reports nothing */
#define POOL_STEP (32ull << 20)  /* what a pool takes of the card at once */

uint64_t oh_pool_reserved(CUmemoryPool pool, uint64_t *spare)
{
    uint64_t reserved = 0, used = 0;

    if (OH_CALL(cuMemPoolGetAttribute, pool, RESERVED_NOW, &reserved) != CUDA_SUCCESS ||
        OH_CALL(cuMemPoolGetAttribute, pool, USED_NOW, &used) != CUDA_SUCCESS)
        reserved = used = 0;
    *spare = reserved > used ? reserved - used : 0;
    return reserved;
}

static void add_kept(uint64_t id, void *pool, void *data, void *arg)
{
    uint64_t spare, *kept = arg;
    struct oh_share share;

    (void)id;
    if (data && oh_share_look(data, &share) && !share.ours)
        return; /* another process's memory */
    (void)oh_pool_reserved(pool, &spare);
    *kept += spare;
}

static void trim(uint64_t id, void *pool, void *data, void *arg)
{
    (void)id;
    (void)data;
    (void)arg;
    OH_CALL(cuMemPoolTrimTo, pool, 0); /* of an imported one it does nothing */
}

static void trim_all(void)
{
    CUmemoryPool pool;

    oh_each(OW_KIND_MEMPOOL, trim, NULL);
    for (uint32_t i = 0; i < oh_nr_devices; i++) /* the client need not have asked for it */
        if (OH_CALL(cuDeviceGetDefaultMemPool, &pool, oh_devices[i].ordinal) == CUDA_SUCCESS)
            OH_CALL(cuMemPoolTrimTo, pool, 0);
}

/* What pools keep may fill the quota, never exceed it: without a report nothing else tells of it. */
static void keep_below_limit(int device, uint64_t bytes)
{
    static _Atomic uint64_t since;
    struct oh_device *d = &oh_devices[device];
    uint64_t kept = 0;

    if (oh_extra_measured() || bytes > d->limit_bytes || atomic_fetch_add(&since, bytes) + bytes < LOOK_EVERY)
        return;
    atomic_store(&since, 0);
    oh_each(OW_KIND_MEMPOOL, add_kept, &kept);
    if (kept + bytes + oh_used_bytes(device) > d->limit_bytes)
        trim_all();
}

CUresult oh_pool_book(int device, CUmemoryPool pool, uint64_t bytes)
{
    uint64_t spare = 0;
    CUresult r;

    atomic_store(&oh_trim_pools, trim_all);
    keep_below_limit(device, bytes);
    if (oh_extra_measured())
        (void)oh_pool_reserved(pool, &spare);
    r = oh_book_rounded(device, bytes, spare >= bytes ? 0 : POOL_STEP);
    if (r == CUDA_SUCCESS || spare < bytes)
        return r;
    oh_book_anyway(device, bytes); /* freed, and kept for who comes next: it is counted already */
    return CUDA_SUCCESS;
}

CUresult oh_orion_pool_attribute(struct oh_twin *t, const struct ow_orion_pool_attribute_in *in, uint32_t bytes,
                                 struct ow_orion_pool_attribute_out *out, uint32_t *out_bytes)
{
    uint64_t value = in->value; /* an int attribute is its low half */
    void *pool;
    CUresult r = oh_get(OW_KIND_MEMPOOL, in->pool, &pool);

    (void)t;
    (void)bytes;
    if (r == CUDA_SUCCESS && in->set)
        r = OH_CALL(cuMemPoolSetAttribute, pool, in->attribute, &value);
    if (r == CUDA_SUCCESS && !in->set)
        r = OH_CALL(cuMemPoolGetAttribute, pool, in->attribute, &value);
    if (r != CUDA_SUCCESS)
        return r;
    out->got = value;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}
