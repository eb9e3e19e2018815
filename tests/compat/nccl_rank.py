# SPDX-License-Identifier: Apache-2.0
"""One of two ranks of NCCL, `nccl_rank.py FILE RANK ID`: makes the communicator with all its connections, and ends it.

No kernel runs: NCCL brings machine code for cards only. ID is a file by which rank 0 tells the other NCCL's number.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from ctypes import byref, c_char, c_char_p, c_void_p
from pathlib import Path

from handles import right

RANKS = 2


class Id(ctypes.Structure):
    """ncclUniqueId, which goes by value."""

    _fields_ = [("bytes", c_char * 128)]


def number(lib: ctypes.CDLL, rank: int, file: Path) -> Id:
    made = Id()
    if rank == 0:
        right("ncclGetUniqueId", lib.ncclGetUniqueId(byref(made)))
        part = file.with_suffix(".part")
        part.write_bytes(ctypes.string_at(byref(made), 128))
        part.rename(file)
    until = time.monotonic() + 60
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.02)
    return Id.from_buffer_copy(file.read_bytes())


def main() -> None:
    library, rank, file = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    cu, context, comm = ctypes.CDLL("libcuda.so.1"), c_void_p(), c_void_p()
    right("cuInit", cu.cuInit(0))
    right("cuDevicePrimaryCtxRetain", cu.cuDevicePrimaryCtxRetain(byref(context), rank))
    right("cuCtxSetCurrent", cu.cuCtxSetCurrent(context))
    lib = ctypes.CDLL(library)
    lib.ncclGetLastError.restype = c_char_p
    answer = lib.ncclCommInitRank(byref(comm), RANKS, number(lib, rank, file), rank)
    right(f"ncclCommInitRank ({lib.ncclGetLastError(None)!r})", answer)
    right("ncclCommDestroy", lib.ncclCommDestroy(comm))
    print("done", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
