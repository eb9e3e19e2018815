# SPDX-License-Identifier: Apache-2.0
"""CUDA arrays beyond creation and destruction (memory.py): mipmapped, planes, sparse; one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    call(800, "cuArrayGetMemoryRequirements", buf("memoryRequirements", ARRAY_REQUIREMENTS, 1, dir="out"),
        inp("array", ARRAY), inp("device", DEVICE), since=11060),
    call(801, "cuArrayGetSparseProperties", buf("sparseProperties", ARRAY_SPARSE, 1, dir="out"), inp("array", ARRAY),
        since=11010),
    call(802, "cuArrayGetPlane", inout("pPlaneArray", ARRAY), inp("hArray", ARRAY), inp("planeIdx", UINT), hand="both",
        since=11020),
    call(803, "cuMipmappedArrayCreate", out("pHandle", MIPMAPPED_ARRAY),
        buf("pMipmappedArrayDesc", ARRAY3D_DESC, 1), inp("numMipmapLevels", UINT), hand="executor", makes="pHandle",
        since=5000),
    call(804, "cuMipmappedArrayDestroy", inp("hMipmappedArray", MIPMAPPED_ARRAY), hand="both",
        frees="hMipmappedArray", blocks=True, since=5000),
    call(805, "cuMipmappedArrayGetLevel", inout("pLevelArray", ARRAY), inp("hMipmappedArray", MIPMAPPED_ARRAY),
        inp("level", UINT), hand="both", since=5000),
    call(806, "cuMipmappedArrayGetMemoryRequirements", buf("memoryRequirements", ARRAY_REQUIREMENTS, 1, dir="out"),
        inp("mipmap", MIPMAPPED_ARRAY), inp("device", DEVICE), since=11060),
    call(807, "cuMipmappedArrayGetSparseProperties", buf("sparseProperties", ARRAY_SPARSE, 1, dir="out"),
        inp("mipmap", MIPMAPPED_ARRAY), since=11010),
    call(808, "cuMemMapArrayAsync", mut(buf("mapInfoList", ARRAY_MAP_INFO, "count")), inp("count", UINT),
        inp("hStream", STREAM), hand="both", since=11010, ptsz="ptsz"),
    # of CUDA 3.0: sizes of 32 bits
    local("cuArrayCreate", out("pHandle", ARRAY), buf("pAllocateArray", ARRAY_DESC_V1, 1), since=2000),
    local("cuArrayGetDescriptor", out("pArrayDescriptor", ARRAY_DESC_V1), inp("hArray", ARRAY), since=2000),
    local("cuArray3DCreate", out("pHandle", ARRAY), buf("pAllocateArray", ARRAY3D_DESC_V1, 1), since=2000),
    local("cuArray3DGetDescriptor", out("pArrayDescriptor", ARRAY3D_DESC_V1), inp("hArray", ARRAY), since=2000),
    # a copy between arrays and memory of two contexts; then struct oc_copy_nd
    internal(809, "orion_copy_peer", inp("stream", WU64), inp("dst_context", WU64), inp("src_context", WU64),
        inp("wait", WU32), blocks=True, reports=True),
)
