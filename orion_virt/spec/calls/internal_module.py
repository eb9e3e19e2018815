# SPDX-License-Identifier: Apache-2.0
"""Our own operations for contexts, images, modules, functions and launches: see design.md, 4."""

from ..schema import ASYNC, buf, cstr, inp, internal, out
from ..types import BYTE, WI32, WU32, WU64

CALLS = [
    # contexts: kind 0 the device's primary one, 1 one of the application's; how 0 release, 1 reset, 2 destroy
    internal(1100, "orion_ctx_activate", inp("context", WU64), inp("device", WI32), inp("flags", WU32), inp("kind",
        WU32), blocks=True, context=False),
    internal(1101, "orion_ctx_end", inp("context", WU64), inp("how", WU32), blocks=True, context=False),
    internal(1102, "orion_set_current", inp("context", WU64), order=ASYNC, context=False),
    internal(1103, "orion_peer_access", inp("context", WU64), inp("enable", WU32), blocks=True),
    internal(1104, "orion_peer_attribute", inp("src", WI32), inp("dst", WI32), inp("attribute", WU32), out("value",
        WI32), context=False),
    # images: begin, then for each piece its size and its bytes; used by a load, then dropped
    internal(1110, "orion_image_begin", inp("image", WU64), inp("kind", WU32), inp("pieces", WU32), order=ASYNC,
        context=False),
    internal(1111, "orion_image_piece", inp("image", WU64), inp("bytes", WU64), order=ASYNC, context=False),
    internal(1112, "orion_image_data", inp("image", WU64), inp("offset", WU64), inp("bytes", WU32), buf("data", BYTE,
        "bytes"), order=ASYNC, context=False),
    internal(1113, "orion_image_drop", inp("image", WU64), order=ASYNC, context=False),
    internal(1114, "orion_image_log", inp("image", WU64), inp("which", WU32), inp("offset", WU32), out("total", WU32),
        out("value", WU32), inp("room", WU32), buf("data", BYTE, "room", "out"), context=False),
    # modules and libraries; options are (option << 32 | value)
    internal(1120, "orion_module_load", inp("module", WU64), inp("image", WU64), inp("count", WU32), buf("options",
        WU64, "count"), blocks=True),
    internal(1121, "orion_module_unload", inp("module", WU64), blocks=True),
    internal(1122, "orion_module_function", inp("module", WU64), inp("function", WU64), cstr("name"), out("total",
        WU32), out("bytes", WU32), blocks=True, grows=True),
    internal(1123, "orion_module_global", inp("module", WU64), cstr("name"), out("ptr", WU64), out("bytes", WU64),
        blocks=True),
    internal(1124, "orion_module_count", inp("module", WU64), out("count", WU32), blocks=True),
    internal(1125, "orion_module_enumerate", inp("module", WU64), inp("first", WU32), inp("count", WU32),
        buf("functions", WU64, "count"), out("got", WU32), blocks=True, grows=True),
    internal(1130, "orion_library_load", inp("library", WU64), inp("image", WU64), inp("count", WU32), buf("options",
        WU64, "count"), blocks=True, context=False),
    internal(1131, "orion_library_unload", inp("library", WU64), blocks=True, context=False),
    internal(1132, "orion_library_kernel", inp("library", WU64), inp("kernel", WU64), cstr("name"), out("total", WU32),
        out("bytes", WU32), blocks=True, grows=True, context=False),
    internal(1133, "orion_library_module", inp("library", WU64), inp("module", WU64), blocks=True),
    internal(1134, "orion_library_global", inp("library", WU64), inp("managed", WU32), cstr("name"), out("ptr", WU64),
        out("bytes", WU64), blocks=True),
    internal(1135, "orion_library_count", inp("library", WU64), out("count", WU32), blocks=True, context=False),
    internal(1136, "orion_library_kernel_name", inp("library", WU64), inp("index", WU32), inp("room", WU32),
        out("total", WU32), buf("data", BYTE, "room", "out"), blocks=True, context=False),
    internal(1137, "orion_kernel_function", inp("kernel", WU64), inp("function", WU64), blocks=True, grows=True),
    # functions: a handle of either kind, CUfunction or CUkernel; device -1: that of the current context
    internal(1140, "orion_function_params", inp("function", WU64), inp("first", WU32), inp("room", WU32), out("total",
        WU32), out("got", WU32), buf("params", WU32, "room", "out"), context=False),
    internal(1141, "orion_function_name", inp("function", WU64), inp("offset", WU32), inp("room", WU32), out("total",
        WU32), buf("data", BYTE, "room", "out"), context=False),
    internal(1142, "orion_function_get", inp("function", WU64), inp("attribute", WU32), inp("device", WI32),
        out("value", WI32), context=False, blocks=True),
    internal(1143, "orion_function_set", inp("function", WU64), inp("attribute", WU32), inp("device", WI32),
        inp("value", WI32), context=False, blocks=True),
    internal(1144, "orion_function_cache", inp("function", WU64), inp("what", WU32), inp("config", WU32), inp("device",
        WI32), context=False),
    internal(1145, "orion_function_load", inp("function", WU64), inp("query", WU32), out("state", WU32), context=False,
        blocks=True, grows=True),
    # launches: block is x | y << 11 | z << 22; the parameters are one packed buffer
    internal(1150, "orion_launch", inp("function", WU64), inp("stream", WU64), inp("grid_x", WU32), inp("grid_y",
        WU32), inp("grid_z", WU32), inp("block", WU32), inp("shared", WU32), inp("bytes", WU32), buf("params", BYTE,
        "bytes"), order=ASYNC, works=True),
    internal(1151, "orion_launch_ex", inp("function", WU64), inp("stream", WU64), inp("grid_x", WU32), inp("grid_y",
        WU32), inp("grid_z", WU32), inp("block", WU32), inp("shared", WU32), inp("attrs_bytes", WU32), inp("bytes",
        WU32), buf("attributes", BYTE, "attrs_bytes"), buf("params", BYTE, "bytes"), order=ASYNC, works=True),
    # occupancy: what 0 blocks a multiprocessor, 1 dynamic shared memory, 2 cluster size, 3 clusters
    internal(1155, "orion_occupancy", inp("function", WU64), inp("what", WU32), inp("a", WI32), inp("b", WU64),
        inp("flags", WU32), out("value", WU64)),
    internal(1156, "orion_occupancy_cluster", inp("function", WU64), inp("what", WU32), inp("grid_x", WU32),
        inp("grid_y", WU32), inp("grid_z", WU32), inp("block", WU32), inp("shared", WU32), inp("attrs_bytes", WU32),
        buf("attributes", BYTE, "attrs_bytes"), out("value", WI32)),
]  # fmt: skip
