# SPDX-License-Identifier: Apache-2.0
"""Green contexts: parts of a card and contexts that run on them, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    local("cuDeviceGetDevResource", inp("device", DEVICE), out("resource", DEV_RESOURCE), inp("type",
        DEV_RESOURCE_TYPE), since=12040),
    local("cuCtxGetDevResource", inp("hCtx", CONTEXT), out("resource", DEV_RESOURCE), inp("type", DEV_RESOURCE_TYPE),
        since=12040),
    local("cuGreenCtxGetDevResource", inp("hCtx", GREEN_CTX), out("resource", DEV_RESOURCE), inp("type",
        DEV_RESOURCE_TYPE), since=12040),
    local("cuStreamGetDevResource", inp("hStream", STREAM), out("resource", DEV_RESOURCE), inp("type",
        DEV_RESOURCE_TYPE), since=13010, ptsz="ptsz"),
    local("cuDevSmResourceSplitByCount", out("result", DEV_RESOURCE), inout("nbGroups", UINT), buf("input",
        DEV_RESOURCE, 1), out("remainder", DEV_RESOURCE), inp("flags", UINT), inp("minCount", UINT), since=12040),
    local("cuDevResourceGenerateDesc", out("phDesc", DEV_RESOURCE_DESC), mut(buf("resources", DEV_RESOURCE,
        "nbResources")), inp("nbResources", UINT), since=12040),
    local("cuGreenCtxCreate", out("phCtx", GREEN_CTX), inp("desc", DEV_RESOURCE_DESC), inp("dev", DEVICE), inp("flags",
        UINT), since=12040),
    local("cuGreenCtxDestroy", inp("hCtx", GREEN_CTX), since=12040),
    local("cuCtxFromGreenCtx", out("pContext", CONTEXT), inp("hCtx", GREEN_CTX), since=12040),
    local("cuGreenCtxGetId", inp("greenCtx", GREEN_CTX), out("greenCtxId", ULONGLONG), since=12090),
    local("cuStreamGetGreenCtx", inp("hStream", STREAM), out("phCtx", GREEN_CTX), since=12040),
    local("cuStreamGetCtx_v2", inp("hStream", STREAM), out("pCtx", CONTEXT), out("pGreenCtx", GREEN_CTX), since=12050,
        ptsz="ptsz"),
    call(1036, "cuGreenCtxStreamCreate", out("phStream", STREAM), inp("greenCtx", GREEN_CTX), inp("flags", UINT),
        inp("priority", INT), hand="client", makes="phStream", context=False, since=12050),
    call(1037, "cuGreenCtxRecordEvent", inp("hCtx", GREEN_CTX), inp("hEvent", EVENT), context=False, since=12040),
    call(1038, "cuGreenCtxWaitEvent", inp("hCtx", GREEN_CTX), inp("hEvent", EVENT), context=False, since=12040),
    call(1039, "cuCtxRecordEvent", inp("hCtx", CONTEXT), inp("hEvent", EVENT), context=False, since=12050),
    call(1040, "cuCtxWaitEvent", inp("hCtx", CONTEXT), inp("hEvent", EVENT), context=False, since=12050),
    # a resource is the driver's own and stays on the host: what the application holds names it by number. `what`
    # 0 of a device, 1 a context, 2 a green context, 3 a stream; the groups of a split are numbered from `first` on;
    # a description is made of as many resources as `bytes` holds
    internal(1030, "orion_resource_get", inp("what", WU32), inp("object", WU64), inp("device", WI32), inp("type",
        WU32), buf("resource", BYTE, 144, "out"), blocks=True, context=False),
    internal(1031, "orion_resource_split", inp("input", WU64), inp("groups", WU32), inp("flags", WU32), inp("min",
        WU32), inp("wanted", WU32), out("first", WU64), out("rest", WU64), out("count", WU32), blocks=True,
        context=False),
    internal(1032, "orion_resource_read", inp("number", WU64), buf("resource", BYTE, 144, "out"), context=False),
    internal(1033, "orion_resource_desc", inp("desc", WU64), inp("bytes", WU32), buf("resources", BYTE, "bytes"),
        blocks=True, context=False),
    internal(1034, "orion_green_create", inp("green", WU64), inp("context", WU64), inp("desc", WU64), inp("device",
        WI32), inp("flags", WU32), blocks=True, context=False),
    internal(1035, "orion_green_end", inp("green", WU64), blocks=True, context=False),
)
