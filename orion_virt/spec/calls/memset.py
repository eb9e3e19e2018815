# SPDX-License-Identifier: Apache-2.0
"""The driver's memset functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    call(480, "cuMemsetD8_v2", inp("dstDevice", DEVPTR), inp("uc", UCHAR), inp("N", SIZE), order=ASYNC,
        checks="dstDevice:N", since=3020, ptsz="ptds", per_thread="cuMemsetD8Async", works=True),
    call(481, "cuMemsetD16_v2", inp("dstDevice", DEVPTR), inp("us", USHORT), inp("N", SIZE), order=ASYNC,
        checks="dstDevice:N*2", since=3020, ptsz="ptds", per_thread="cuMemsetD16Async", works=True),
    call(482, "cuMemsetD32_v2", inp("dstDevice", DEVPTR), inp("ui", UINT), inp("N", SIZE), order=ASYNC,
        checks="dstDevice:N*4", since=3020, ptsz="ptds", per_thread="cuMemsetD32Async", works=True),
    call(483, "cuMemsetD2D8_v2", inp("dstDevice", DEVPTR), inp("dstPitch", SIZE), inp("uc", UCHAR), inp("Width", SIZE),
        inp("Height", SIZE), order=ASYNC, checks="dstDevice:Width@dstPitch*Height", since=3020, ptsz="ptds",
        per_thread="cuMemsetD2D8Async", works=True),
    call(484, "cuMemsetD2D16_v2", inp("dstDevice", DEVPTR), inp("dstPitch", SIZE), inp("us", USHORT),
        inp("Width", SIZE), inp("Height", SIZE), order=ASYNC, checks="dstDevice:Width*2@dstPitch*Height", since=3020,
        ptsz="ptds", per_thread="cuMemsetD2D16Async", works=True),
    call(485, "cuMemsetD2D32_v2", inp("dstDevice", DEVPTR), inp("dstPitch", SIZE), inp("ui", UINT), inp("Width", SIZE),
        inp("Height", SIZE), order=ASYNC, checks="dstDevice:Width*4@dstPitch*Height", since=3020, ptsz="ptds",
        per_thread="cuMemsetD2D32Async", works=True),
    call(486, "cuMemsetD8Async", inp("dstDevice", DEVPTR), inp("uc", UCHAR), inp("N", SIZE), inp("hStream", STREAM),
        order=ASYNC, checks="dstDevice:N", since=3020, ptsz="ptsz", works=True),
    call(487, "cuMemsetD16Async", inp("dstDevice", DEVPTR), inp("us", USHORT), inp("N", SIZE), inp("hStream", STREAM),
        order=ASYNC, checks="dstDevice:N*2", since=3020, ptsz="ptsz", works=True),
    call(488, "cuMemsetD32Async", inp("dstDevice", DEVPTR), inp("ui", UINT), inp("N", SIZE), inp("hStream", STREAM),
        order=ASYNC, checks="dstDevice:N*4", since=3020, ptsz="ptsz", works=True),
    call(489, "cuMemsetD2D8Async", inp("dstDevice", DEVPTR), inp("dstPitch", SIZE), inp("uc", UCHAR),
        inp("Width", SIZE), inp("Height", SIZE), inp("hStream", STREAM), order=ASYNC,
        checks="dstDevice:Width@dstPitch*Height", since=3020, ptsz="ptsz", works=True),
    call(490, "cuMemsetD2D16Async", inp("dstDevice", DEVPTR), inp("dstPitch", SIZE), inp("us", USHORT),
        inp("Width", SIZE), inp("Height", SIZE), inp("hStream", STREAM), order=ASYNC,
        checks="dstDevice:Width*2@dstPitch*Height", since=3020, ptsz="ptsz", works=True),
    call(491, "cuMemsetD2D32Async", inp("dstDevice", DEVPTR), inp("dstPitch", SIZE), inp("ui", UINT),
        inp("Width", SIZE), inp("Height", SIZE), inp("hStream", STREAM), order=ASYNC,
        checks="dstDevice:Width*4@dstPitch*Height", since=3020, ptsz="ptsz", works=True),
)
