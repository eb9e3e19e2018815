# SPDX-License-Identifier: Apache-2.0
"""Results of a real card, for comparison: `python3 tests/simgpu/reference.py record [instructions] [programs] [matrices]`.

Writes what is named, or all. Needs NVIDIA's driver and NumPy, for programs nvcc.
"""

from __future__ import annotations

import base64
import ctypes
import json
import sys
import zlib
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import matrices  # noqa: E402
import numpy as np  # noqa: E402
from device import Device, DeviceError  # noqa: E402
from instructions import Instruction, instructions, results  # noqa: E402
from corpus import nvcc, result, runs  # noqa: E402

FOLDER = Path(__file__).parent / "reference"
BLOCK = 64    # results of an instruction that share a checksum
KEPT = 128    # results that are kept whole of an approximate instruction
FLOATS = {"f16": (0x7c00, 0x7fff), "bf16": (0x7f80, 0x7fff), "f32": (0x7f800000, 0x7fffffff),
          "f64": (0x7ff << 52, (1 << 63) - 1)}


def _one_nan(values: np.ndarray, infinity: int, magnitude: int) -> np.ndarray:
    """The bits of a NaN are nowhere promised: all become the same."""
    return np.where((values & np.uint64(magnitude)) > np.uint64(infinity), np.uint64(magnitude), values)


def instruction_results(device: Device, chosen: list[Instruction], arch: int = 90) -> list[np.ndarray]:
    """The bits that each instruction gives for each tuple of operands, NaN made one."""
    out = []
    for i, values in zip(chosen, results(device, [[i] for i in chosen], arch)):
        kind = i.to.removesuffix("x2")
        if i.to.endswith("x2") and kind in FLOATS:
            low, high = (_one_nan(values >> np.uint64(s) & np.uint64(0xffff), *FLOATS[kind]) for s in (0, 16))
            values = high << np.uint64(16) | low
        elif kind in FLOATS:
            values = _one_nan(values, *FLOATS[kind])
        out.append(values)
    return out


def packed(values: np.ndarray) -> str:
    """Results as text, without zeros at the end."""
    return base64.b64encode(zlib.compress(np.trim_zeros(values, "b").tobytes(), 9)).decode()


def unpacked(text: str, like: np.ndarray) -> np.ndarray:
    """The same as an array of the shape of another."""
    found = np.frombuffer(zlib.decompress(base64.b64decode(text)), like.dtype)
    return np.concatenate([found, np.zeros(like.size - found.size, like.dtype)])


def summary(i: Instruction, values: np.ndarray) -> str:
    """What is kept of an instruction's results: checksums of blocks, or of an approximate one the first results."""
    if i.relative or i.absolute:
        return packed(values[:KEPT])
    return " ".join(f"{zlib.crc32(block.tobytes()) & 0xffff:04x}" for block in values.reshape(-1, BLOCK))


def program_results(device: Device, arch: int = 90) -> dict[str, np.ndarray]:
    """What each launch of the programs gives."""
    out, by_file = {}, defaultdict(list)
    for run in runs():
        by_file[run.file].append(run)
    for file, launches in by_file.items():
        loaded = device.load(nvcc(file, arch))
        for run in launches:
            out[run.name] = result(device, loaded, run)
        device.unload(loaded)
    return out


def _instructions(device: Device) -> dict[str, str]:
    chosen = instructions(90)
    return {i.name: summary(i, v) for i, v in zip(chosen, instruction_results(device, chosen))}


def _programs(device: Device) -> dict[str, str]:
    return {name: packed(v) for name, v in program_results(device).items()}


def _matrices(device: Device) -> dict[str, str]:
    return {name: packed(v.reshape(-1)) for name, v in matrices.results(device, [matrices.forms(90)]).items()}


KINDS = {"instructions": _instructions, "programs": _programs, "matrices": _matrices}


def record(device: Device, kinds: list[str]) -> None:
    """Writes reference/*.json."""
    version = np.zeros(1, np.int32)
    device.call("cuDriverGetVersion", version.ctypes.data_as(ctypes.c_void_p))
    head = {"card": device.name, "driver": int(version[0]), "command": "python3 tests/simgpu/reference.py record"}
    FOLDER.mkdir(exist_ok=True)
    for name in kinds:
        found = KINDS[name](device)
        (FOLDER / f"{name}.json").write_text(json.dumps(head | {"results": found}, indent=0) + "\n")
        print(f"{head['card']}: {len(found)} {name} recorded in {FOLDER}")


def main(argv: list[str]) -> int:
    """The command; 0: done, 2: it was used wrongly or there is no card."""
    if argv[:1] != ["record"] or not set(argv[1:]) <= set(KINDS):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        record(Device(), argv[1:] or list(KINDS))
    except (OSError, DeviceError) as e:
        print(f"reference: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
