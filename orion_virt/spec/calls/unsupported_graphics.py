# SPDX-License-Identifier: Apache-2.0
"""The functions of cudaGL.h, cudaEGL.h and cudaVDPAU.h, none of which is carried, one line each."""

from orion_virt.spec.schema import *  # noqa: F403

_GRAPHICS = "it shares memory with a graphics driver, and a guest has none for the card"

CALLS = (
    unsupported("cuEGLStreamConsumerAcquireFrame", _GRAPHICS, since=7000),
    unsupported("cuEGLStreamConsumerConnect", _GRAPHICS, since=7000),
    unsupported("cuEGLStreamConsumerConnectWithFlags", _GRAPHICS, since=8000),
    unsupported("cuEGLStreamConsumerDisconnect", _GRAPHICS, since=7000),
    unsupported("cuEGLStreamConsumerReleaseFrame", _GRAPHICS, since=7000),
    unsupported("cuEGLStreamProducerConnect", _GRAPHICS, since=7000),
    unsupported("cuEGLStreamProducerDisconnect", _GRAPHICS, since=7000),
    unsupported("cuEGLStreamProducerPresentFrame", _GRAPHICS, since=7000),
    unsupported("cuEGLStreamProducerReturnFrame", _GRAPHICS, since=7000),
    unsupported("cuEventCreateFromEGLSync", _GRAPHICS, since=9000, by_name=False),
    unsupported("cuGLCtxCreate", _GRAPHICS, since=2000),
    unsupported("cuGLCtxCreate_v2", _GRAPHICS, since=3020),
    unsupported("cuGLGetDevices", _GRAPHICS, since=4010),
    unsupported("cuGLGetDevices_v2", _GRAPHICS, since=6050),
    unsupported("cuGLInit", _GRAPHICS, since=2000),
    unsupported("cuGLMapBufferObject", _GRAPHICS, since=2000),
    unsupported("cuGLMapBufferObjectAsync", _GRAPHICS, since=2030),
    unsupported("cuGLMapBufferObjectAsync_v2", _GRAPHICS, since=3020, ptsz="ptsz"),
    unsupported("cuGLMapBufferObject_v2", _GRAPHICS, since=3020, ptsz="ptds"),
    unsupported("cuGLRegisterBufferObject", _GRAPHICS, since=2000),
    unsupported("cuGLSetBufferObjectMapFlags", _GRAPHICS, since=2030),
    unsupported("cuGLUnmapBufferObject", _GRAPHICS, since=2000),
    unsupported("cuGLUnmapBufferObjectAsync", _GRAPHICS, since=2030),
    unsupported("cuGLUnregisterBufferObject", _GRAPHICS, since=2000),
    unsupported("cuGraphicsEGLRegisterImage", _GRAPHICS, since=7000),
    unsupported("cuGraphicsGLRegisterBuffer", _GRAPHICS, since=3000),
    unsupported("cuGraphicsGLRegisterImage", _GRAPHICS, since=3000),
    unsupported("cuGraphicsResourceGetMappedEglFrame", _GRAPHICS, since=7000),
    unsupported("cuGraphicsVDPAURegisterOutputSurface", _GRAPHICS, since=3010),
    unsupported("cuGraphicsVDPAURegisterVideoSurface", _GRAPHICS, since=3010),
    unsupported("cuVDPAUCtxCreate", _GRAPHICS, since=3010),
    unsupported("cuVDPAUCtxCreate_v2", _GRAPHICS, since=3020),
    unsupported("cuVDPAUGetDevice", _GRAPHICS, since=3010),
)
