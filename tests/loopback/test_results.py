# SPDX-License-Identifier: Apache-2.0
"""Results that a caller may leave out: the libraries of CUDA do."""

from __future__ import annotations

import sys

PROGRAM = """
import ctypes
from ctypes import byref, c_int, c_size_t, c_void_p
cu = ctypes.CDLL("libcuda.so.1")
context, least, greatest, p, start, size = c_void_p(), c_int(9), c_int(9), c_void_p(), c_void_p(), c_size_t()
assert cu.cuInit(0) == 0 and cu.cuDevicePrimaryCtxRetain(byref(context), 0) == 0 and cu.cuCtxSetCurrent(context) == 0
# cuDNN asks for the lowest priority only
assert cu.cuCtxGetStreamPriorityRange(byref(least), None) == 0 and least.value == 0
assert cu.cuCtxGetStreamPriorityRange(None, byref(greatest)) == 0 and greatest.value < 0
assert cu.cuCtxGetStreamPriorityRange(None, None) == 0
assert cu.cuMemAlloc_v2(byref(p), c_size_t(4096)) == 0
assert cu.cuMemGetAddressRange_v2(byref(start), None, p) == 0 and start.value == p.value
assert cu.cuMemGetAddressRange_v2(None, byref(size), p) == 0 and size.value == 4096
"""


def test_results_may_be_left_out(oriond_env) -> None:
    done = oriond_env.run([sys.executable, "-c", PROGRAM])
    assert done.returncode == 0, done.stderr


MEMSET = """
import ctypes
from ctypes import byref, c_size_t, c_uint, c_void_p
cu = ctypes.CDLL("libcuda.so.1")
context, p, n = c_void_p(), c_void_p(), 4 << 20
assert cu.cuInit(0) == 0 and cu.cuDevicePrimaryCtxRetain(byref(context), 0) == 0 and cu.cuCtxSetCurrent(context) == 0
assert cu.cuMemHostAlloc(byref(p), c_size_t(n), 0) == 0
words = (c_uint * (n // 4)).from_address(p.value)
for value in range(1, 40):
    if value % 2:
        assert cu.cuMemsetD32_v2(p, value, c_size_t(n // 4)) == 0
    else:
        assert cu.cuMemsetD2D32_v2(p, c_size_t(4096), value, c_size_t(1024), c_size_t(n // 4096)) == 0
    assert words[n // 4 - 1] == value, (value, words[n // 4 - 1])
"""


def test_host_memory_is_set_when_the_call_returns(oriond_env) -> None:
    done = oriond_env.run([sys.executable, "-c", MEMSET])
    assert done.returncode == 0, done.stderr
