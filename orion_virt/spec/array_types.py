# SPDX-License-Identifier: Apache-2.0
"""The structs of CUDA arrays, textures and copies, as data; types.py brings them to the spec files."""

from __future__ import annotations

from .schema import Type

ARRAY_DESC = Type(
    "CUDA_ARRAY_DESCRIPTOR",
    "bytes",
    body="""typedef struct CUDA_ARRAY_DESCRIPTOR_st {
    size_t Width, Height;
    CUarray_format Format;
    unsigned int NumChannels;
} CUDA_ARRAY_DESCRIPTOR;""",
)
ARRAY3D_DESC = Type(
    "CUDA_ARRAY3D_DESCRIPTOR",
    "bytes",
    body="""typedef struct CUDA_ARRAY3D_DESCRIPTOR_st {
    size_t Width, Height, Depth;
    CUarray_format Format;
    unsigned int NumChannels, Flags;
} CUDA_ARRAY3D_DESCRIPTOR;""",
)
ARRAY_DESC_V1 = Type(
    "CUDA_ARRAY_DESCRIPTOR_v1",
    "bytes",
    body="""typedef struct CUDA_ARRAY_DESCRIPTOR_v1_st {
    unsigned int Width, Height;
    CUarray_format Format;
    unsigned int NumChannels;
} CUDA_ARRAY_DESCRIPTOR_v1;""",
)
ARRAY3D_DESC_V1 = Type(
    "CUDA_ARRAY3D_DESCRIPTOR_v1",
    "bytes",
    body="""typedef struct CUDA_ARRAY3D_DESCRIPTOR_v1_st {
    unsigned int Width, Height, Depth;
    CUarray_format Format;
    unsigned int NumChannels, Flags;
} CUDA_ARRAY3D_DESCRIPTOR_v1;""",
)
ARRAY_SPARSE = Type(
    "CUDA_ARRAY_SPARSE_PROPERTIES",
    "bytes",
    body="""typedef struct CUDA_ARRAY_SPARSE_PROPERTIES_st {
    struct { unsigned int width, height, depth; } tileExtent;
    unsigned int miptailFirstLevel;
    unsigned long long miptailSize;
    unsigned int flags, reserved[4];
} CUDA_ARRAY_SPARSE_PROPERTIES;""",
)
ARRAY_REQUIREMENTS = Type(
    "CUDA_ARRAY_MEMORY_REQUIREMENTS",
    "bytes",
    body="""typedef struct CUDA_ARRAY_MEMORY_REQUIREMENTS_st {
    size_t size, alignment;
    unsigned int reserved[4];
} CUDA_ARRAY_MEMORY_REQUIREMENTS;""",
)
ARRAY_MAP_INFO = Type(
    "CUarrayMapInfo",
    "bytes",
    body="""typedef struct CUarrayMapInfo_st {
    unsigned int resourceType;
    union { CUmipmappedArray mipmap; CUarray array; } resource;
    unsigned int subresourceType;
    union {
        struct {
            unsigned int level, layer, offsetX, offsetY, offsetZ, extentWidth, extentHeight, extentDepth;
        } sparseLevel;
        struct { unsigned int layer; unsigned long long offset, size; } miptail;
    } subresource;
    unsigned int memOperationType, memHandleType;
    union { CUmemGenericAllocationHandle memHandle; } memHandle;
    unsigned long long offset;
    unsigned int deviceBitMask, flags, reserved[2];
} CUarrayMapInfo;""",
)
RESOURCE_DESC = Type(
    "CUDA_RESOURCE_DESC",
    "bytes",
    body="""typedef struct CUDA_RESOURCE_DESC_st {
    unsigned int resType;
    union {
        struct { CUarray hArray; } array;
        struct { CUmipmappedArray hMipmappedArray; } mipmap;
        struct { CUdeviceptr devPtr; CUarray_format format; unsigned int numChannels; size_t sizeInBytes; } linear;
        struct {
            CUdeviceptr devPtr;
            CUarray_format format;
            unsigned int numChannels;
            size_t width, height, pitchInBytes;
        } pitch2D;
        struct { int reserved[32]; } reserved;
    } res;
    unsigned int flags;
} CUDA_RESOURCE_DESC;""",
)
TEXTURE_DESC = Type(
    "CUDA_TEXTURE_DESC",
    "bytes",
    body="""typedef struct CUDA_TEXTURE_DESC_st {
    CUaddress_mode addressMode[3];
    CUfilter_mode filterMode;
    unsigned int flags, maxAnisotropy;
    CUfilter_mode mipmapFilterMode;
    float mipmapLevelBias, minMipmapLevelClamp, maxMipmapLevelClamp, borderColor[4];
    int reserved[12];
} CUDA_TEXTURE_DESC;""",
)
RESOURCE_VIEW_DESC = Type(
    "CUDA_RESOURCE_VIEW_DESC",
    "bytes",
    body="""typedef struct CUDA_RESOURCE_VIEW_DESC_st {
    unsigned int format;
    size_t width, height, depth;
    unsigned int firstMipmapLevel, lastMipmapLevel, firstLayer, lastLayer, reserved[16];
} CUDA_RESOURCE_VIEW_DESC;""",
)
MEMCPY_ATTRIBUTES = Type(
    "CUmemcpyAttributes",
    "bytes",
    body="""typedef struct CUmemcpyAttributes_st {
    unsigned int srcAccessOrder;
    CUmemLocation srcLocHint, dstLocHint;
    unsigned int flags;
} CUmemcpyAttributes;""",
)
MEMCPY3D_OPERAND = Type(
    "CUmemcpy3DOperand",
    "bytes",
    body="""typedef struct CUmemcpy3DOperand_st {
    unsigned int type;
    union {
        struct { CUdeviceptr ptr; size_t rowLength, layerHeight; CUmemLocation locHint; } ptr;
        struct { CUarray array; struct { size_t x, y, z; } offset; } array;
    } op;
} CUmemcpy3DOperand;""",
)
MEMCPY3D_BATCH_OP = Type(
    "CUDA_MEMCPY3D_BATCH_OP",
    "bytes",
    body="""typedef struct CUDA_MEMCPY3D_BATCH_OP_st {
    CUmemcpy3DOperand src, dst;
    struct { size_t width, height, depth; } extent;
    unsigned int srcAccessOrder, flags;
} CUDA_MEMCPY3D_BATCH_OP;""",
)
PSIZE = Type("size_t *", "u64")
PDEVPTR = Type("CUdeviceptr *", "u64")
PMEMCPY_ATTRIBUTES = Type("CUmemcpyAttributes *", "u64")
PMEMCPY3D_BATCH_OP = Type("CUDA_MEMCPY3D_BATCH_OP *", "u64")
MEMCPY2D = Type(
    "CUDA_MEMCPY2D",
    "bytes",
    body="""typedef struct CUDA_MEMCPY2D_st {
    size_t srcXInBytes, srcY;
    CUmemorytype srcMemoryType;
    const void *srcHost;
    CUdeviceptr srcDevice;
    CUarray srcArray;
    size_t srcPitch, dstXInBytes, dstY;
    CUmemorytype dstMemoryType;
    void *dstHost;
    CUdeviceptr dstDevice;
    CUarray dstArray;
    size_t dstPitch, WidthInBytes, Height;
} CUDA_MEMCPY2D;""",
)
MEMCPY3D = Type(
    "CUDA_MEMCPY3D",
    "bytes",
    body="""typedef struct CUDA_MEMCPY3D_st {
    size_t srcXInBytes, srcY, srcZ, srcLOD;
    CUmemorytype srcMemoryType;
    const void *srcHost;
    CUdeviceptr srcDevice;
    CUarray srcArray;
    void *reserved0;
    size_t srcPitch, srcHeight, dstXInBytes, dstY, dstZ, dstLOD;
    CUmemorytype dstMemoryType;
    void *dstHost;
    CUdeviceptr dstDevice;
    CUarray dstArray;
    void *reserved1;
    size_t dstPitch, dstHeight, WidthInBytes, Height, Depth;
} CUDA_MEMCPY3D;""",
)
MEMCPY3D_PEER = Type(
    "CUDA_MEMCPY3D_PEER",
    "bytes",
    body="""typedef struct CUDA_MEMCPY3D_PEER_st {
    size_t srcXInBytes, srcY, srcZ, srcLOD;
    CUmemorytype srcMemoryType;
    const void *srcHost;
    CUdeviceptr srcDevice;
    CUarray srcArray;
    CUcontext srcContext;
    size_t srcPitch, srcHeight, dstXInBytes, dstY, dstZ, dstLOD;
    CUmemorytype dstMemoryType;
    void *dstHost;
    CUdeviceptr dstDevice;
    CUarray dstArray;
    CUcontext dstContext;
    size_t dstPitch, dstHeight, WidthInBytes, Height, Depth;
} CUDA_MEMCPY3D_PEER;""",
)
