# SPDX-License-Identifier: Apache-2.0
"""Tensor maps beyond the tiled ones (launch.py); the host's driver computes their bytes."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    call(850, "cuTensorMapEncodeIm2col", buf("tensorMap", TENSOR_MAP, 1, dir="out"),
        inp("tensorDataType", TENSOR_TYPE), inp("tensorRank", U32), inp("globalAddress", PTR),
        buf("globalDim", U64, "tensorRank"), buf("globalStrides", U64, "tensorRank"),
        buf("pixelBoxLowerCorner", INT, "tensorRank"), buf("pixelBoxUpperCorner", INT, "tensorRank"),
        inp("channelsPerPixel", U32), inp("pixelsPerColumn", U32), buf("elementStrides", U32, "tensorRank"),
        inp("interleave", TENSOR_INTERLEAVE), inp("swizzle", TENSOR_SWIZZLE), inp("l2Promotion", TENSOR_L2),
        inp("oobFill", TENSOR_FILL), hand="both", since=12000),
    call(851, "cuTensorMapEncodeIm2colWide", buf("tensorMap", TENSOR_MAP, 1, dir="out"),
        inp("tensorDataType", TENSOR_TYPE), inp("tensorRank", U32), inp("globalAddress", PTR),
        buf("globalDim", U64, "tensorRank"), buf("globalStrides", U64, "tensorRank"),
        inp("pixelBoxLowerCornerWidth", INT), inp("pixelBoxUpperCornerWidth", INT), inp("channelsPerPixel", U32),
        inp("pixelsPerColumn", U32), buf("elementStrides", U32, "tensorRank"), inp("interleave", TENSOR_INTERLEAVE),
        inp("mode", TENSOR_WIDE), inp("swizzle", TENSOR_SWIZZLE), inp("l2Promotion", TENSOR_L2),
        inp("oobFill", TENSOR_FILL), hand="both", since=12080),
    # an encoded map with another address, or (what 1) in another allocation class: goes in and comes out
    internal(852, "orion_tensor_map_change", buf("from", TENSOR_MAP, 1), inp("what", WU32), inp("value", WU64),
        out("got", WU32), buf("to", TENSOR_MAP, 1, dir="out")),
    local("cuTensorMapReplaceAddress", out("tensorMap", TENSOR_MAP), inp("globalAddress", PTR), since=12000),
    local("cuTensorMapSetAllocationClass", out("tensorMap", TENSOR_MAP), inp("allocClass", TENSOR_CLASS),
        opt(out("outAllocClass", TENSOR_CLASS)), since=13050),
)
