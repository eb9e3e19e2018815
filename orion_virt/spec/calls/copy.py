# SPDX-License-Identifier: Apache-2.0
"""The driver's copy functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    local("cuMemcpy", inp("dst", DEVPTR), inp("src", DEVPTR), inp("ByteCount", SIZE), since=4000, ptsz="ptds",
        per_thread="cuMemcpyAsync"),
    local("cuMemcpyAsync", inp("dst", DEVPTR), inp("src", DEVPTR), inp("ByteCount", SIZE), inp("hStream", STREAM),
        since=4000, ptsz="ptsz"),
    local("cuMemcpyPeer", inp("dstDevice", DEVPTR), inp("dstContext", CONTEXT), inp("srcDevice", DEVPTR),
        inp("srcContext", CONTEXT), inp("ByteCount", SIZE), since=4000, ptsz="ptds", per_thread="cuMemcpyPeerAsync"),
    local("cuMemcpyPeerAsync", inp("dstDevice", DEVPTR), inp("dstContext", CONTEXT), inp("srcDevice", DEVPTR),
        inp("srcContext", CONTEXT), inp("ByteCount", SIZE), inp("hStream", STREAM), since=4000, ptsz="ptsz"),
    local("cuMemcpyHtoD_v2", inp("dstDevice", DEVPTR), inp("srcHost", CPTR), inp("ByteCount", SIZE), since=3020,
        ptsz="ptds", per_thread="cuMemcpyHtoDAsync_v2"),
    local("cuMemcpyDtoH_v2", inp("dstHost", PTR), inp("srcDevice", DEVPTR), inp("ByteCount", SIZE), since=3020,
        ptsz="ptds", per_thread="cuMemcpyDtoHAsync_v2"),
    call(440, "cuMemcpyDtoD_v2", inp("dstDevice", DEVPTR), inp("srcDevice", DEVPTR), inp("ByteCount", SIZE),
        blocks=True, reports=True, checks="dstDevice:ByteCount,srcDevice:ByteCount", since=3020, ptsz="ptds",
        per_thread="cuMemcpyDtoDAsync_v2"),
    local("cuMemcpyHtoDAsync_v2", inp("dstDevice", DEVPTR), inp("srcHost", CPTR), inp("ByteCount", SIZE),
        inp("hStream", STREAM), since=3020, ptsz="ptsz"),
    local("cuMemcpyDtoHAsync_v2", inp("dstHost", PTR), inp("srcDevice", DEVPTR), inp("ByteCount", SIZE),
        inp("hStream", STREAM), since=3020, ptsz="ptsz"),
    call(441, "cuMemcpyDtoDAsync_v2", inp("dstDevice", DEVPTR), inp("srcDevice", DEVPTR), inp("ByteCount", SIZE),
        inp("hStream", STREAM), order=ASYNC, checks="dstDevice:ByteCount,srcDevice:ByteCount", since=3020, ptsz="ptsz"),
    local("cuMemcpy2D_v2", buf("pCopy", MEMCPY2D, 1), since=3020, ptsz="ptds", per_thread="cuMemcpy2DAsync_v2"),
    local("cuMemcpy2DUnaligned_v2", buf("pCopy", MEMCPY2D, 1), since=3020, ptsz="ptds",
        per_thread="cuMemcpy2DAsync_v2"),
    local("cuMemcpy2DAsync_v2", buf("pCopy", MEMCPY2D, 1), inp("hStream", STREAM), since=3020, ptsz="ptsz"),
    local("cuMemcpy3D_v2", buf("pCopy", MEMCPY3D, 1), since=3020, ptsz="ptds", per_thread="cuMemcpy3DAsync_v2"),
    local("cuMemcpy3DAsync_v2", buf("pCopy", MEMCPY3D, 1), inp("hStream", STREAM), since=3020, ptsz="ptsz"),
    local("cuMemcpy3DPeer", buf("pCopy", MEMCPY3D_PEER, 1), since=4000, ptsz="ptds", per_thread="cuMemcpy3DPeerAsync"),
    local("cuMemcpy3DPeerAsync", buf("pCopy", MEMCPY3D_PEER, 1), inp("hStream", STREAM), since=4000, ptsz="ptsz"),
)
