# SPDX-License-Identifier: Apache-2.0
"""Operations of our own for the application's own memory, one line each."""

from ..schema import buf, cstr, inp, internal, out
from ..types import BYTE, WU32, WU64

CALLS = [
    # region memory at an address of the application's, in the worker too, registered there; and its end
    internal(120, "orion_alias", inp("addr", WU64), inp("off", WU64), inp("bytes", WU64), blocks=True),
    internal(121, "orion_unalias", inp("addr", WU64), blocks=True, context=False),
    # a variable of a module: may the CPU of the application use it too?
    internal(122, "orion_is_managed", inp("ptr", WU64), out("managed", WU32)),
    # the same of a library, and at most 880 bytes of such a variable: both work before the client has a context
    internal(123, "orion_library_managed", inp("library", WU64), cstr("name"), out("ptr", WU64), out("bytes", WU64),
        blocks=True, context=False),
    internal(124, "orion_variable_read", inp("ptr", WU64), inp("bytes", WU32), buf("data", BYTE, "bytes", "out"),
        blocks=True, context=False),
]
