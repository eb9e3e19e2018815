# SPDX-License-Identifier: Apache-2.0
"""The C types of the driver's ABI that the spec's prototypes use, as data."""

from __future__ import annotations

from .schema import Type

#: Handle kinds; the number is the position + 1 and never changes (append only).
KINDS = (
    "CONTEXT", "MODULE", "LIBRARY", "FUNCTION", "KERNEL", "STREAM", "EVENT", "GRAPH", "GRAPH_NODE", "GRAPH_EXEC",
    "MEMPOOL", "ARRAY", "MIPMAPPED_ARRAY", "MEM_ALLOCATION", "USER_OBJECT", "LINK", "TEXREF", "SURFREF",
    "GREEN_CONTEXT", "RESOURCE_DESC",
)  # fmt: skip

# ---- numbers ----
INT = Type("int", "i32")
UINT = Type("unsigned int", "u32")
UCHAR = Type("unsigned char", "u8")
USHORT = Type("unsigned short", "u16")
ULONGLONG = Type("unsigned long long", "u64")
SIZE = Type("size_t", "u64")
FLOAT = Type("float", "f32")
U32 = Type("cuuint32_t", "u32", body="typedef uint32_t cuuint32_t;")
U64 = Type("cuuint64_t", "u64", body="typedef uint64_t cuuint64_t;")
CHAR = Type("char", "i8")
#: For internal operations, whose fields follow layout.h's spelling.
WU32 = Type("uint32_t", "u32")
WI32 = Type("int32_t", "i32")
WU64 = Type("uint64_t", "u64")
BYTE = Type("uint8_t", "u8")

RESULT = Type("CUresult", "u32")
DEVICE = Type("CUdevice", "i32", body="typedef int CUdevice;")
DEVPTR = Type("CUdeviceptr", "u64", body="typedef unsigned long long CUdeviceptr;")

# ---- pointers of the guest, for functions that the client answers ----
PTR = Type("void *", "u64")
CPTR = Type("const void *", "u64")
CSTR = Type("const char *", "u64")
CHARPTR = Type("char *", "u64")
PTRPTR = Type("void **", "u64")

# ---- handles ----
CONTEXT = Type("CUcontext", "u64", "CONTEXT", "CUDA_ERROR_INVALID_CONTEXT", "typedef struct CUctx_st *CUcontext;")
MODULE = Type("CUmodule", "u64", "MODULE", body="typedef struct CUmod_st *CUmodule;")
LIBRARY = Type("CUlibrary", "u64", "LIBRARY", body="typedef struct CUlib_st *CUlibrary;")
FUNCTION = Type("CUfunction", "u64", "FUNCTION", body="typedef struct CUfunc_st *CUfunction;")
KERNEL = Type("CUkernel", "u64", "KERNEL", body="typedef struct CUkern_st *CUkernel;")
STREAM = Type("CUstream", "u64", "STREAM", body="typedef struct CUstream_st *CUstream;")
GREEN_CTX = Type(
    "CUgreenCtx", "u64", "GREEN_CONTEXT", "CUDA_ERROR_INVALID_CONTEXT", "typedef struct CUgreenCtx_st *CUgreenCtx;"
)
DEV_RESOURCE_DESC = Type(
    "CUdevResourceDesc",
    "u64",
    "RESOURCE_DESC",
    "CUDA_ERROR_INVALID_VALUE",
    "typedef struct CUdevResourceDesc_st *CUdevResourceDesc;",
)
EVENT = Type("CUevent", "u64", "EVENT", body="typedef struct CUevent_st *CUevent;")
GRAPH = Type("CUgraph", "u64", "GRAPH", "CUDA_ERROR_INVALID_VALUE", "typedef struct CUgraph_st *CUgraph;")
GRAPH_NODE = Type(
    "CUgraphNode", "u64", "GRAPH_NODE", "CUDA_ERROR_INVALID_VALUE", "typedef struct CUgraphNode_st *CUgraphNode;"
)
GRAPH_EXEC = Type(
    "CUgraphExec", "u64", "GRAPH_EXEC", "CUDA_ERROR_INVALID_VALUE", "typedef struct CUgraphExec_st *CUgraphExec;"
)
MEMPOOL = Type(
    "CUmemoryPool", "u64", "MEMPOOL", "CUDA_ERROR_INVALID_VALUE", "typedef struct CUmemPoolHandle_st *CUmemoryPool;"
)
ARRAY = Type("CUarray", "u64", "ARRAY", body="typedef struct CUarray_st *CUarray;")
MIPMAPPED_ARRAY = Type(
    "CUmipmappedArray", "u64", "MIPMAPPED_ARRAY", body="typedef struct CUmipmappedArray_st *CUmipmappedArray;"
)
MEM_ALLOCATION = Type(
    "CUmemGenericAllocationHandle",
    "u64",
    "MEM_ALLOCATION",
    "CUDA_ERROR_INVALID_VALUE",
    "typedef unsigned long long CUmemGenericAllocationHandle;",
)
USER_OBJECT = Type("CUuserObject", "u64", "USER_OBJECT", body="typedef struct CUuserObject_st *CUuserObject;")
LINK = Type("CUlinkState", "u64", "LINK", body="typedef struct CUlinkState_st *CUlinkState;")
TEXREF = Type("CUtexref", "u64", "TEXREF", body="typedef struct CUtexref_st *CUtexref;")
SURFREF = Type("CUsurfref", "u64", "SURFREF", body="typedef struct CUsurfref_st *CUsurfref;")

# ---- values of the driver's own: they travel inside kernel parameters ----
TEX_OBJECT = Type("CUtexObject", "u64", body="typedef unsigned long long CUtexObject;")
SURF_OBJECT = Type("CUsurfObject", "u64", body="typedef unsigned long long CUsurfObject;")

# ---- enumerations: 32 bits, values in constants.py ----
ARRAY_FORMAT = Type("CUarray_format", "u32", body="typedef unsigned int CUarray_format;")
ADDRESS_MODE = Type("CUaddress_mode", "u32", body="typedef unsigned int CUaddress_mode;")
FILTER_MODE = Type("CUfilter_mode", "u32", body="typedef unsigned int CUfilter_mode;")
CAPTURE_MODE = Type("CUstreamCaptureMode", "u32", body="typedef unsigned int CUstreamCaptureMode;")
CAPTURE_STATUS = Type("CUstreamCaptureStatus", "u32", body="typedef unsigned int CUstreamCaptureStatus;")
DEVICE_ATTRIBUTE = Type("CUdevice_attribute", "u32", body="typedef unsigned int CUdevice_attribute;")
EXEC_AFFINITY_TYPE = Type("CUexecAffinityType", "u32", body="typedef unsigned int CUexecAffinityType;")
FUNCTION_ATTRIBUTE = Type("CUfunction_attribute", "u32", body="typedef unsigned int CUfunction_attribute;")
FUNC_CACHE = Type("CUfunc_cache", "u32", body="typedef unsigned int CUfunc_cache;")
SHARED_CONFIG = Type("CUsharedconfig", "u32", body="typedef unsigned int CUsharedconfig;")
GRAPH_NODE_TYPE = Type("CUgraphNodeType", "u32", body="typedef unsigned int CUgraphNodeType;")
GRAPH_UPDATE_RESULT = Type("CUgraphExecUpdateResult", "u32", body="typedef unsigned int CUgraphExecUpdateResult;")
JIT_OPTION = Type("CUjit_option", "u32", body="typedef unsigned int CUjit_option;")
LIBRARY_OPTION = Type("CUlibraryOption", "u32", body="typedef unsigned int CUlibraryOption;")
LIMIT = Type("CUlimit", "u32", body="typedef unsigned int CUlimit;")
LOADING_MODE = Type("CUmoduleLoadingMode", "u32", body="typedef unsigned int CUmoduleLoadingMode;")
FUNC_LOADING = Type("CUfunctionLoadingState", "u32", body="typedef unsigned int CUfunctionLoadingState;")
GRANULARITY = Type(
    "CUmemAllocationGranularity_flags", "u32", body="typedef unsigned int CUmemAllocationGranularity_flags;"
)
ACCESS_FLAGS = Type("CUmemAccess_flags", "u32", body="typedef unsigned int CUmemAccess_flags;")
POOL_ATTRIBUTE = Type("CUmemPool_attribute", "u32", body="typedef unsigned int CUmemPool_attribute;")
GRAPH_MEM_ATTRIBUTE = Type("CUgraphMem_attribute", "u32", body="typedef unsigned int CUgraphMem_attribute;")
POINTER_ATTRIBUTE = Type("CUpointer_attribute", "u32", body="typedef unsigned int CUpointer_attribute;")
P2P_ATTRIBUTE = Type("CUdevice_P2PAttribute", "u32", body="typedef unsigned int CUdevice_P2PAttribute;")
PROC_QUERY = Type("CUdriverProcAddressQueryResult", "u32", body="typedef unsigned int CUdriverProcAddressQueryResult;")
MEM_ADVISE = Type("CUmem_advise", "u32", body="typedef unsigned int CUmem_advise;")
MEMORY_TYPE = Type("CUmemorytype", "u32", body="typedef unsigned int CUmemorytype;")
MEM_LOCATION_TYPE = Type("CUmemLocationType", "u32", body="typedef unsigned int CUmemLocationType;")
ALLOCATION_TYPE = Type("CUmemAllocationType", "u32", body="typedef unsigned int CUmemAllocationType;")
ALLOCATION_HANDLE_TYPE = Type(
    "CUmemAllocationHandleType", "u32", body="typedef unsigned int CUmemAllocationHandleType;"
)
LAUNCH_ATTRIBUTE_ID = Type("CUlaunchAttributeID", "u32", body="typedef unsigned int CUlaunchAttributeID;")
STREAM_ATTRIBUTE_ID = Type("CUstreamAttrID", "u32", body="typedef CUlaunchAttributeID CUstreamAttrID;")
KERNEL_ATTRIBUTE_ID = Type("CUkernelNodeAttrID", "u32", body="typedef CUlaunchAttributeID CUkernelNodeAttrID;")
TENSOR_TYPE = Type("CUtensorMapDataType", "u32", body="typedef unsigned int CUtensorMapDataType;")
TENSOR_INTERLEAVE = Type("CUtensorMapInterleave", "u32", body="typedef unsigned int CUtensorMapInterleave;")
TENSOR_SWIZZLE = Type("CUtensorMapSwizzle", "u32", body="typedef unsigned int CUtensorMapSwizzle;")
TENSOR_L2 = Type("CUtensorMapL2promotion", "u32", body="typedef unsigned int CUtensorMapL2promotion;")
TENSOR_WIDE = Type("CUtensorMapIm2ColWideMode", "u32", body="typedef unsigned int CUtensorMapIm2ColWideMode;")
TENSOR_CLASS = Type("CUtensorMapAllocClass", "u32", body="typedef unsigned int CUtensorMapAllocClass;")
TENSOR_FILL = Type("CUtensorMapFloatOOBfill", "u32", body="typedef unsigned int CUtensorMapFloatOOBfill;")
INSTANTIATE_RESULT = Type("CUgraphInstantiateResult", "u32", body="typedef unsigned int CUgraphInstantiateResult;")
OCCUPANCY_FLAGS = Type("CUoccupancy_flags", "u32", body="typedef unsigned int CUoccupancy_flags;")
JIT_INPUT = Type("CUjitInputType", "u32", body="typedef unsigned int CUjitInputType;")
DEV_RESOURCE_TYPE = Type("CUdevResourceType", "u32", body="typedef unsigned int CUdevResourceType;")
MEM_RANGE_ATTRIBUTE = Type("CUmem_range_attribute", "u32", body="typedef unsigned int CUmem_range_attribute;")
ATOMIC_OPERATION = Type("CUatomicOperation", "u32", body="typedef unsigned int CUatomicOperation;")
LOG_ITERATOR = Type("CUlogIterator", "u32", body="typedef unsigned int CUlogIterator;")

# ---- functions that the application gives ----
HOST_FN = Type("CUhostFn", "u64", body="typedef void (*CUhostFn)(void *userData);")
STREAM_CALLBACK = Type(
    "CUstreamCallback",
    "u64",
    body="typedef void (*CUstreamCallback)(CUstream hStream, CUresult status, void *userData);",
)
ASYNC_CALLBACK = Type(
    "CUasyncCallback",
    "u64",
    body="""typedef struct CUasyncCallbackEntry_st *CUasyncCallbackHandle;
typedef struct CUasyncNotificationInfo_st CUasyncNotificationInfo;
typedef void (*CUasyncCallback)(CUasyncNotificationInfo *info, void *userData, CUasyncCallbackHandle callback);""",
)
ASYNC_HANDLE = Type("CUasyncCallbackHandle", "u64")
LOGS_CALLBACK = Type(
    "CUlogsCallback",
    "u64",
    body="""typedef unsigned int CUlogLevel;
typedef struct CUlogsCallbackEntry_st *CUlogsCallbackHandle;
typedef void (*CUlogsCallback)(void *data, CUlogLevel logLevel, char *message, size_t length);""",
)
LOGS_HANDLE = Type("CUlogsCallbackHandle", "u64")
BLOCK_TO_SMEM = Type(
    "CUoccupancyB2DSize", "u64", body="typedef size_t (*CUoccupancyB2DSize)(int blockSize);"
)

# ---- structs ----
UUID = Type("CUuuid", "bytes", body="typedef struct CUuuid_st { char bytes[16]; } CUuuid;")
DEVPROP = Type(
    "CUdevprop",
    "bytes",
    body="""typedef struct CUdevprop_st {
    int maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3], sharedMemPerBlock, totalConstantMemory;
    int SIMDWidth, memPitch, regsPerBlock, clockRate, textureAlign;
} CUdevprop;""",
)
EXEC_AFFINITY = Type(
    "CUexecAffinityParam",
    "bytes",
    body="""typedef struct CUexecAffinityParam_st {
    CUexecAffinityType type;
    union { struct { unsigned int val; } smCount; } param;
} CUexecAffinityParam;""",
)
CTX_CREATE_PARAMS = Type(
    "CUctxCreateParams",
    "bytes",
    body="""typedef struct CUctxCreateParams_st {
    CUexecAffinityParam *execAffinityParams;
    int numExecAffinityParams;
    void *cigParams;
} CUctxCreateParams;""",
)
MEM_LOCATION = Type(
    "CUmemLocation",
    "bytes",
    body="typedef struct CUmemLocation_st { CUmemLocationType type; int id; } CUmemLocation;",
)
MEM_PROP = Type(
    "CUmemAllocationProp",
    "bytes",
    body="""typedef struct CUmemAllocationProp_st {
    CUmemAllocationType type;
    CUmemAllocationHandleType requestedHandleTypes;
    CUmemLocation location;
    void *win32HandleMetaData;
    struct {
        unsigned char compressionType;
        unsigned char gpuDirectRDMACapable;
        unsigned short usage;
        unsigned char reserved[4];
    } allocFlags;
} CUmemAllocationProp;""",
)
MEM_ACCESS = Type(
    "CUmemAccessDesc",
    "bytes",
    body="typedef struct CUmemAccessDesc_st { CUmemLocation location; CUmemAccess_flags flags; } CUmemAccessDesc;",
)
POOL_PROPS = Type(
    "CUmemPoolProps",
    "bytes",
    body="""typedef struct CUmemPoolProps_st {
    CUmemAllocationType allocType;
    CUmemAllocationHandleType handleTypes;
    CUmemLocation location;
    void *win32SecurityAttributes;
    size_t maxSize;
    unsigned short usage;
    unsigned char reserved[54];
} CUmemPoolProps;""",
)
IPC_MEMORY = Type(
    "CUipcMemHandle", "bytes", body="typedef struct CUipcMemHandle_st { char reserved[64]; } CUipcMemHandle;"
)
IPC_EVENT = Type(
    "CUipcEventHandle", "bytes", body="typedef struct CUipcEventHandle_st { char reserved[64]; } CUipcEventHandle;"
)
POOL_POINTER = Type(
    "CUmemPoolPtrExportData",
    "bytes",
    body="typedef struct CUmemPoolPtrExportData_st { unsigned char reserved[64]; } CUmemPoolPtrExportData;",
)
from .array_types import *  # noqa: E402, F403 (here, because C needs the types above first)
LAUNCH_ATTRIBUTE = Type(
    "CUlaunchAttribute",
    "bytes",
    body="""typedef union CUlaunchAttributeValue_union {
    char pad[64];
    struct { void *base_ptr; size_t num_bytes; float hitRatio; unsigned int hitProp, missProp; } accessPolicyWindow;
    int cooperative;
    unsigned int syncPolicy;
    struct { unsigned int x, y, z; } clusterDim;
    unsigned int clusterSchedulingPolicyPreference;
    int programmaticStreamSerializationAllowed;
    struct { CUevent event; int flags; int triggerAtBlockStart; } programmaticEvent;
    struct { CUevent event; int flags; } launchCompletionEvent;
    int priority;
    struct { unsigned char default_, remote; } memSyncDomainMap;
    unsigned int memSyncDomain;
    struct { unsigned int x, y, z; } preferredClusterDim;
    struct { int deviceUpdatable; void *devNode; } deviceUpdatableKernelNode;
    unsigned int sharedMemCarveout;
} CUlaunchAttributeValue;
typedef struct CUlaunchAttribute_st {
    CUlaunchAttributeID id;
    char pad[8 - sizeof(CUlaunchAttributeID)];
    CUlaunchAttributeValue value;
} CUlaunchAttribute;
typedef CUlaunchAttributeValue CUstreamAttrValue;
typedef CUlaunchAttributeValue CUkernelNodeAttrValue;""",
)
STREAM_ATTRIBUTE = Type("CUstreamAttrValue", "bytes")
KERNEL_ATTRIBUTE = Type("CUkernelNodeAttrValue", "bytes")
STREAM_P2P = None
LAUNCH_CONFIG = Type(
    "CUlaunchConfig",
    "bytes",
    body="""typedef struct CUlaunchConfig_st {
    unsigned int gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
    CUstream hStream;
    CUlaunchAttribute *attrs;
    unsigned int numAttrs;
} CUlaunchConfig;""",
)
KERNEL_NODE_V1 = Type(
    "CUDA_KERNEL_NODE_PARAMS_v1",
    "bytes",
    body="""typedef struct CUDA_KERNEL_NODE_PARAMS_st {
    CUfunction func;
    unsigned int gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
    void **kernelParams, **extra;
} CUDA_KERNEL_NODE_PARAMS_v1;""",
)
KERNEL_NODE = Type(
    "CUDA_KERNEL_NODE_PARAMS",
    "bytes",
    body="""typedef struct CUDA_KERNEL_NODE_PARAMS_v2_st {
    CUfunction func;
    unsigned int gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
    void **kernelParams, **extra;
    CUkernel kern;
    CUcontext ctx;
} CUDA_KERNEL_NODE_PARAMS;""",
)
MEMSET_NODE = Type(
    "CUDA_MEMSET_NODE_PARAMS",
    "bytes",
    body="""typedef struct CUDA_MEMSET_NODE_PARAMS_st {
    CUdeviceptr dst;
    size_t pitch;
    unsigned int value, elementSize;
    size_t width, height;
} CUDA_MEMSET_NODE_PARAMS;""",
)
HOST_NODE = Type(
    "CUDA_HOST_NODE_PARAMS",
    "bytes",
    body="typedef struct CUDA_HOST_NODE_PARAMS_st { CUhostFn fn; void *userData; } CUDA_HOST_NODE_PARAMS;",
)
INSTANTIATE_PARAMS = Type(
    "CUDA_GRAPH_INSTANTIATE_PARAMS",
    "bytes",
    body="""typedef struct CUDA_GRAPH_INSTANTIATE_PARAMS_st {
    cuuint64_t flags;
    CUstream hUploadStream;
    CUgraphNode hErrNode_out;
    CUgraphInstantiateResult result_out;
} CUDA_GRAPH_INSTANTIATE_PARAMS;""",
)
UPDATE_INFO = Type(
    "CUgraphExecUpdateResultInfo",
    "bytes",
    body="""typedef struct CUgraphExecUpdateResultInfo_st {
    CUgraphExecUpdateResult result;
    CUgraphNode errorNode, errorFromNode;
} CUgraphExecUpdateResultInfo;""",
)
DEV_RESOURCE = Type(
    "CUdevResource",
    "bytes",
    body="""typedef struct CUdevResource_st {
    CUdevResourceType type;
    unsigned char _internal_padding[92];
    union {
        struct { unsigned int smCount, minSmPartitionSize, smCoscheduledAlignment, flags, localityDomainId; } sm;
        struct { CUdevice device; unsigned int wqConcurrencyLimit, sharingScope; } wqConfig;
        unsigned char _oversize[40];
    };
    void *reserved;
} CUdevResource;""",
)
MEM_OP = Type(
    "CUstreamBatchMemOpParams",
    "bytes",
    body="""typedef unsigned int CUstreamBatchMemOpType;
typedef union CUstreamBatchMemOpParams_union {
    CUstreamBatchMemOpType operation;
    struct {
        CUstreamBatchMemOpType operation;
        CUdeviceptr address;
        union { cuuint32_t value; cuuint64_t value64; };
        unsigned int flags;
        CUdeviceptr alias;
    } waitValue, writeValue;
    struct { CUstreamBatchMemOpType operation; unsigned int flags; } flushRemoteWrites, memoryBarrier;
    struct {
        CUstreamBatchMemOpType operation;
        unsigned int flags, reductionOp, dataType;
        CUdeviceptr address;
        cuuint64_t value;
        CUdeviceptr alias;
    } atomicReduction;
    cuuint64_t pad[6];
} CUstreamBatchMemOpParams;""",
)
DECOMPRESS = Type(
    "CUmemDecompressParams",
    "bytes",
    body="""typedef struct CUmemDecompressParams_st {
    size_t srcNumBytes, dstNumBytes;
    cuuint32_t *dstActBytes;
    const void *src;
    void *dst;
    unsigned int algo;
    unsigned char padding[20];
} CUmemDecompressParams;""",
)
LAUNCH_PARAMS = Type(
    "CUDA_LAUNCH_PARAMS",
    "bytes",
    body="""typedef struct CUDA_LAUNCH_PARAMS_st {
    CUfunction function;
    unsigned int gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
    CUstream hStream;
    void **kernelParams;
} CUDA_LAUNCH_PARAMS;""",
)
EDGE_DATA = Type(
    "CUgraphEdgeData",
    "bytes",
    body="""typedef struct CUgraphEdgeData_st {
    unsigned char from_port, to_port, type, reserved[5];
} CUgraphEdgeData;""",
)
TENSOR_MAP = Type(
    "CUtensorMap",
    "bytes",
    body="typedef struct CUtensorMap_st { uint64_t opaque[16]; } __attribute__((aligned(64))) CUtensorMap;",
)
ALLOC_NODE = Type(
    "CUDA_MEM_ALLOC_NODE_PARAMS",
    "bytes",
    body="""typedef struct CUDA_MEM_ALLOC_NODE_PARAMS_v1_st {
    CUmemPoolProps poolProps;
    const CUmemAccessDesc *accessDescs;
    size_t accessDescCount, bytesize;
    CUdeviceptr dptr;
} CUDA_MEM_ALLOC_NODE_PARAMS;""",
)
BATCH_NODE = Type(
    "CUDA_BATCH_MEM_OP_NODE_PARAMS",
    "bytes",
    body="""typedef struct CUDA_BATCH_MEM_OP_NODE_PARAMS_v1_st {
    CUcontext ctx;
    unsigned int count;
    CUstreamBatchMemOpParams *paramArray;
    unsigned int flags;
} CUDA_BATCH_MEM_OP_NODE_PARAMS;""",
)
COND_HANDLE = Type("CUgraphConditionalHandle", "u64", body="typedef cuuint64_t CUgraphConditionalHandle;")
COND_NODE = Type(
    "CUDA_CONDITIONAL_NODE_PARAMS",
    "bytes",
    body="""typedef struct CUDA_CONDITIONAL_NODE_PARAMS {
    CUgraphConditionalHandle handle;
    unsigned int type, size;
    CUgraph *phGraph_out;
    CUcontext ctx;
} CUDA_CONDITIONAL_NODE_PARAMS;""",
)
NODE_PARAMS = Type(
    "CUgraphNodeParams",
    "bytes",
    body="""typedef struct CUgraphNodeParams_st {
    CUgraphNodeType type;
    int reserved0[3];
    union {
        long long reserved1[29];
        CUDA_KERNEL_NODE_PARAMS kernel;
        struct { int flags, reserved; CUcontext copyCtx; CUDA_MEMCPY3D copyParams; } memcpy;
        struct { CUDA_MEMSET_NODE_PARAMS params; CUcontext ctx; } memset;
        CUDA_HOST_NODE_PARAMS host;
        struct { CUgraph graph; int ownership; } graph;
        struct { CUevent event; } event;
        CUDA_MEM_ALLOC_NODE_PARAMS alloc;
        struct { CUdeviceptr dptr; } free;
        CUDA_BATCH_MEM_OP_NODE_PARAMS memOp;
        CUDA_CONDITIONAL_NODE_PARAMS conditional;
    };
    long long reserved2;
} CUgraphNodeParams;""",
)
PEDGE_DATA = Type("const CUgraphEdgeData *", "u64")
PGRAPH_NODE = Type("const CUgraphNode *", "u64")
