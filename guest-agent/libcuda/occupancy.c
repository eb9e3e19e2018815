/* SPDX-License-Identifier: Apache-2.0 */
/* Occupancy: the host's driver computes, answers are kept by function until its attributes change. */
#include <string.h>

#include "gen/send.h"
#include "launch.h"

/* `what` of orion_occupancy and of orion_occupancy_cluster */
enum { OG_BLOCKS = 0, OG_DYNAMIC_SHARED = 1 };
enum { OG_CLUSTER_SIZE = 0, OG_CLUSTERS = 1 };

static struct og_occupancy *og_occupancy_slot(struct og_entry *e, const uint64_t key[3])
{
    uint64_t h = (key[0] * 0x9e3779b97f4a7c15ull) ^ (key[1] * 0xc2b2ae3d27d4eb4full) ^ key[2];

    return &e->occupancy[(h >> 20 ^ h >> 40) % OG_OCCUPANCIES];
}

static bool og_occupancy_known(struct og_entry *e, const uint64_t key[3], uint64_t *value)
{
    struct og_occupancy *o = og_occupancy_slot(e, key);
    bool known;

    pthread_mutex_lock(&og_modules_lock);
    known = o->used && !memcmp(o->key, key, sizeof(o->key));
    if (known)
        *value = o->value;
    pthread_mutex_unlock(&og_modules_lock);
    return known;
}

static void og_occupancy_keep(struct og_entry *e, const uint64_t key[3], uint64_t value)
{
    struct og_occupancy *o = og_occupancy_slot(e, key);

    pthread_mutex_lock(&og_modules_lock);
    memcpy(o->key, key, sizeof(o->key));
    o->value = value;
    o->used = true;
    pthread_mutex_unlock(&og_modules_lock);
}

static CUresult og_occupancy(CUfunction func, unsigned what, int a, uint64_t b, unsigned flags, uint64_t *value)
{
    struct og_entry *e = og_entry((uintptr_t)func);
    uint64_t key[3];
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!e)
        return og_no_function();
    key[0] = (uint64_t)what << 32 | (uint32_t)a;
    key[1] = b;
    key[2] = (uint64_t)(uint32_t)og_self()->device << 32 | flags;
    if (og_occupancy_known(e, key, value))
        return CUDA_SUCCESS;
    r = og_send_orion_occupancy(e->f.handle, what, a, b, flags, value);
    if (r == CUDA_SUCCESS)
        og_occupancy_keep(e, key, *value);
    return r;
}

OG_EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *numBlocks, CUfunction func, int blockSize,
                                                                        size_t dynamicSMemSize, unsigned int flags)
{
    uint64_t value = 0;
    CUresult r;

    if (!numBlocks)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_occupancy(func, OG_BLOCKS, blockSize, dynamicSMemSize, flags, &value);
    if (r == CUDA_SUCCESS)
        *numBlocks = (int)value;
    return r;
}

OG_EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *numBlocks, CUfunction func, int blockSize,
                                                               size_t dynamicSMemSize)
{
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(numBlocks, func, blockSize, dynamicSMemSize, 0);
}

OG_EXPORT CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t *dynamicSmemSize, CUfunction func, int numBlocks,
                                                           int blockSize)
{
    uint64_t value = 0;
    CUresult r;

    if (!dynamicSmemSize)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_occupancy(func, OG_DYNAMIC_SHARED, numBlocks, (uint64_t)(int64_t)blockSize, 0, &value);
    if (r == CUDA_SUCCESS)
        *dynamicSmemSize = value;
    return r;
}

/* ---- the best block size: the application may give the shared memory by a function of it ---- */
struct og_best {
    CUfunction func;
    CUoccupancyB2DSize shared_of;
    size_t shared;
    unsigned flags;
    int threads, blocks, size; /* best so far: threads a multiprocessor, blocks there, block size */
};

static CUresult og_try_block(struct og_best *best, int size)
{
    size_t shared = best->shared_of ? best->shared_of(size) : best->shared;
    int blocks = 0;
    CUresult r = cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&blocks, best->func, size, shared, best->flags);

    if (r == CUDA_SUCCESS && blocks * size > best->threads) {
        best->threads = blocks * size;
        best->blocks = blocks;
        best->size = size;
    }
    return r;
}

OG_EXPORT CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *minGridSize, int *blockSize, CUfunction func,
                                                             CUoccupancyB2DSize blockSizeToDynamicSMemSize,
                                                             size_t dynamicSMemSize, int blockSizeLimit,
                                                             unsigned int flags)
{
    struct og_best best = { func, blockSizeToDynamicSMemSize, dynamicSMemSize, flags, 0, 0, 0 };
    int limit = 0, warp = 32, processors = 0, most = 0, device = og_self()->device;
    CUresult r;

    if (!minGridSize || !blockSize)
        return CUDA_ERROR_INVALID_VALUE;
    r = cuFuncGetAttribute(&limit, 0 /* most threads a block */, func);
    if (r == CUDA_SUCCESS)
        r = cuDeviceGetAttribute(&warp, 10, device);
    if (r == CUDA_SUCCESS)
        r = cuDeviceGetAttribute(&processors, 16, device);
    if (r == CUDA_SUCCESS)
        r = cuDeviceGetAttribute(&most, 39 /* threads a multiprocessor */, device);
    if (r != CUDA_SUCCESS || warp <= 0)
        return r;
    if (blockSizeLimit > 0 && blockSizeLimit < limit)
        limit = blockSizeLimit;
    /* from the largest down, as natively: the first that fills a multiprocessor is the answer */
    for (int size = (limit + warp - 1) / warp * warp; r == CUDA_SUCCESS && size > 0 && best.threads < most; size -= warp)
        r = og_try_block(&best, size < limit ? size : limit);
    if (r != CUDA_SUCCESS)
        return r;
    *minGridSize = best.blocks * processors;
    *blockSize = best.size;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuOccupancyMaxPotentialBlockSize(int *minGridSize, int *blockSize, CUfunction func,
                                                    CUoccupancyB2DSize blockSizeToDynamicSMemSize,
                                                    size_t dynamicSMemSize, int blockSizeLimit)
{
    return cuOccupancyMaxPotentialBlockSizeWithFlags(minGridSize, blockSize, func, blockSizeToDynamicSMemSize,
                                                     dynamicSMemSize, blockSizeLimit, 0);
}

/* ---- clusters ---- */
static CUresult og_cluster(int *value, unsigned what, CUfunction func, const CUlaunchConfig *c)
{
    struct og_entry *e = og_entry((uintptr_t)func);
    struct og_shape s;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!e)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!value || !c || (c->numAttrs && !c->attrs) || c->numAttrs > 64)
        return CUDA_ERROR_INVALID_VALUE;
    s = (struct og_shape){ { c->gridDimX, c->gridDimY, c->gridDimZ }, { c->blockDimX, c->blockDimY, c->blockDimZ },
                           c->sharedMemBytes };
    if (!og_block_ok(&s))
        return CUDA_ERROR_INVALID_VALUE;
    return og_send_orion_occupancy_cluster(e->f.handle, what, s.grid[0], s.grid[1], s.grid[2], og_block_packed(&s),
                                           s.shared, c->numAttrs * (uint32_t)sizeof(*c->attrs),
                                           (const uint8_t *)c->attrs, value);
}

OG_EXPORT CUresult cuOccupancyMaxPotentialClusterSize(int *clusterSize, CUfunction func, const CUlaunchConfig *config)
{
    return og_cluster(clusterSize, OG_CLUSTER_SIZE, func, config);
}

OG_EXPORT CUresult cuOccupancyMaxActiveClusters(int *numClusters, CUfunction func, const CUlaunchConfig *config)
{
    return og_cluster(numClusters, OG_CLUSTERS, func, config);
}
