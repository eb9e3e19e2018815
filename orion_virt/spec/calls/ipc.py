# SPDX-License-Identifier: Apache-2.0
"""Sharing between the processes of one domain: what the guest library turns into tokens, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    local("cuIpcGetMemHandle", mut(buf("pHandle", IPC_MEMORY, 1)), inp("dptr", DEVPTR), since=4010),
    local("cuIpcOpenMemHandle", out("pdptr", DEVPTR), inp("handle", IPC_MEMORY), inp("Flags", UINT), since=4010),
    local("cuIpcOpenMemHandle_v2", out("pdptr", DEVPTR), inp("handle", IPC_MEMORY), inp("Flags", UINT), since=11000),
    local("cuIpcCloseMemHandle", inp("dptr", DEVPTR), since=4010),
    local("cuIpcGetEventHandle", mut(buf("pHandle", IPC_EVENT, 1)), inp("event", EVENT), since=4010),
    local("cuIpcOpenEventHandle", out("phEvent", EVENT), inp("handle", IPC_EVENT), since=4010),
    local("cuMemExportToShareableHandle", inp("shareableHandle", PTR), inp("handle", MEM_ALLOCATION),
        inp("handleType", ALLOCATION_HANDLE_TYPE), inp("flags", ULONGLONG), since=10020),
    local("cuMemImportFromShareableHandle", out("handle", MEM_ALLOCATION), inp("osHandle", PTR),
        inp("shHandleType", ALLOCATION_HANDLE_TYPE), since=10020),
    local("cuMemPoolExportToShareableHandle", inp("handle_out", PTR), inp("pool", MEMPOOL),
        inp("handleType", ALLOCATION_HANDLE_TYPE), inp("flags", ULONGLONG), since=11020),
    local("cuMemPoolImportFromShareableHandle", out("pool_out", MEMPOOL), inp("handle", PTR),
        inp("handleType", ALLOCATION_HANDLE_TYPE), inp("flags", ULONGLONG), since=11020),
    local("cuMemPoolExportPointer", mut(buf("shareData_out", POOL_POINTER, 1)), inp("ptr", DEVPTR), since=11020),
    local("cuMemPoolImportPointer", out("ptr_out", DEVPTR), inp("pool", MEMPOOL),
        mut(buf("shareData", POOL_POINTER, 1)), since=11020),
)
