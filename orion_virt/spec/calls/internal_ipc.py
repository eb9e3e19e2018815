# SPDX-License-Identifier: Apache-2.0
"""Operations of our own for sharing between processes: tokens of <orion/share.h> for objects, and back."""

from ..schema import buf, inp, internal, out
from ..types import BYTE, WU32, WU64

# Kinds are enum oc_share; a token is OC_TOKEN_BYTES long.
CALLS = [
    # memory by a pointer into it, an event, memory of a pool by its pointer
    internal(110, "orion_share", inp("object", WU64), inp("kind", WU32), buf("token", BYTE, 64, dir="out"), blocks=True),
    # object: the event's new handle, or the pool of a pointer
    internal(111, "orion_open", inp("object", WU64), inp("kind", WU32), inp("flags", WU32), buf("token", BYTE, 64),
        out("ptr", WU64), out("bytes", WU64), blocks=True),
    # left 1: the memory is still mapped, somebody else opened it too
    internal(112, "orion_close", inp("ptr", WU64), out("left", WU32), blocks=True),
    # physical memory and pools, which need no context
    internal(113, "orion_export", inp("object", WU64), inp("kind", WU32), inp("flags", WU64), buf("token", BYTE, 64,
        dir="out"), blocks=True, context=False),
    internal(114, "orion_import", inp("object", WU64), inp("kind", WU32), inp("flags", WU64), buf("token", BYTE, 64),
        blocks=True, context=False),
    # the allocation mapped at an address, with one more reference: its handle, else `handle` becomes it
    internal(115, "orion_retain", inp("addr", WU64), inp("handle", WU64), out("held", WU64), blocks=True,
        context=False),
    # how memory may be shared: CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, ALLOWED_HANDLE_TYPES
    internal(116, "orion_pointer_sharing", inp("ptr", WU64), inp("attribute", WU32), out("value", WU64), context=False),
    # region memory for pages that processes share: the same for all who name the same piece of the same file of theirs.
    # fill 1: nobody has it yet, tell when the bytes are in. NOT_READY: somebody is putting them in
    internal(117, "orion_pages_take", inp("device", WU64), inp("inode", WU64), inp("offset", WU64), inp("bytes", WU64),
        out("off", WU64), out("fill", WU32), blocks=True, context=False),
    internal(118, "orion_pages_filled", inp("off", WU64), blocks=True, context=False),
    internal(119, "orion_pages_end", inp("off", WU64), blocks=True, context=False),
]  # fmt: skip
