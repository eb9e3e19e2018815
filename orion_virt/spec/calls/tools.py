# SPDX-License-Identifier: Apache-2.0
"""Tools: profilers, logs, notifications, core dumps and checkpoints, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

_DUMP = "a core dump of the card would be a file of the worker on the host, out of the guest's reach"
_CHECKPOINT = "it names processes of the host; a guest's process and its worker are two, and QEMU saves only the first"

CALLS = (
    local("cuProfilerStart", since=4000),
    local("cuProfilerStop", since=4000),
    unsupported("cuProfilerInitialize", "every driver since CUDA 12.0 answers so", since=4000),
    local("cuDeviceRegisterAsyncNotification", inp("device", DEVICE), inp("callbackFunc", ASYNC_CALLBACK),
        inp("userData", PTR), out("callback", ASYNC_HANDLE), since=12040),
    local("cuDeviceUnregisterAsyncNotification", inp("device", DEVICE), inp("callback", ASYNC_HANDLE), since=12040),
    local("cuLogsRegisterCallback", inp("callbackFunc", LOGS_CALLBACK), inp("userData", PTR),
        out("callback_out", LOGS_HANDLE), since=12090),
    local("cuLogsUnregisterCallback", inp("callback", LOGS_HANDLE), since=12090),
    local("cuLogsCurrent", out("iterator_out", LOG_ITERATOR), inp("flags", UINT), since=12090),
    local("cuLogsDumpToFile", inout("iterator", LOG_ITERATOR), inp("pathToFile", CSTR), inp("flags", UINT),
        since=12090),
    local("cuLogsDumpToMemory", inout("iterator", LOG_ITERATOR), inp("buffer", CHARPTR),
        inout("size", SIZE), inp("flags", UINT), since=12090),
    unsupported("cuCoredumpDeregisterCompleteCallback", _DUMP, since=13020),
    unsupported("cuCoredumpDeregisterStartCallback", _DUMP, since=13020),
    unsupported("cuCoredumpGetAttribute", _DUMP, since=12010),
    unsupported("cuCoredumpGetAttributeGlobal", _DUMP, since=12010),
    unsupported("cuCoredumpRegisterCompleteCallback", _DUMP, since=13020),
    unsupported("cuCoredumpRegisterStartCallback", _DUMP, since=13020),
    unsupported("cuCoredumpSetAttribute", _DUMP, since=12010),
    unsupported("cuCoredumpSetAttributeGlobal", _DUMP, since=12010),
    unsupported("cuCheckpointOperationComplete", _CHECKPOINT, since=13040),
    unsupported("cuCheckpointProcessCheckpoint", _CHECKPOINT, since=12080),
    unsupported("cuCheckpointProcessGetRestoreThreadId", _CHECKPOINT, since=12080),
    unsupported("cuCheckpointProcessGetState", _CHECKPOINT, since=12080),
    unsupported("cuCheckpointProcessLock", _CHECKPOINT, since=12080),
    unsupported("cuCheckpointProcessRestore", _CHECKPOINT, since=12080),
    unsupported("cuCheckpointProcessUnlock", _CHECKPOINT, since=12080),
)
