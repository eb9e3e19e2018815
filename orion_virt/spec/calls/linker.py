# SPDX-License-Identifier: Apache-2.0
"""The device linker, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    local("cuLinkCreate", inp("numOptions", UINT), out("options", JIT_OPTION), inp("optionValues", PTRPTR),
        out("stateOut", LINK), since=5050),
    local("cuLinkCreate_v2", inp("numOptions", UINT), out("options", JIT_OPTION), inp("optionValues", PTRPTR),
        out("stateOut", LINK), since=6050),
    local("cuLinkAddData", inp("state", LINK), inp("type", JIT_INPUT), inp("data", PTR), inp("size", SIZE),
        inp("name", CSTR), inp("numOptions", UINT), out("options", JIT_OPTION), inp("optionValues", PTRPTR),
        since=5050),
    local("cuLinkAddData_v2", inp("state", LINK), inp("type", JIT_INPUT), inp("data", PTR), inp("size", SIZE),
        inp("name", CSTR), inp("numOptions", UINT), out("options", JIT_OPTION), inp("optionValues", PTRPTR),
        since=6050),
    local("cuLinkAddFile", inp("state", LINK), inp("type", JIT_INPUT), inp("path", CSTR), inp("numOptions", UINT),
        out("options", JIT_OPTION), inp("optionValues", PTRPTR), since=5050),
    local("cuLinkAddFile_v2", inp("state", LINK), inp("type", JIT_INPUT), inp("path", CSTR), inp("numOptions", UINT),
        out("options", JIT_OPTION), inp("optionValues", PTRPTR), since=6050),
    local("cuLinkComplete", inp("state", LINK), inp("cubinOut", PTRPTR), out("sizeOut", SIZE), since=5050),
    local("cuLinkDestroy", inp("state", LINK), since=5050),
    # `logs` is an image without bytes that holds what the options bring back (orion_image_log); options and inputs
    # are as those of a module; a piece of the finished image follows the answer
    internal(1020, "orion_link_create", inp("link", WU64), inp("logs", WU64), inp("count", WU32), buf("options", WU64,
        "count"), blocks=True),
    internal(1021, "orion_link_add", inp("link", WU64), inp("image", WU64), inp("type", WU32), inp("count", WU32),
        buf("options", WU64, "count"), cstr("name"), blocks=True),
    internal(1022, "orion_link_complete", inp("link", WU64), out("bytes", WU64), blocks=True),
    internal(1023, "orion_link_data", inp("link", WU64), inp("offset", WU64), inp("room", WU32), buf("data", BYTE,
        "room", "out"), context=False),
    internal(1024, "orion_link_destroy", inp("link", WU64), blocks=True, context=False),
)
