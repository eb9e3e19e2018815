// SPDX-License-Identifier: Apache-2.0
// What the driver answers to odd questions: `answers NAME` prints results, pointers and texts and judges nothing.
#include <cuda.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#define NAME_(x) #x
#define NAME(x) NAME_(x)
#define D(function) ((decltype(&function))symbol(NAME(function)))

static sigjmp_buf back;

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
static void fault(int) { siglongjmp(back, 1); }

/* The result of a call, or that it did not survive its arguments. */
#define R(call)                                            \
    do {                                                   \
        if (sigsetjmp(back, 1))                            \
            printf("%s: fault\n", #call);                  \
        else                                               \
            printf("%s: %d\n", #call, (int)(call));        \
    } while (0)

static CUcontext context;
static CUdevice device;

static void begin()
{
    if (D(cuInit)(0) || D(cuDeviceGet)(&device, 0) || D(cuDevicePrimaryCtxRetain)(&context, device) ||
        D(cuCtxSetCurrent)(context))
        exit(1);
}

/* ---- names ---- */
static std::string asked(const char *name, int version, unsigned long long flags)
{
    void *pfn = (void *)1;
    CUdriverProcAddressQueryResult status = (CUdriverProcAddressQueryResult)77;
    CUresult r = D(cuGetProcAddress)(name, &pfn, version, flags, &status);
    const char *what = pfn == (void *)1 ? "left" : pfn ? "set" : "null";

    return std::to_string((int)r) + " " + what + " " + std::to_string((int)status);
}

/* Standard input: a line of versions, then a line for each name. Each change along the versions is printed. */
static void names()
{
    std::vector<int> versions;
    char line[4096];

    begin();
    if (!fgets(line, sizeof(line), stdin))
        return;
    for (char *word = strtok(line, " \n"); word; word = strtok(nullptr, " \n"))
        versions.push_back(atoi(word));
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = 0;
        for (unsigned long long flags = 0; flags < 3; flags++) {
            std::string before;
            printf("%s %llu:", line, flags);
            for (int v : versions) {
                std::string now = asked(line, v, flags);
                if (now != before)
                    printf(" %d=[%s]", v, now.c_str());
                before = now;
            }
            printf("\n");
        }
    }
}

static void odd_names()
{
    auto v1 = (CUresult(*)(const char *, void **, int, cuuint64_t))symbol("cuGetProcAddress");
    void *pfn = (void *)1;

    begin();
    for (const char *name : { "", "c", "cu", "cuinit", "CUINIT", "cuInit ", " cuInit", "cuInit_v2", "cuMemAlloc_v2",
                              "cuMemcpyHtoD_v2", "cuMemcpyHtoD_ptds", "cuLaunchKernel_ptsz", "cudaMalloc", "malloc",
                              "cuFuncGetParamCount", "cuGetProcAddress", "cuGetProcAddress_v2", "cuGetExportTable" })
        for (int version : { 0, 2000, 12000, 13000 })
            printf("'%s' %d: %s\n", name, version, asked(name, version, 0).c_str());
    for (int version : { INT_MIN, -1, 0, 1, 1999, 2000, 13000, 13001, 13010, 13020, 14000, 19999, 20000, 20001, 99000, INT_MAX })
        printf("cuInit %d: %s\n", version, asked("cuInit", version, 0).c_str());
    for (unsigned long long flags : { 0ull, 1ull, 2ull, 3ull, 4ull, 5ull, 8ull, ~0ull })
        printf("cuLaunchKernel %llx: %s\n", flags, asked("cuLaunchKernel", 12000, flags).c_str());
    R(D(cuGetProcAddress)("cuInit", &pfn, 12000, 0, nullptr));
    R(D(cuGetProcAddress)("cuNothing", &pfn, 12000, 0, nullptr));
    R(v1("cuInit", &pfn, 12000, 0));
    R(v1("cuNothing", &pfn, 12000, 0));
    R(v1("cuLaunchKernelEx", &pfn, 11000, 0));
    R(v1("cuInit", &pfn, 12000, 4));
}

static void texts()
{
    const char *name, *text;

    for (int code = -1; code <= 1001; code++) {
        name = text = "left";
        CUresult a = D(cuGetErrorName)((CUresult)code, &name), b = D(cuGetErrorString)((CUresult)code, &text);
        if (a == CUDA_SUCCESS || b == CUDA_SUCCESS || code < 1 || code > 999)
            printf("%d: %d %s: %d %s\n", code, (int)a, name ? name : "null", (int)b, text ? text : "null");
    }
}

/* ---- attributes and limits ---- */
/* Those that are a vGPU's own: its places on the bus and among NUMA nodes, and what
 * og_attribute_is_absent lists (a test holds them equal). */
static const int OWN[] = { 33, 34, 50, 88, 89, 100, 101, 110, 116, 117, 118, 124, 128, 129, 132, 134, 141, 142, 143, 144, 145, 146, 152 };

static const int OF_POOLS = 119; /* kinds of handles of pools: by descriptor and nothing else */

static bool own(int attribute)
{
    for (int a : OWN)
        if (a == attribute)
            return true;
    return false;
}

static void attributes()
{
    begin();
    for (int a = -1; a < 200; a++) {
        int value = -77;
        CUresult r = D(cuDeviceGetAttribute)(&value, (CUdevice_attribute)a, device);
        printf("attribute %d: %d %d\n", a, (int)r, own(a) ? 0 : a == OF_POOLS ? value & 1 : value);
    }
    R(D(cuDeviceGetAttribute)(nullptr, CU_DEVICE_ATTRIBUTE_WARP_SIZE, device));
    for (int d : { -1, 1, 16, INT_MAX }) {
        int value;
        printf("device %d: %d\n", d, (int)D(cuDeviceGetAttribute)(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, d));
    }
}

static void limits()
{
    begin();
    for (int limit = -1; limit < 14; limit++) {
        size_t value = 77;
        CUresult r = D(cuCtxGetLimit)(&value, (CUlimit)limit);
        printf("limit %d: %d %zu\n", limit, (int)r, value);
    }
    for (int limit = 0; limit < 12; limit++)
        for (size_t wanted : { (size_t)0, (size_t)1, (size_t)3000, (size_t)(1 << 20), (size_t)1 << 50, ~(size_t)0 }) {
            size_t value = 77;
            if ((limit == CU_LIMIT_PRINTF_FIFO_SIZE || limit == CU_LIMIT_MALLOC_HEAP_SIZE) && wanted > (size_t)1 << 40)
                continue; /* natively these become some other figure; a vGPU has not so much memory */
            CUresult r = D(cuCtxSetLimit)((CUlimit)limit, wanted);
            if (D(cuCtxGetLimit)(&value, (CUlimit)limit) != CUDA_SUCCESS)
                value = 77;
            printf("set %d to %zu: %d, then %zu\n", limit, wanted, (int)r, value);
        }
    R(D(cuCtxSetLimit)((CUlimit)99, 1));
    R(D(cuCtxGetLimit)(nullptr, CU_LIMIT_STACK_SIZE));
}

/* ---- arguments that cannot be ---- */
static void without_init()
{
    int i;
    size_t n;
    CUcontext c;
    CUdeviceptr p;

    R(D(cuDriverGetVersion)(&i));
    R(D(cuDriverGetVersion)(nullptr));
    R(D(cuDeviceGetCount)(&i));
    R(D(cuDeviceGetCount)(nullptr));
    R(D(cuDeviceGet)(&i, 0));
    R(D(cuDeviceGetAttribute)(&i, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 0));
    R(D(cuCtxGetCurrent)(&c));
    R(D(cuCtxSetCurrent)(nullptr));
    R(D(cuCtxSynchronize)());
    R(D(cuDevicePrimaryCtxRetain)(&c, 0));
    R(D(cuMemAlloc)(&p, 64));
    R(D(cuMemAlloc)(nullptr, 0));
    R(D(cuMemGetInfo)(&n, &n));
    R(D(cuStreamQuery)(nullptr));
    R(D(cuInit)(1));
    R(D(cuInit)(0));
    R(D(cuInit)(0));
}

static void without_context()
{
    int i;
    size_t n;
    void *h;
    CUcontext c;
    CUdevice d;
    CUdeviceptr p;
    CUstream s;
    CUevent e;
    CUmodule m;
    unsigned u;

    D(cuInit)(0);
    R(D(cuCtxGetCurrent)(&c));
    R(D(cuCtxSetCurrent)(nullptr));
    R(D(cuCtxGetDevice)(&d));
    R(D(cuCtxGetFlags)(&u));
    R(D(cuCtxSynchronize)());
    R(D(cuCtxPopCurrent)(&c));
    R(D(cuCtxPushCurrent)(nullptr));
    R(D(cuCtxDestroy)(nullptr));
    R(D(cuCtxGetLimit)(&n, CU_LIMIT_STACK_SIZE));
    R(D(cuCtxGetApiVersion)(nullptr, &u));
    R(D(cuMemAlloc)(&p, 64));
    R(D(cuMemFree)(0));
    R(D(cuMemGetInfo)(&n, &n));
    R(D(cuMemHostAlloc)(&h, 64, 0));
    R(D(cuMemsetD8)(0, 0, 0));
    R(D(cuStreamCreate)(&s, 0));
    R(D(cuStreamSynchronize)(nullptr));
    R(D(cuEventCreate)(&e, 0));
    R(D(cuModuleLoadData)(&m, "x"));
    R(D(cuDevicePrimaryCtxRelease)(0));
    R(D(cuDevicePrimaryCtxReset)(0));
    R(D(cuDevicePrimaryCtxGetState)(0, &u, &i));
    R(D(cuFuncGetAttribute)(&i, CU_FUNC_ATTRIBUTE_NUM_REGS, nullptr));
}


static void wrong_devices()
{
    char name[8];
    int i;
    unsigned u;
    size_t n;
    CUuuid id;
    CUcontext c;
    CUdevice d;

    begin();
    R(D(cuDeviceGet)(&d, -1));
    R(D(cuDeviceGet)(&d, 1000));
    R(D(cuDeviceGet)(nullptr, 0));
    R(D(cuDeviceGetCount)(nullptr));
    R(D(cuDeviceGetName)(name, sizeof(name), 0));
    R(D(cuDeviceGetName)(nullptr, 8, 0));
    R(D(cuDeviceGetName)(name, sizeof(name), 1000));
    R(D(cuDeviceGetUuid)(nullptr, 0));
    R(D(cuDeviceGetUuid)(&id, 1000));
    R(D(cuDeviceTotalMem)(nullptr, 0));
    R(D(cuDeviceTotalMem)(&n, 1000));
    R(D(cuDeviceGetPCIBusId)(name, 0, 0));
    R(D(cuDeviceGetPCIBusId)(nullptr, 16, 0));
    R(D(cuDeviceGetPCIBusId)(name, 8, 1000));
    R(D(cuDeviceGetByPCIBusId)(&d, nullptr));
    R(D(cuDeviceGetByPCIBusId)(&d, "nonsense"));
    R(D(cuDeviceGetByPCIBusId)(nullptr, "0000:00:00.0"));
    R(D(cuDeviceGetByPCIBusId)(&d, "ffff:ff:ff.0"));
    R(D(cuDeviceCanAccessPeer)(&i, 0, 1000));
    R(D(cuDeviceCanAccessPeer)(nullptr, 0, 0));
    R(D(cuDeviceCanAccessPeer)(&i, 0, 0));
    R(D(cuDeviceGetP2PAttribute)(&i, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0, 1000));
    R(D(cuDeviceGetP2PAttribute)(&i, (CUdevice_P2PAttribute)99, 0, 0));
    R(D(cuDeviceGetP2PAttribute)(&i, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0, 0));
    R(D(cuDeviceGetExecAffinitySupport)(&i, CU_EXEC_AFFINITY_TYPE_SM_COUNT, 0));
    R(D(cuDeviceGetExecAffinitySupport)(&i, (CUexecAffinityType)9, 0));
    R(D(cuDeviceGetExecAffinitySupport)(nullptr, CU_EXEC_AFFINITY_TYPE_SM_COUNT, 0));
    R(D(cuDevicePrimaryCtxRetain)(nullptr, 0));
    R(D(cuDevicePrimaryCtxRetain)(&c, 1000));
    R(D(cuDevicePrimaryCtxRelease)(1000));
    R(D(cuDevicePrimaryCtxSetFlags)(0, 0x1000));
    R(D(cuDevicePrimaryCtxSetFlags)(0, 3));
    R(D(cuDevicePrimaryCtxSetFlags)(1000, 0));
    R(D(cuDevicePrimaryCtxGetState)(0, nullptr, &i));
    R(D(cuDevicePrimaryCtxGetState)(0, &u, nullptr));
    R(D(cuDevicePrimaryCtxGetState)(1000, &u, &i));
}

static void wrong_contexts()
{
    int i;
    unsigned u;
    unsigned long long id;
    CUcontext c;
    CUdevice d;
    CUexecAffinityParam affinity = {};
    CUctxCreateParams params = { &affinity, 1, nullptr };
    CUfunc_cache cache;
    CUsharedconfig config;

    begin();
    affinity.param.smCount.val = 2;
    R(D(cuCtxCreate)(nullptr, nullptr, 0, 0));
    R(D(cuCtxCreate)(&c, nullptr, 0, 1000));
    R(D(cuCtxCreate)(&c, nullptr, 0x8000, 0));
    R(D(cuCtxCreate)(&c, nullptr, 3, 0));
    R(D(cuCtxCreate)(&c, &params, 0, 0));
    params.execAffinityParams = nullptr;
    R(D(cuCtxCreate)(&c, &params, 0, 0));
    params.numExecAffinityParams = -1;
    R(D(cuCtxCreate)(&c, &params, 0, 0));
    R(D(cuCtxDestroy)(nullptr));
    R(D(cuCtxDestroy)(context));
    R(D(cuCtxGetCurrent)(nullptr));
    R(D(cuCtxGetDevice)(nullptr));
    R(D(cuCtxGetFlags)(nullptr));
    R(D(cuCtxSetFlags)(0x8000));
    R(D(cuCtxGetId)(context, nullptr));
    R(D(cuCtxGetId)(nullptr, &id));
    R(D(cuCtxGetApiVersion)(context, nullptr));
    R(D(cuCtxGetApiVersion)(nullptr, &u));
    R(D(cuCtxPushCurrent)(nullptr));
    R(D(cuCtxGetCacheConfig)(nullptr));
    R(D(cuCtxGetCacheConfig)(&cache));
    R(D(cuCtxSetCacheConfig)((CUfunc_cache)9));
    R(D(cuCtxGetSharedMemConfig)(nullptr));
    R(D(cuCtxGetSharedMemConfig)(&config));
    R(D(cuCtxSetSharedMemConfig)((CUsharedconfig)9));
    R(D(cuCtxGetStreamPriorityRange)(nullptr, nullptr));
    R(D(cuCtxGetStreamPriorityRange)(&i, nullptr));
    R(D(cuCtxGetExecAffinity)(nullptr, CU_EXEC_AFFINITY_TYPE_SM_COUNT));
    R(D(cuCtxGetExecAffinity)(&affinity, (CUexecAffinityType)9));
    R(D(cuCtxEnablePeerAccess)(nullptr, 0));
    R(D(cuCtxEnablePeerAccess)(context, 0));
    R(D(cuCtxEnablePeerAccess)(context, 1));
    R(D(cuCtxDisablePeerAccess)(nullptr));
    R(D(cuCtxDisablePeerAccess)(context));
    R(D(cuCtxPopCurrent)(nullptr));
    R(D(cuCtxPopCurrent)(&c));
    R(D(cuCtxSetCurrent)(context));
    R(D(cuCtxGetDevice)(&d));
    R(D(cuDevicePrimaryCtxRelease)(0));
    R(D(cuDevicePrimaryCtxRelease)(0));
    R(D(cuCtxGetDevice)(&d));
    R(D(cuCtxSynchronize)());
    R(D(cuCtxGetApiVersion)(context, &u));
    R(D(cuCtxGetFlags)(&u));
}

static void wrong_streams()
{
    int i;
    unsigned u;
    float ms;
    unsigned long long id;
    CUstream s;
    CUevent a, b;
    CUcontext c;

    begin();
    R(D(cuStreamCreate)(nullptr, 0));
    R(D(cuStreamCreate)(&s, 2));
    R(D(cuStreamCreateWithPriority)(&s, 8, 0));
    R(D(cuStreamCreateWithPriority)(nullptr, 0, 0));
    R(D(cuStreamCreateWithPriority)(&s, 0, 1000));
    R(D(cuStreamGetPriority)(s, &i));
    R(D(cuStreamGetPriority)(s, nullptr));
    R(D(cuStreamGetFlags)(s, nullptr));
    R(D(cuStreamGetFlags)(nullptr, &u));
    R(D(cuStreamGetId)(nullptr, &id));
    R(D(cuStreamGetId)(s, nullptr));
    R(D(cuStreamGetCtx)(s, &c));
    R(D(cuStreamWaitEvent)(s, nullptr, 0));
    R(D(cuStreamDestroy)(nullptr));
    R(D(cuEventCreate)(nullptr, 0));
    R(D(cuEventCreate)(&a, 8));
    R(D(cuEventCreate)(&a, CU_EVENT_INTERPROCESS));
    R(D(cuEventCreate)(&a, CU_EVENT_DISABLE_TIMING));
    R(D(cuEventCreate)(&b, 0));
    R(D(cuEventQuery)(a));
    R(D(cuEventSynchronize)(a));
    R(D(cuStreamWaitEvent)(s, a, 0));
    R(D(cuStreamWaitEvent)(s, a, 2));
    R(D(cuEventElapsedTime)(&ms, a, b));
    R(D(cuEventRecord)(a, s));
    R(D(cuEventRecord)(b, s));
    R(D(cuStreamSynchronize)(s));
    R(D(cuEventElapsedTime)(&ms, a, b));
    R(D(cuEventElapsedTime)(&ms, nullptr, b));
    R(D(cuEventElapsedTime)(&ms, b, b));
    R(D(cuEventRecordWithFlags)(b, s, 4));
    R(D(cuEventRecord)(nullptr, s));
    R(D(cuEventQuery)(nullptr));
    R(D(cuEventSynchronize)(nullptr));
    R(D(cuEventDestroy)(nullptr));
    R(D(cuLaunchHostFunc)(s, nullptr, nullptr));
    R(D(cuStreamAddCallback)(s, nullptr, nullptr, 0));
    R(D(cuStreamEndCapture)(s, nullptr));
    R(D(cuEventDestroy)(a));
    R(D(cuEventDestroy)(b));
    R(D(cuStreamDestroy)(s));
}

static void wrong_memory()
{
    char host[64];
    void *h;
    unsigned u;
    size_t n, pitch;
    CUdeviceptr p, q;
    CUmodule m;
    CUfunction f;

    begin();
    R(D(cuMemAlloc)(nullptr, 64));
    R(D(cuMemAlloc)(&p, 0));
    R(D(cuMemAlloc)(&p, (size_t)1 << 50));
    R(D(cuMemAlloc)(&p, ~(size_t)0));
    R(D(cuMemAlloc)(&p, 4096));
    R(D(cuMemFree)(0));
    R(D(cuMemFree)(1));
    R(D(cuMemFree)(p + 256));
    R(D(cuMemGetInfo)(nullptr, &n));
    R(D(cuMemGetInfo)(&n, nullptr));
    R(D(cuMemAllocPitch)(&q, &pitch, 100, 4, 3));
    R(D(cuMemAllocPitch)(&q, nullptr, 100, 4, 4));
    R(D(cuMemAllocPitch)(&q, &pitch, 0, 4, 4));
    R(D(cuMemAllocPitch)(nullptr, &pitch, 100, 4, 4));
    R(D(cuMemGetAddressRange)(nullptr, nullptr, p));
    R(D(cuMemGetAddressRange)(&q, &n, 0));
    R(D(cuMemHostAlloc)(nullptr, 64, 0));
    R(D(cuMemHostAlloc)(&h, 0, 0));
    R(D(cuMemHostAlloc)(&h, 64, 0x80));
    R(D(cuMemHostAlloc)(&h, 64, 0));
    R(D(cuMemHostGetDevicePointer)(nullptr, h, 0));
    R(D(cuMemHostGetDevicePointer)(&q, h, 1));
    R(D(cuMemHostGetDevicePointer)(&q, host, 0));
    R(D(cuMemHostGetFlags)(nullptr, h));
    R(D(cuMemHostGetFlags)(&u, host));
    R(D(cuMemFreeHost)(host));
    R(D(cuMemFreeHost)(nullptr));
    R(D(cuMemFreeHost)(h));
    R(D(cuMemHostUnregister)(host));
    R(D(cuMemHostRegister)(nullptr, 64, 0));
    R(D(cuMemHostRegister)(host, 0, 0));
    R(D(cuMemHostRegister)(host, 64, 0x80));
    R(D(cuMemAllocManaged)(nullptr, 64, CU_MEM_ATTACH_GLOBAL));
    R(D(cuMemAllocManaged)(&q, 0, CU_MEM_ATTACH_GLOBAL));
    R(D(cuMemAllocManaged)(&q, 64, 0));
    R(D(cuMemAllocManaged)(&q, 64, 4));
    R(D(cuMemcpyHtoD)(p, nullptr, 64));
    R(D(cuMemcpyHtoD)(0, host, 64));
    R(D(cuMemcpyHtoD)(p, host, 0));
    R(D(cuMemcpyHtoD)(0, host, 0));
    R(D(cuMemcpyDtoH)(nullptr, p, 64));
    R(D(cuMemcpyDtoH)(host, 0, 64));
    R(D(cuMemcpyDtoD)(p, 0, 64));
    R(D(cuMemsetD8)(0, 0, 64));
    R(D(cuMemsetD8)(p, 0, 0));
    R(D(cuMemsetD16)(p + 1, 0, 4));
    R(D(cuMemsetD32)(p + 2, 0, 4));
    R(D(cuMemsetD2D8)(p, 4, 0, 8, 2));
    R(D(cuPointerGetAttribute)(nullptr, CU_POINTER_ATTRIBUTE_CONTEXT, p));
    R(D(cuPointerGetAttribute)(&n, (CUpointer_attribute)99, p));
    R(D(cuPointerGetAttribute)(&n, CU_POINTER_ATTRIBUTE_CONTEXT, 0));
    R(D(cuModuleLoadData)(nullptr, "x"));
    R(D(cuModuleLoadData)(&m, nullptr));
    R(D(cuModuleLoadData)(&m, "nonsense"));
    R(D(cuModuleLoadData)(&m, ""));
    R(D(cuModuleLoad)(&m, "/none/there"));
    R(D(cuModuleLoad)(&m, nullptr));
    R(D(cuModuleUnload)(nullptr));
    R(D(cuModuleGetFunction)(&f, nullptr, "x"));
    R(D(cuLaunchKernel)(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
    R(D(cuMemFree)(p));
    R(D(cuMemFree)(p));
}

static const struct {
    const char *name;
    void (*body)();
} bodies[] = {
    { "names", names }, { "odd_names", odd_names }, { "texts", texts }, { "attributes", attributes },
    { "limits", limits }, { "without_init", without_init }, { "without_context", without_context },
    { "wrong_devices", wrong_devices }, { "wrong_contexts", wrong_contexts }, { "wrong_streams", wrong_streams },
    { "wrong_memory", wrong_memory },
};

int main(int argc, char **argv)
{
    setvbuf(stdout, nullptr, _IOLBF, 1 << 16); /* what is printed is seen, however the program ends */
    signal(SIGSEGV, fault);
    for (const auto &b : bodies) {
        if (argc < 2) {
            printf("%s\n", b.name);
        } else if (!strcmp(argv[1], b.name)) {
            b.body();
            return 0;
        }
    }
    return argc < 2 ? 0 : 2;
}
