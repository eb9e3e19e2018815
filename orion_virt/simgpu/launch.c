/* SPDX-License-Identifier: Apache-2.0 */
/* Functions: attributes, parameters, occupancy and launches. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define MAX_SHARED 49152u
#define MAX_SHARED_OPTIN 232448u
#define SM_SHARED 233472u
#define MAX_CLUSTER 8 /* blocks, where the function did not ask for more than every card has */
#define MAX_CLUSTER_HERE 16

static CUresult check(void *handle, struct CUctx_st **ctx, struct CUfunc_st **f)
{
    CUresult r = sim_enter(ctx);

    return r ? r : sim_function(*ctx, handle, f);
}

static unsigned most_cluster_blocks(const struct CUfunc_st *f)
{
    return f->tuning.beyond_portable ? MAX_CLUSTER_HERE : MAX_CLUSTER;
}

/* The size of a cluster that the function asks for: what it was compiled for, else what was set; 0: none. True: it has to be known. */
static bool wanted_cluster(const struct CUfunc_st *f, unsigned blocks[3])
{
    unsigned set[3] = { (unsigned)f->tuning.cluster[0], (unsigned)f->tuning.cluster[1], (unsigned)f->tuning.cluster[2] };
    bool must = f->kernel && ptx_cluster(f->kernel, blocks);

    if (!f->kernel || !blocks[0])
        memcpy(blocks, set, sizeof(set));
    return must;
}

static int attribute(const struct CUfunc_st *f, int what)
{
    unsigned blocks[3];

    switch (what) {
    case 0: return f->kernel ? (int)ptx_max_threads(f->kernel) : 1024;
    case 1: return (int)(f->kernel ? ptx_shared_bytes(f->kernel) : f->shared_bytes);
    case 2: return f->kernel ? (int)ptx_constant_bytes(f->kernel) : 0;
    case 3: return f->kernel ? (int)ptx_local_bytes(f->kernel) : 0;
    case 4: return f->kernel ? (int)ptx_nr_registers(f->kernel) : 32;
    case 5: return f->kernel ? (int)ptx_target(f->kernel) : 90; /* CUB chooses by it what the host assumes of the code */
    case 6: return 90;
    case 8: return f->tuning.max_dynamic ? f->tuning.max_dynamic : (int)MAX_SHARED - attribute(f, 1);
    case 9: return f->carveout;
    case 10: return wanted_cluster(f, blocks);
    case 11: case 12: case 13: return wanted_cluster(f, blocks), (int)blocks[what - 11];
    case 14: return f->tuning.beyond_portable;
    case 15: return f->tuning.policy;
    default: return 0;
    }
}

SIM_API CUresult cuFuncGetAttribute(int *value, CUfunction_attribute what, CUfunction function)
{
    struct CUctx_st *ctx;
    struct CUfunc_st *f;
    CUresult r = check(function, &ctx, &f);

    if (r)
        return r;
    if (!value || (unsigned)what > 15)
        return CUDA_ERROR_INVALID_VALUE;
    *value = attribute(f, (int)what);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuKernelGetAttribute(int *value, CUfunction_attribute what, CUkernel kernel, CUdevice dev)
{
    return sim_device(dev) ? cuFuncGetAttribute(value, what, (CUfunction)kernel) : CUDA_ERROR_INVALID_DEVICE;
}

CUresult sim_set_attribute(struct sim_tuning *tuning, CUfunction_attribute what, int value, int static_bytes)
{
    switch ((int)what) {
    case 8:
        if (value < 0 || value > (int)MAX_SHARED_OPTIN - static_bytes)
            return CUDA_ERROR_INVALID_VALUE;
        tuning->max_dynamic = value;
        return CUDA_SUCCESS;
    case 11: case 12: case 13:
        if (value < 0)
            return CUDA_ERROR_INVALID_VALUE;
        tuning->cluster[(int)what - 11] = value;
        return CUDA_SUCCESS;
    case 14: tuning->beyond_portable = value != 0; return CUDA_SUCCESS;
    case 15: tuning->policy = value; return CUDA_SUCCESS;
    case 9: return CUDA_SUCCESS;
    default: return CUDA_ERROR_INVALID_VALUE; /* cannot be set */
    }
}

SIM_API CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute what, int value)
{
    unsigned blocks[3];
    struct CUctx_st *ctx;
    struct CUfunc_st *f;
    CUresult r = check(function, &ctx, &f);

    if (r)
        return r;
    if ((int)what >= 11 && (int)what <= 13 && f->kernel && (ptx_cluster(f->kernel, blocks), blocks[0]))
        return CUDA_ERROR_NOT_PERMITTED; /* it was compiled for one size */
    if (what == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) {
        f->carveout = value;
        return CUDA_SUCCESS;
    }
    return sim_set_attribute(&f->tuning, what, value, attribute(f, 1));
}

SIM_API CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config)
{
    struct CUctx_st *ctx;
    struct CUfunc_st *f;
    CUresult r = check(function, &ctx, &f);

    if (!r)
        f->cache = (int)config;
    return r;
}

SIM_API CUresult cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice dev)
{
    return sim_device(dev) ? cuFuncSetCacheConfig((CUfunction)kernel, config) : CUDA_ERROR_INVALID_DEVICE;
}

SIM_API CUresult cuFuncGetModule(CUmodule *module, CUfunction function)
{
    if (!module)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_valid(function, SIM_FUNCTION))
        return CUDA_ERROR_INVALID_HANDLE;
    *module = function->module;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuFuncGetName(const char **name, CUfunction function)
{
    if (!name)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_valid(function, SIM_FUNCTION))
        return sim_valid(function, SIM_KERNEL) ? cuKernelGetName(name, (CUkernel)function) : CUDA_ERROR_INVALID_HANDLE;
    *name = function->name;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuFuncLoad(CUfunction function)
{
    return sim_valid(function, SIM_FUNCTION) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction function)
{
    if (!state)
        return CUDA_ERROR_INVALID_VALUE;
    *state = CU_FUNCTION_LOADING_STATE_LOADED;
    return sim_valid(function, SIM_FUNCTION) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuFuncGetParamInfo(CUfunction function, size_t index, size_t *offset, size_t *size)
{
    struct CUctx_st *ctx;
    struct CUfunc_st *f;
    size_t bytes;
    CUresult r = check(function, &ctx, &f);

    if (r)
        return r;
    if (!offset)
        return CUDA_ERROR_INVALID_VALUE;
    if (f->kernel)
        return ptx_param(f->kernel, (unsigned)index, offset, size ? size : &bytes) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    if (index >= f->nr_params)
        return CUDA_ERROR_INVALID_VALUE;
    *offset = f->params[index].offset;
    if (size)
        *size = f->params[index].bytes;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t *offset, size_t *size)
{
    CUcontext current = NULL;

    if (cuCtxGetCurrent(&current) || !current) /* as on a real card */
        return CUDA_ERROR_INVALID_CONTEXT;
    return cuFuncGetParamInfo((CUfunction)kernel, index, offset, size);
}

/* ---- occupancy: of a multiprocessor with 2048 threads, 64 Ki registers, 228 KiB shared memory ---- */

static int blocks_that_fit(const struct CUfunc_st *f, int threads, size_t dynamic)
{
    unsigned warps = ((unsigned)threads + 31) / 32, regs = (unsigned)attribute(f, 4);
    size_t shared = (size_t)attribute(f, 1) + dynamic + 1024;
    unsigned by_warps = 64 / warps, by_shared = (unsigned)(SM_SHARED / shared);
    unsigned by_regs = 65536 / (warps * 32 * ((regs + 7) / 8 * 8));
    unsigned nr = by_warps < by_shared ? by_warps : by_shared;

    if (threads > attribute(f, 0))
        return 0;
    nr = nr < by_regs ? nr : by_regs;
    return (int)(nr < 32 ? nr : 32);
}

SIM_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *nr, CUfunction function, int threads,
                                                                      size_t dynamic, unsigned flags)
{
    struct CUctx_st *ctx;
    struct CUfunc_st *f;
    CUresult r = check(function, &ctx, &f);

    if (r)
        return r;
    if (!nr || threads <= 0 || flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    *nr = blocks_that_fit(f, threads, dynamic);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *nr, CUfunction function, int threads, size_t dynamic)
{
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(nr, function, threads, dynamic, 0);
}

SIM_API CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *min_grid, int *block, CUfunction function,
                                                           CUoccupancyB2DSize shared_of, size_t dynamic, int limit,
                                                           unsigned flags)
{
    struct CUctx_st *ctx;
    struct CUfunc_st *f;
    CUresult r = check(function, &ctx, &f);
    int best = 0;

    if (r)
        return r;
    if (!min_grid || !block || flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    if (limit <= 0 || limit > attribute(f, 0))
        limit = attribute(f, 0);
    *block = *min_grid = 0;
    for (int threads = (limit + 31) / 32 * 32; threads > 0; threads -= 32) {
        int used = threads > limit ? limit : threads;
        int nr = blocks_that_fit(f, used, shared_of ? shared_of(used) : dynamic);
        if (nr * used <= best)
            continue;
        best = nr * used;
        *block = used;
        *min_grid = nr * SIM_MULTIPROCESSORS;
    }
    return CUDA_SUCCESS;
}

SIM_API CUresult cuOccupancyMaxPotentialBlockSize(int *min_grid, int *block, CUfunction function,
                                                  CUoccupancyB2DSize shared_of, size_t dynamic, int limit)
{
    return cuOccupancyMaxPotentialBlockSizeWithFlags(min_grid, block, function, shared_of, dynamic, limit, 0);
}

SIM_API CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t *bytes, CUfunction function, int blocks, int threads)
{
    struct CUctx_st *ctx;
    struct CUfunc_st *f;
    CUresult r = check(function, &ctx, &f);

    if (r)
        return r;
    if (!bytes || blocks <= 0 || threads <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    size_t each = SM_SHARED / (unsigned)blocks, fixed = 1024 + (size_t)attribute(f, 1);
    each = each > fixed ? each - fixed : 0;
    *bytes = each < MAX_SHARED_OPTIN ? each : MAX_SHARED_OPTIN;
    return CUDA_SUCCESS;
}

static CUresult cluster_query(const void *out, CUfunction function, const CUlaunchConfig *config, struct CUfunc_st **f)
{
    struct CUctx_st *ctx;
    CUresult r = check(function, &ctx, f);

    return r ? r : out && config && (!config->numAttrs || config->attrs) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuOccupancyMaxPotentialClusterSize(int *size, CUfunction function, const CUlaunchConfig *config)
{
    struct CUfunc_st *f;
    CUresult r = cluster_query(size, function, config, &f);

    if (!r)
        *size = (int)most_cluster_blocks(f);
    return r;
}

SIM_API CUresult cuOccupancyMaxActiveClusters(int *nr, CUfunction function, const CUlaunchConfig *config)
{
    struct CUfunc_st *f;
    CUresult r = cluster_query(nr, function, config, &f);
    unsigned size[3];
    uint64_t blocks, threads;

    if (r)
        return r;
    wanted_cluster(f, size);
    for (unsigned i = 0; i < config->numAttrs; i++)
        if (config->attrs[i].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
            memcpy(size, &config->attrs[i].value.clusterDim, sizeof(size));
    blocks = size[0] || size[1] || size[2] ? (uint64_t)size[0] * size[1] * size[2] : 1;
    threads = (uint64_t)config->blockDimX * config->blockDimY * config->blockDimZ;
    if (!threads || threads > 1024)
        return CUDA_ERROR_INVALID_VALUE;
    if (!blocks || blocks > most_cluster_blocks(f))
        return CUDA_ERROR_INVALID_CLUSTER_SIZE;
    *nr = SIM_MULTIPROCESSORS * blocks_that_fit(f, (int)threads, config->sharedMemBytes) / (int)blocks;
    return CUDA_SUCCESS;
}

/* ---- launches ---- */

/* The size of the launch's clusters: as it says itself, else as the function does. */
static CUresult settle_cluster(const struct CUfunc_st *f, const struct sim_call *c, unsigned size[3])
{
    unsigned compiled[3], wanted[3];
    bool must = wanted_cluster(f, wanted), given = c->cluster[0] || c->cluster[1] || c->cluster[2];
    const char *why = NULL;

    ptx_cluster(f->kernel, compiled);
    memcpy(size, given ? c->cluster : wanted, 3 * sizeof(*size));
    if (given && compiled[0] && memcmp(size, compiled, sizeof(compiled)))
        why = "the kernel was compiled for clusters of another size";
    if (!size[0] && !size[1] && !size[2]) {
        size[0] = size[1] = size[2] = 1;
        if (must)
            why = "the kernel is for clusters, and the launch names no size (CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)";
    }
    if (!why && (uint64_t)size[0] * size[1] * size[2] > most_cluster_blocks(f))
        why = f->tuning.beyond_portable ? "a cluster has at most 16 blocks"
              : "a cluster has at most 8 blocks unless CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED is set";
    for (int k = 0; k < 3 && !why; k++)
        if (!size[k] || size[k] > MAX_CLUSTER_HERE || c->grid[k] % size[k])
            why = "the grid is no multiple of the cluster";
    if (why)
        sim_say("launch of kernel %s with a grid of %u x %u x %u blocks in clusters of %u x %u x %u: %s", f->name, c->grid[0], c->grid[1],
                c->grid[2], size[0], size[1], size[2], why);
    return why ? CUDA_ERROR_INVALID_CLUSTER_SIZE : CUDA_SUCCESS;
}

static CUresult check_shape(const struct CUfunc_st *f, const struct sim_call *c)
{
    static const unsigned most[3] = { 1024, 1024, 64 }, grid[3] = { 2147483647u, 65535, 65535 };
    uint64_t threads = 1;

    for (int i = 0; i < 3; i++) {
        if (!c->block[i] || !c->grid[i] || c->block[i] > most[i] || c->grid[i] > grid[i])
            return CUDA_ERROR_INVALID_VALUE;
        threads *= c->block[i];
    }
    if (threads > (unsigned)attribute(f, 0)) /* .maxntid or the card's limit */
        return CUDA_ERROR_INVALID_VALUE;
    if (c->shared > (unsigned)attribute(f, 8) || c->shared + (unsigned)attribute(f, 1) > MAX_SHARED_OPTIN)
        return CUDA_ERROR_INVALID_VALUE;
    if (c->cooperative) {
        uint64_t blocks = (uint64_t)c->grid[0] * c->grid[1] * c->grid[2];
        if (blocks > (uint64_t)blocks_that_fit(f, (int)threads, c->shared) * SIM_MULTIPROCESSORS)
            return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    }
    return CUDA_SUCCESS;
}

static CUresult pack_extra(struct sim_call *c, void **extra)
{
    const void *buffer = NULL;
    size_t bytes = 0;

    for (; *extra; extra += 2) {
        if (*extra == (void *)CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT)
            buffer = extra[1];
        else if (*extra == (void *)CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT)
            bytes = *(const size_t *)extra[1];
        else
            return CUDA_ERROR_INVALID_VALUE;
    }
    if (c->params_bytes && (!buffer || bytes < c->params_bytes))
        return CUDA_ERROR_INVALID_VALUE;
    if (c->params_bytes)
        memcpy(c->params, buffer, c->params_bytes);
    return CUDA_SUCCESS;
}

static CUresult pack(const struct CUfunc_st *f, struct sim_call *c, void **params, void **extra)
{
    c->params_bytes = ptx_params_bytes(f->kernel);
    c->params = calloc(1, c->params_bytes + 16);
    if (!c->params)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (extra)
        return params ? CUDA_ERROR_INVALID_VALUE : pack_extra(c, extra);
    for (unsigned i = 0; i < ptx_nr_params(f->kernel); i++) {
        size_t offset, bytes;
        if (!params || !params[i])
            return CUDA_ERROR_INVALID_VALUE;
        ptx_param(f->kernel, i, &offset, &bytes);
        memcpy((char *)c->params + offset, params[i], bytes);
    }
    return CUDA_SUCCESS;
}

static CUresult prepare(struct CUctx_st *ctx, struct sim_call *c, void **params, void **extra, struct CUfunc_st **function)
{
    CUresult r = sim_function(ctx, c->function, function);
    struct CUfunc_st *f = *function;

    c->params = NULL;
    if (r)
        return r;
    if (!f->kernel) {
        sim_say("kernel %s exists as machine code only, which the simulated GPU cannot run; compile it with PTX "
                "(nvcc -gencode arch=compute_90,code=compute_90)", f->name);
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    r = check_shape(f, c);
    if (!r)
        r = sim_own_run(ctx, f);
    if (!r)
        r = pack(f, c, params, extra);
    if (r) {
        free(c->params);
        c->params = NULL;
    }
    return r;
}

CUresult sim_call_prepare(struct CUctx_st *ctx, struct sim_call *c, void **params, void **extra)
{
    struct CUfunc_st *f;

    return prepare(ctx, c, params, extra, &f);
}

static CUresult launch(struct sim_call call, CUstream stream, void **params, void **extra)
{
    struct sim_work work = { .kind = SIM_WORK_KERNEL, .call = call };
    struct CUstream_st *s;
    struct CUfunc_st *f;
    unsigned cluster[3];
    CUresult r = sim_stream(stream, &s);

    if (!r && !call.function)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!r)
        sim_output_show(s->ctx);
    if (!r)
        r = prepare(s->ctx, &work.call, params, extra, &f);
    if (!r && (r = settle_cluster(f, &call, cluster)))
        free(work.call.params);
    return r ? r : sim_submit(s, &work);
}

SIM_API CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                unsigned bz, unsigned shared, CUstream stream, void **params, void **extra)
{
    return launch((struct sim_call){ .function = f, .grid = { gx, gy, gz }, .block = { bx, by, bz },
                                     .shared = shared }, stream, params, extra);
}

SIM_API CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                                           unsigned by, unsigned bz, unsigned shared, CUstream stream, void **params)
{
    return launch((struct sim_call){ .function = f, .grid = { gx, gy, gz }, .block = { bx, by, bz },
                                     .shared = shared, .cooperative = true }, stream, params, NULL);
}

/* Barriers reach over one device's blocks only: what CUDA 13 dropped from its compilers. */
SIM_API CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *p, unsigned nr, unsigned flags)
{
    CUresult r = p && nr && flags <= 3 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;

    for (unsigned i = 0; !r && i < nr; i++)
        r = launch((struct sim_call){ .function = p[i].function, .grid = { p[i].gridDimX, p[i].gridDimY, p[i].gridDimZ },
                                      .block = { p[i].blockDimX, p[i].blockDimY, p[i].blockDimZ },
                                      .shared = p[i].sharedMemBytes, .cooperative = true },
                   p[i].hStream, p[i].kernelParams, NULL);
    return r;
}

/* Events that a card records when the kernel's blocks have begun, or say so; here when it has ended, which is never too early. */
static CUresult record_event(const CUlaunchAttribute *a, CUstream stream)
{
    if (a->id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT)
        return cuEventRecordWithFlags(a->value.programmaticEvent.event, stream, (unsigned)a->value.programmaticEvent.flags);
    if (a->id == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT)
        return cuEventRecordWithFlags(a->value.launchCompletionEvent.event, stream, (unsigned)a->value.launchCompletionEvent.flags);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
    struct sim_call call = { .function = f };
    CUresult r;

    if (!config || (config->numAttrs && !config->attrs))
        return CUDA_ERROR_INVALID_VALUE;
    call.grid[0] = config->gridDimX;
    call.grid[1] = config->gridDimY;
    call.grid[2] = config->gridDimZ;
    call.block[0] = config->blockDimX;
    call.block[1] = config->blockDimY;
    call.block[2] = config->blockDimZ;
    call.shared = config->sharedMemBytes;
    for (unsigned i = 0; i < config->numAttrs; i++) {
        const CUlaunchAttribute *a = &config->attrs[i];
        if (a->id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
            call.cooperative = a->value.cooperative != 0;
        if (a->id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
            memcpy(call.cluster, &a->value.clusterDim, sizeof(call.cluster));
    }
    r = launch(call, config->hStream, params, extra);
    for (unsigned i = 0; !r && i < config->numAttrs; i++)
        r = record_event(&config->attrs[i], config->hStream);
    return r;
}

static CUresult status_to_cuda(enum ptx_status s)
{
    switch (s) {
    case PTX_OK: case PTX_TIMEOUT: return CUDA_SUCCESS; /* stopped because its context ends */
    case PTX_ILLEGAL_ADDRESS: return CUDA_ERROR_ILLEGAL_ADDRESS;
    case PTX_MISALIGNED: return CUDA_ERROR_MISALIGNED_ADDRESS;
    case PTX_ILLEGAL_INSTRUCTION: return CUDA_ERROR_ILLEGAL_INSTRUCTION;
    case PTX_DEADLINE: return CUDA_ERROR_LAUNCH_TIMEOUT;
    case PTX_NO_MEMORY: return CUDA_ERROR_OUT_OF_MEMORY;
    case PTX_ASSERT: return CUDA_ERROR_ASSERT;
    default: return CUDA_ERROR_LAUNCH_FAILED;
    }
}

CUresult sim_call_run(struct CUctx_st *ctx, struct sim_call *c)
{
    struct ptx_memory memory = sim_ptx_memory;
    struct ptx_launch l = {
        .grid = { c->grid[0], c->grid[1], c->grid[2] }, .block = { c->block[0], c->block[1], c->block[2] },
        .dynamic_shared = c->shared, .params = c->params, .cooperative = c->cooperative,
        .cancel = (const volatile int *)&ctx->cancel,
    };
    struct CUfunc_st *f;
    struct sim_running run;
    char error[512] = "";
    CUresult r = sim_function(ctx, c->function, &f);

    if (!r)
        r = settle_cluster(f, c, l.cluster); /* of a graph's node only now */
    if (r)
        return r;
    memory.arg = ctx;
    sim_launch_settings(&l);
    sim_running_begin(&run, ptx_kernel_name(f->kernel), (uint64_t)c->grid[0] * c->grid[1] * c->grid[2]);
    l.done = &run.done;
    r = status_to_cuda(ptx_run(f->kernel, &l, &memory, error, sizeof(error)));
    sim_running_end(&run);
    if (r)
        sim_say("%s", error);
    return r;
}
