# SPDX-License-Identifier: Apache-2.0
"""The functions of cudaProfiler.h, none of which is carried, one line each."""

from orion_virt.spec.schema import *  # noqa: F403

CALLS = (
    unsupported("cuProfilerInitialize", "profilers are not carried", since=4000),
    unsupported("cuProfilerStart", "profilers are not carried", since=4000),
    unsupported("cuProfilerStop", "profilers are not carried", since=4000),
)
