// SPDX-License-Identifier: Apache-2.0
// Bodies on the driver API's rarer parts: `driver NAME` checks itself and prints what does not depend on the executor.
#include <cuda.h>
#include <cudaProfiler.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

static int failed;

#define NAME_(x) #x
#define NAME(x) NAME_(x)
/* No program links the driver; the macros of cuda.h choose the newest version of a name. */
#define D(function) ((decltype(&function))symbol(NAME(function)))
#define CHECK(call)                                                     \
    do {                                                                \
        CUresult r_ = (call);                                           \
        if (r_ != CUDA_SUCCESS) {                                       \
            printf("%s:%d %s: %d\n", __func__, __LINE__, #call, (int)r_); \
            exit(1);                                                    \
        }                                                               \
    } while (0)

static void *symbol(const char *name)
{
    static void *library = dlopen("libcuda.so.1", RTLD_NOW);
    void *found = library ? dlsym(library, name) : nullptr;

    if (!found) {
        printf("no %s\n", name);
        exit(1);
    }
    return found;
}
static void is(const char *what, bool right)
{
    printf("%s: %s\n", what, right ? "right" : "WRONG");
    failed |= !right;
}
static void gives(const char *what, CUresult got, CUresult wanted)
{
    printf("%s: %d\n", what, (int)got);
    if (got != wanted)
        printf("WRONG, %d wanted\n", (int)wanted);
    failed |= got != wanted;
}

static const char *const SCALE = R"(
.version 7.0
.target sm_52
.address_size 64
.visible .entry scale(.param .u64 p, .param .u32 n, .param .f32 f)
{
    .reg .pred %q;
    .reg .f32 %a, %b;
    .reg .b32 %i, %n, %m;
    .reg .b64 %p, %o;
    ld.param.u64 %p, [p];
    ld.param.u32 %n, [n];
    ld.param.f32 %b, [f];
    mov.u32 %i, %ctaid.x;
    mov.u32 %m, %ntid.x;
    mad.lo.s32 %i, %i, %m, 0;
    mov.u32 %m, %tid.x;
    add.s32 %i, %i, %m;
    setp.ge.u32 %q, %i, %n;
    @%q bra DONE;
    cvta.to.global.u64 %p, %p;
    mul.wide.u32 %o, %i, 4;
    add.s64 %p, %p, %o;
    ld.global.f32 %a, [%p];
    mul.rn.f32 %a, %a, %b;
    st.global.f32 [%p], %a;
DONE:
    ret;
}
)";

static CUcontext context;
static CUdevice device;
__managed__ int table[32 << 10]; /* two pages of 64 KiB */

static CUfunction scale_of(CUmodule module)
{
    CUfunction f;

    CHECK(D(cuModuleGetFunction)(&f, module, "scale"));
    return f;
}
static CUdeviceptr filled(size_t n, float value)
{
    std::vector<float> host(n, value);
    CUdeviceptr p;

    CHECK(D(cuMemAlloc)(&p, n * sizeof(float)));
    CHECK(D(cuMemcpyHtoD)(p, host.data(), n * sizeof(float)));
    return p;
}
static bool holds(CUdeviceptr p, size_t n, float value)
{
    std::vector<float> host(n);
    bool same = true;

    CHECK(D(cuMemcpyDtoH)(host.data(), p, n * sizeof(float)));
    for (float v : host)
        same = same && v == value;
    return same;
}

/* The interface of CUDA 3: a function holds its next launch. */
static void legacy()
{
    CUmodule module;
    CUdeviceptr p;
    CUcontext attached, made;
    float factor = 1.5f;

    CHECK(D(cuModuleLoadData)(&module, SCALE));
    CUfunction f = scale_of(module);
    p = filled(256, 2);
    CHECK(D(cuFuncSetBlockShape)(f, 64, 1, 1));
    CHECK(D(cuFuncSetSharedSize)(f, 0));
    CHECK(D(cuParamSetv)(f, 0, &p, sizeof(p)));
    CHECK(D(cuParamSeti)(f, 8, 256));
    CHECK(D(cuParamSetf)(f, 12, factor));
    CHECK(D(cuParamSetSize)(f, 16));
    CHECK(D(cuLaunch)(f));
    CHECK(D(cuLaunchGrid)(f, 4, 1));
    CHECK(D(cuLaunchGridAsync)(f, 2, 1, nullptr));
    is("one block once, the first twice more", holds(p, 64, 2 * 1.5f * 1.5f * 1.5f));
    is("two blocks", holds(p + 256, 64, 2 * 1.5f * 1.5f));
    is("the rest once", holds(p + 512, 128, 2 * 1.5f));
    CHECK(D(cuCtxCreate)(&made, nullptr, 0, device));
    CHECK(D(cuCtxAttach)(&attached, 0));
    is("attached to the current one", attached == made);
    CHECK(D(cuCtxDetach)(attached));
    CHECK(D(cuCtxSynchronize)());
    CHECK(D(cuCtxDetach)(made));
    CHECK(D(cuCtxGetCurrent)(&attached));
    is("gone with its last user", attached == context);
    CHECK(D(cuCtxSynchronize)());
}

static void profiler()
{
    CUcontext none;

    CHECK(D(cuProfilerStart)());
    CHECK(D(cuProfilerStart)());
    CHECK(D(cuProfilerStop)());
    CHECK(D(cuCtxPopCurrent)(&none));
    gives("start without a context", D(cuProfilerStart)(), CUDA_ERROR_INVALID_CONTEXT);
    CHECK(D(cuCtxPushCurrent)(none));
}

/* Waits and writes in stream order: one stream goes on when the other has written. */
static void memops()
{
    CUstreamBatchMemOpParams ops[3];
    CUstream a, b;
    CUdeviceptr flag;
    unsigned word = 0, words[4];
    unsigned long long wide = 0;

    CHECK(D(cuStreamCreate)(&a, CU_STREAM_NON_BLOCKING));
    CHECK(D(cuStreamCreate)(&b, CU_STREAM_NON_BLOCKING));
    CHECK(D(cuMemAlloc)(&flag, 4096));
    CHECK(D(cuMemsetD8)(flag, 0, 4096));
    CHECK(D(cuStreamSynchronize)(nullptr));
    CHECK(D(cuStreamWaitValue32)(a, flag, 5, CU_STREAM_WAIT_VALUE_GEQ));
    CHECK(D(cuStreamWriteValue32)(a, flag + 4, 6, 0));
    gives("waits", D(cuStreamQuery)(a), CUDA_ERROR_NOT_READY);
    CHECK(D(cuStreamWriteValue32)(b, flag, 5, 0));
    CHECK(D(cuStreamSynchronize)(a));
    CHECK(D(cuMemcpyDtoH)(&word, flag + 4, 4));
    is("written after the wait", word == 6);
    CHECK(D(cuStreamWriteValue64)(b, flag + 8, 0x123456789abcdefull, 0));
    CHECK(D(cuStreamWaitValue64)(b, flag + 8, 0x123456789abcdefull, CU_STREAM_WAIT_VALUE_EQ));
    CHECK(D(cuStreamSynchronize)(b));
    CHECK(D(cuMemcpyDtoH)(&wide, flag + 8, 8));
    is("64 bits", wide == 0x123456789abcdefull);
    memset(ops, 0, sizeof(ops));
    ops[0].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    ops[0].writeValue.address = flag + 16;
    ops[0].writeValue.value = 11;
    ops[1].waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    ops[1].waitValue.address = flag + 16;
    ops[1].waitValue.value = 8;
    ops[1].waitValue.flags = CU_STREAM_WAIT_VALUE_AND;
    ops[2].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_64;
    ops[2].writeValue.address = flag + 24;
    ops[2].writeValue.value64 = 13ull << 32 | 12;
    CHECK(D(cuStreamBatchMemOp)(a, 3, ops, 0));
    CHECK(D(cuStreamSynchronize)(a));
    CHECK(D(cuMemcpyDtoH)(words, flag + 16, sizeof(words)));
    is("a batch", words[0] == 11 && words[2] == 12 && words[3] == 13);
    gives("an odd address", D(cuStreamWriteValue32)(a, flag + 2, 1, 0), CUDA_ERROR_INVALID_VALUE);
    CHECK(D(cuStreamDestroy)(a));
    CHECK(D(cuStreamDestroy)(b));
    CHECK(D(cuMemFree)(flag));
}

/* One device of several is one launch. */
static void multi()
{
    CUDA_LAUNCH_PARAMS one = {};
    CUmodule module;
    CUdeviceptr p = filled(256, 2);
    unsigned n = 256;
    float factor = 2.5f;
    void *params[] = { &p, &n, &factor };

    CHECK(D(cuModuleLoadData)(&module, SCALE));
    one.function = scale_of(module);
    one.gridDimX = 4;
    one.blockDimX = 64;
    one.gridDimY = one.gridDimZ = one.blockDimY = one.blockDimZ = 1;
    one.kernelParams = params;
    CHECK(D(cuStreamCreate)(&one.hStream, CU_STREAM_NON_BLOCKING));
    CHECK(D(cuLaunchCooperativeKernelMultiDevice)(&one, 1, 0));
    CHECK(D(cuStreamSynchronize)(one.hStream));
    is("scaled", holds(p, 256, 5));
    gives("no launch", D(cuLaunchCooperativeKernelMultiDevice)(nullptr, 1, 0), CUDA_ERROR_INVALID_VALUE);
    gives("no device", D(cuLaunchCooperativeKernelMultiDevice)(&one, 0, 0), CUDA_ERROR_INVALID_VALUE);
    one.function = nullptr;
    printf("no function: %d\n", (int)D(cuLaunchCooperativeKernelMultiDevice)(&one, 1, 0));
    CHECK(D(cuStreamDestroy)(one.hStream));
}

static int asked(CUmem_range_attribute what, CUdeviceptr p, size_t bytes)
{
    int value = -77;
    CUresult r = D(cuMemRangeGetAttribute)(&value, sizeof(value), what, p, bytes);

    if (r != CUDA_SUCCESS)
        printf("attribute %d: %d\n", (int)what, (int)r);
    return value;
}

/* What was said of managed memory, in whole pages of 64 KiB and across several. */
static void ranges()
{
    const size_t page = 64 << 10, all = 2 << 20;
    CUmemLocation host = { CU_MEM_LOCATION_TYPE_HOST, 0 }, card = { CU_MEM_LOCATION_TYPE_DEVICE, 0 };
    CUmem_range_attribute two[2] = { CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY };
    int mostly = -7, by[3] = { -7, -7, -7 };
    void *to[2] = { &mostly, by };
    size_t sizes[2] = { sizeof(mostly), sizeof(by) };
    CUdeviceptr p, plain;
    CUstream s;

    CHECK(D(cuMemAllocManaged)(&p, all, CU_MEM_ATTACH_GLOBAL));
    CHECK(D(cuMemAlloc)(&plain, all));
    CHECK(D(cuStreamCreate)(&s, CU_STREAM_NON_BLOCKING));
    printf("nothing said: %d %d %d\n", asked(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, p, all),
           asked(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, p, all),
           asked(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, p, all));
    CHECK(D(cuMemAdvise)(p, 4 * page, CU_MEM_ADVISE_SET_READ_MOSTLY, card));
    printf("read mostly: %d %d %d\n", asked(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, p, 4 * page),
           asked(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, p + page, page),
           asked(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, p, 5 * page));
    CHECK(D(cuMemAdvise)(p + page, page, CU_MEM_ADVISE_UNSET_READ_MOSTLY, card));
    printf("read mostly but one page: %d %d\n", asked(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, p, 4 * page),
           asked(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, p + 2 * page, 2 * page));
    CHECK(D(cuMemAdvise)(p, all, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, host));
    printf("prefers the host: %d\n", asked(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, p, all));
    CHECK(D(cuMemAdvise)(p, all, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, card));
    printf("prefers the card: %d type %d id %d\n", asked(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, p, all),
           asked(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE, p, all),
           asked(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID, p, all));
    CHECK(D(cuMemAdvise)(p, all, CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION, card));
    printf("prefers nothing: %d\n", asked(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, p, all));
    CHECK(D(cuMemAdvise)(p, all, CU_MEM_ADVISE_SET_ACCESSED_BY, card));
    CHECK(D(cuMemRangeGetAttributes)(to, sizes, two, 2, p + page, page));
    printf("both: %d, %d %d %d\n", mostly, by[0], by[1], by[2]);
    CHECK(D(cuMemPrefetchAsync)(p, 2 * page, card, 0, s));
    CHECK(D(cuStreamSynchronize)(s));
    printf("prefetched: %d %d\n", asked(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, p, 2 * page),
           asked(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, p, all));
    CHECK(D(cuStreamAttachMemAsync)(s, p, 0, CU_MEM_ATTACH_SINGLE));
    CHECK(D(cuStreamSynchronize)(s));
    if (cudaMemset(table, 1, sizeof(table)) != cudaSuccess) /* the runtime loads it */
        exit(1);
    const CUdeviceptr variable = (CUdeviceptr)(uintptr_t)table;
    CHECK(D(cuMemAdvise)(variable, sizeof(table), CU_MEM_ADVISE_SET_READ_MOSTLY, card));
    printf("a variable: %d %d\n", asked(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, variable, sizeof(table)),
           asked(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, variable + 4096, 4096));
    gives("a size that does not fit", D(cuMemRangeGetAttribute)(by, 8, two[0], p, page), CUDA_ERROR_INVALID_VALUE);
    gives("no such attribute", D(cuMemRangeGetAttribute)(by, 4, (CUmem_range_attribute)99, p, page),
          CUDA_ERROR_INVALID_VALUE);
    gives("other memory", D(cuMemRangeGetAttribute)(by, 4, two[0], plain, page), CUDA_ERROR_INVALID_VALUE);
    gives("no such advice", D(cuMemAdvise)(p, page, (CUmem_advise)99, card), CUDA_ERROR_INVALID_VALUE);
    CHECK(D(cuStreamDestroy)(s));
    CHECK(D(cuMemFree)(p));
    CHECK(D(cuMemFree)(plain));
}

static void affinity()
{
    CUexecAffinityParam p = {};
    CUcontext made;
    int count = 0;

    CHECK(D(cuDeviceGetAttribute)(&count, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device));
    CHECK(D(cuCtxGetExecAffinity)(&p, CU_EXEC_AFFINITY_TYPE_SM_COUNT));
    is("all multiprocessors", p.type == CU_EXEC_AFFINITY_TYPE_SM_COUNT && (int)p.param.smCount.val == count);
    p.param.smCount.val = 2;
    CUctxCreateParams params = { &p, 1, nullptr };
    gives("a context of two", D(cuCtxCreate_v4)(&made, &params, 0, device), CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY);
}

static const char *const SQUARE = R"(
.version 7.0
.target sm_52
.address_size 64
.visible .func (.param .b32 result) square(.param .b32 number)
{
    .reg .b32 %a;
    ld.param.b32 %a, [number];
    mul.lo.s32 %a, %a, %a;
    st.param.b32 [result], %a;
    ret;
}
)";
static const char *const SQUARES = R"(
.version 7.0
.target sm_52
.address_size 64
.extern .func (.param .b32 result) square(.param .b32 number);
.visible .entry squares(.param .u64 p)
{
    .reg .b32 %i;
    .reg .b64 %p, %o;
    ld.param.u64 %p, [p];
    cvta.to.global.u64 %p, %p;
    mov.u32 %i, %tid.x;
    mul.wide.u32 %o, %i, 4;
    add.s64 %p, %p, %o;
    {
        .param .b32 in;
        .param .b32 out;
        st.param.b32 [in], %i;
        call.uni (out), square, (in);
        ld.param.b32 %i, [out];
    }
    st.global.u32 [%p], %i;
    ret;
}
)";

/* A kernel in one input calls a function in another, which comes from memory or from a file. */
static void linked(bool from_file)
{
    CUjit_option options[] = { CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, CU_JIT_ERROR_LOG_BUFFER,
                               CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, CU_JIT_WALL_TIME };
    char info[4096] = "", error[4096] = "", path[] = "/tmp/orion_ptx_XXXXXX";
    void *values[] = { info, (void *)sizeof(info), error, (void *)sizeof(error), nullptr };
    void *cubin = nullptr, *params[1];
    unsigned back[32], wrong = 0;
    CUlinkState state;
    CUmodule module;
    CUfunction f;
    CUdeviceptr p;
    size_t size = 0;

    CHECK(D(cuLinkCreate)(5, options, values, &state));
    if (from_file) {
        FILE *file = fdopen(mkstemp(path), "w");
        fputs(SQUARE, file);
        fclose(file);
        CHECK(D(cuLinkAddFile)(state, CU_JIT_INPUT_PTX, path, 0, nullptr, nullptr));
        remove(path);
    } else {
        CHECK(D(cuLinkAddData)(state, CU_JIT_INPUT_PTX, (void *)SQUARE, strlen(SQUARE) + 1, "square", 0, nullptr, nullptr));
    }
    CHECK(D(cuLinkAddData)(state, CU_JIT_INPUT_PTX, (void *)SQUARES, strlen(SQUARES) + 1, "squares", 0, nullptr, nullptr));
    CHECK(D(cuLinkComplete)(state, &cubin, &size));
    is("an image", cubin && size > 100);
    is("no error", (size_t)values[3] == 0 || !error[0]);
    CHECK(D(cuModuleLoadData)(&module, cubin));
    CHECK(D(cuLinkDestroy)(state));
    CHECK(D(cuModuleGetFunction)(&f, module, "squares"));
    CHECK(D(cuMemAlloc)(&p, sizeof(back)));
    params[0] = &p;
    CHECK(D(cuLaunchKernel)(f, 1, 1, 1, 32, 1, 1, 0, nullptr, params, nullptr));
    CHECK(D(cuMemcpyDtoH)(back, p, sizeof(back)));
    for (unsigned i = 0; i < 32; i++)
        wrong += back[i] != i * i;
    printf("wrong squares %u\n", wrong);
    failed |= wrong != 0;
    CHECK(D(cuModuleUnload)(module));
    CHECK(D(cuMemFree)(p));
}

static void linker()
{
    CUjit_option options[] = { CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES };
    char error[4096] = "";
    void *values[] = { error, (void *)sizeof(error) };
    void *cubin;
    size_t size;
    CUlinkState state;
    CUresult r;

    linked(false);
    linked(true);
    CHECK(D(cuLinkCreate)(2, options, values, &state));
    gives("a file that is not there", D(cuLinkAddFile)(state, CU_JIT_INPUT_PTX, "/none/there", 0, nullptr, nullptr),
          CUDA_ERROR_FILE_NOT_FOUND);
    gives("no data", D(cuLinkAddData)(state, CU_JIT_INPUT_PTX, nullptr, 5, "x", 0, nullptr, nullptr),
          CUDA_ERROR_INVALID_VALUE);
    r = D(cuLinkAddData)(state, CU_JIT_INPUT_PTX, (void *)SQUARES, strlen(SQUARES) + 1, "squares", 0, nullptr, nullptr);
    if (r == CUDA_SUCCESS)
        r = D(cuLinkComplete)(state, &cubin, &size);
    is("a function is missing", r != CUDA_SUCCESS);
    is("the log names it", strstr(error, "square") != nullptr);
    CHECK(D(cuLinkDestroy)(state));
}

static bool scaled_in(CUcontext of, CUstream stream, CUfunction f)
{
    unsigned n = 1000;
    float factor = 3;
    CUdeviceptr p;
    void *params[] = { &p, &n, &factor };
    bool right;

    CHECK(D(cuCtxSetCurrent)(of));
    p = filled(n, 2);
    CHECK(D(cuLaunchKernel)(f, 8, 1, 1, 128, 1, 1, 0, stream, params, nullptr));
    CHECK(D(cuStreamSynchronize)(stream));
    right = holds(p, n, 6);
    CHECK(D(cuMemFree)(p));
    return right;
}

/* A part of the card, a context on it, work there, and what is told about it. */
static void green()
{
    CUdevResource all, group, rest, back;
    CUdevResourceDesc desc;
    CUgreenCtx made, found;
    CUcontext as_context, of;
    CUstream stream, other;
    CUevent event;
    CUmodule module;
    CUdevice d = -1;
    unsigned long long id = 0;
    unsigned n = 0;
    int count = 0;

    CHECK(D(cuDeviceGetAttribute)(&count, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device));
    CHECK(D(cuDeviceGetDevResource)(device, &all, CU_DEV_RESOURCE_TYPE_SM));
    is("all of the card", all.type == CU_DEV_RESOURCE_TYPE_SM && (int)all.sm.smCount == count);
    const unsigned least = all.sm.minSmPartitionSize;
    CHECK(D(cuDevSmResourceSplitByCount)(nullptr, &n, &all, nullptr, 0, least));
    is("several parts", n > 1 && n * least <= all.sm.smCount);
    n = 1;
    CHECK(D(cuDevSmResourceSplitByCount)(&group, &n, &all, &rest, 0, least));
    is("a part and the rest", n == 1 && group.sm.smCount >= least && group.sm.smCount + rest.sm.smCount == all.sm.smCount);
    CHECK(D(cuDevResourceGenerateDesc)(&desc, &group, 1));
    CHECK(D(cuGreenCtxCreate)(&made, desc, device, CU_GREEN_CTX_DEFAULT_STREAM));
    CHECK(D(cuGreenCtxGetDevResource)(made, &back, CU_DEV_RESOURCE_TYPE_SM));
    is("its part", back.sm.smCount == group.sm.smCount);
    CHECK(D(cuCtxFromGreenCtx)(&as_context, made));
    is("a context of its own", as_context && as_context != context);
    CHECK(D(cuCtxGetDevResource)(as_context, &back, CU_DEV_RESOURCE_TYPE_SM));
    is("the same part", back.sm.smCount == group.sm.smCount);
    CHECK(D(cuCtxGetDevResource)(context, &back, CU_DEV_RESOURCE_TYPE_SM));
    is("the primary one has all", back.sm.smCount == all.sm.smCount);
    CHECK(D(cuGreenCtxGetId)(made, &id));
    is("an id", id != 0);
    CHECK(D(cuModuleLoadData)(&module, SCALE));
    CUfunction f = scale_of(module);
    CHECK(D(cuGreenCtxStreamCreate)(&stream, made, CU_STREAM_NON_BLOCKING, 0));
    is("work in its stream", scaled_in(context, stream, f));
    is("and current", scaled_in(as_context, stream, f));
    CHECK(D(cuCtxGetDevice)(&d));
    is("of the device", d == device);
    CHECK(D(cuStreamGetGreenCtx)(stream, &found));
    is("the stream's", found == made);
    CHECK(D(cuStreamGetCtx)(stream, &of));
    is("and as a context", of == as_context);
    CHECK(((CUresult(*)(CUstream, CUcontext *, CUgreenCtx *))symbol("cuStreamGetCtx_v2"))(stream, &of, &found));
    is("and the context that it is part of", of == context && found == made);
    CHECK(D(cuCtxSetCurrent)(context));
    CHECK(D(cuStreamGetGreenCtx)(nullptr, &found));
    is("none of the primary one", found == nullptr);
    CHECK(D(cuEventCreate)(&event, CU_EVENT_DISABLE_TIMING));
    CHECK(D(cuGreenCtxRecordEvent)(made, event));
    CHECK(D(cuGreenCtxWaitEvent)(made, event));
    CHECK(D(cuCtxRecordEvent)(context, event));
    CHECK(D(cuCtxWaitEvent)(as_context, event));
    CHECK(D(cuEventSynchronize)(event));
    CHECK(D(cuEventDestroy)(event));
    gives("more than there are", D(cuDevSmResourceSplitByCount)(&group, &n, &all, nullptr, 0, count + 1),
          CUDA_ERROR_INVALID_VALUE);
    gives("no such kind", D(cuDeviceGetDevResource)(device, &back, (CUdevResourceType)99),
          CUDA_ERROR_INVALID_RESOURCE_TYPE);
    gives("no description", D(cuDevResourceGenerateDesc)(nullptr, &group, 1), CUDA_ERROR_INVALID_VALUE);
    gives("without its stream", D(cuGreenCtxCreate)(&found, desc, device, 0), CUDA_ERROR_INVALID_VALUE);
    gives("a blocking stream", D(cuGreenCtxStreamCreate)(&other, made, 0, 0), CUDA_ERROR_INVALID_VALUE);
    gives("destroyed as a context", D(cuCtxDestroy)(as_context), CUDA_ERROR_INVALID_CONTEXT);
    CHECK(D(cuStreamDestroy)(stream));
    CHECK(D(cuGreenCtxDestroy)(made));
    is("the module stays", scaled_in(context, nullptr, f));
    CHECK(D(cuModuleUnload)(module));
}

/* What CUDA 13.0 brought: pools by location, batches of hints, which atomic operations reach the host. */
static void newer()
{
    const size_t bytes = 2 << 20;
    CUmemLocation card = { CU_MEM_LOCATION_TYPE_DEVICE, device }, nowhere = { CU_MEM_LOCATION_TYPE_INVALID, 0 };
    CUatomicOperation operations[] = { CU_ATOMIC_OPERATION_INTEGER_ADD, CU_ATOMIC_OPERATION_CAS, CU_ATOMIC_OPERATION_FLOAT_ADD };
    unsigned can[3] = { 77, 77, 77 };
    CUmemoryPool by_device, by_location;
    CUdeviceptr p[2], plain;
    size_t sizes[] = { bytes, bytes }, from[] = { 0 };
    CUstream s;

    CHECK(D(cuDeviceGetDefaultMemPool)(&by_device, device));
    CHECK(D(cuMemGetDefaultMemPool)(&by_location, &card, CU_MEM_ALLOCATION_TYPE_PINNED));
    is("the same default pool", by_device == by_location);
    CHECK(D(cuMemSetMemPool)(&card, CU_MEM_ALLOCATION_TYPE_PINNED, by_device));
    CHECK(D(cuMemGetMemPool)(&by_location, &card, CU_MEM_ALLOCATION_TYPE_PINNED));
    is("the same pool", by_device == by_location);
    gives("a pool of nowhere", D(cuMemGetMemPool)(&by_location, &nowhere, CU_MEM_ALLOCATION_TYPE_PINNED),
          CUDA_ERROR_INVALID_VALUE);
    CHECK(D(cuStreamCreate)(&s, CU_STREAM_NON_BLOCKING));
    CHECK(D(cuMemAllocManaged)(&p[0], bytes, CU_MEM_ATTACH_GLOBAL));
    CHECK(D(cuMemAllocManaged)(&p[1], bytes, CU_MEM_ATTACH_GLOBAL));
    CHECK(D(cuMemAlloc)(&plain, bytes));
    CHECK(D(cuMemPrefetchBatchAsync)(p, sizes, 2, &card, from, 1, 0, s));
    CHECK(D(cuStreamSynchronize)(s));
    printf("prefetched: %d %d\n", asked(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, p[0], bytes),
           asked(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, p[1], bytes));
    CHECK(D(cuMemDiscardBatchAsync)(p, sizes, 2, 0, s));
    CHECK(D(cuMemDiscardAndPrefetchBatchAsync)(p, sizes, 2, &card, from, 1, 0, s));
    CHECK(D(cuStreamSynchronize)(s));
    gives("nothing to prefetch", D(cuMemPrefetchBatchAsync)(p, sizes, 0, &card, from, 1, 0, s), CUDA_ERROR_INVALID_VALUE);
    gives("flags", D(cuMemPrefetchBatchAsync)(p, sizes, 2, &card, from, 1, 5, s), CUDA_ERROR_INVALID_VALUE);
    gives("other memory", D(cuMemDiscardBatchAsync)(&plain, sizes, 1, 0, s), CUDA_ERROR_INVALID_VALUE);
    CHECK(D(cuDeviceGetHostAtomicCapabilities)(can, operations, 3, device));
    printf("atomic to the host: %x %x %x\n", can[0], can[1], can[2]);
    CHECK(D(cuMemFree)(p[0]));
    CHECK(D(cuMemFree)(p[1]));
    CHECK(D(cuMemFree)(plain));
    CHECK(D(cuStreamDestroy)(s));
}

static const struct {
    const char *name;
    void (*body)();
} bodies[] = {
    { "legacy", legacy }, { "profiler", profiler }, { "memops", memops }, { "ranges", ranges }, { "affinity", affinity },
    { "linker", linker }, { "green", green },
    { "multi", multi }, { "newer", newer },
};

int main(int argc, char **argv)
{
    setvbuf(stdout, nullptr, _IOLBF, 1 << 16); /* what is printed is seen, however the program ends */
    for (const auto &b : bodies) {
        if (argc < 2) {
            printf("%s\n", b.name);
        } else if (!strcmp(argv[1], b.name)) {
            CHECK(D(cuInit)(0));
            CHECK(D(cuDeviceGet)(&device, 0));
            CHECK(D(cuDevicePrimaryCtxRetain)(&context, device));
            CHECK(D(cuCtxSetCurrent)(context));
            b.body();
            CHECK(D(cuCtxSynchronize)());
            printf("%s %s\n", b.name, failed ? "WRONG" : "right");
            return failed;
        }
    }
    return argc < 2 ? 0 : 2;
}
