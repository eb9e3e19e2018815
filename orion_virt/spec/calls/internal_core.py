# SPDX-License-Identifier: Apache-2.0
"""Operations of our own that the life of a channel needs, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    internal(1, "orion_thread_exit", order=ASYNC, context=False),
    internal(2, "orion_grant", inp("bytes", WU64), out("off", WU64), out("got", WU64), blocks=True, context=False),
    internal(3, "orion_release", inp("off", WU64), inp("bytes", WU64), blocks=True, context=False),
    internal(4, "orion_ping", inp("value", WU64), out("value2", WU64), context=False),
    internal(5, "orion_nop", order=ASYNC, context=False),
)
