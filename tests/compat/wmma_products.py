# SPDX-License-Identifier: Apache-2.0
"""Products by nvcuda::wmma, compiled by NVRTC with NVIDIA's headers and run on whatever libcuda.so.1 is: `wmma_products.py ARCH`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "simgpu"))

import cuda_source  # noqa: E402
from device import Device  # noqa: E402
from wmma_programs import expected, products, result, source  # noqa: E402


def main(arch: int) -> int:
    """0: every product and every number of elements is right."""
    device, chosen = Device(), [p for p in products() if p.since <= arch]
    module = device.load(cuda_source.ptx(source(chosen), arch, *cuda_source.includes()))
    wrong = []
    for p in chosen:
        (d, counts), (want, elements) = result(device, module, p), expected(p, 2)
        if (d != want).any() or counts != elements:
            wrong.append(p.name)
    print(f"{device.name}, compute_{arch}: {len(chosen) - len(wrong)} of {len(chosen)} right", *wrong)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
