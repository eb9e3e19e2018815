# SPDX-License-Identifier: Apache-2.0
"""Products by nvcuda::wmma, compiled by NVRTC with NVIDIA's headers and run on whatever libcuda.so.1 is: `wmma_products.py ARCH`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "simgpu"))

import nvidia  # noqa: E402
from cuda.bindings import nvrtc  # noqa: E402
from device import Device  # noqa: E402
from wmma_programs import expected, products, result, source  # noqa: E402


def compiled(text: str, arch: int) -> bytes:
    """PTX of CUDA C++."""
    folders = [p for root in nvidia.__path__ for p in Path(root).glob("*/include")]
    options = [f"--gpu-architecture=compute_{arch}".encode(), *(f"--include-path={p}".encode() for p in folders)]
    _, program = nvrtc.nvrtcCreateProgram(text.encode(), b"wmma.cu", 0, [], [])
    (failed,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if int(failed):
        log = b" " * nvrtc.nvrtcGetProgramLogSize(program)[1]
        nvrtc.nvrtcGetProgramLog(program, log)
        raise SystemExit(log.decode())
    ptx = b" " * nvrtc.nvrtcGetPTXSize(program)[1]
    nvrtc.nvrtcGetPTX(program, ptx)
    return ptx.rstrip(b"\0 ")


def main(arch: int) -> int:
    """0: every product and every number of elements is right."""
    device, chosen = Device(), [p for p in products() if p.since <= arch]
    module = device.load(compiled(source(chosen), arch))
    wrong = []
    for p in chosen:
        (d, counts), (want, elements) = result(device, module, p), expected(p, 2)
        if (d != want).any() or counts != elements:
            wrong.append(p.name)
    print(f"{device.name}, compute_{arch}: {len(chosen) - len(wrong)} of {len(chosen)} right", *wrong)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
