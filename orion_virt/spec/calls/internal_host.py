# SPDX-License-Identifier: Apache-2.0
"""Operations of our own for the application's own memory, one line each."""

from ..schema import inp, internal
from ..types import WU64

CALLS = [
    # region memory at an address of the application's, in the worker too, registered there; and its end
    internal(120, "orion_alias", inp("addr", WU64), inp("off", WU64), inp("bytes", WU64), blocks=True),
    internal(121, "orion_unalias", inp("addr", WU64), blocks=True, context=False),
]
