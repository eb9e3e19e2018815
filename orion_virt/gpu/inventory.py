# SPDX-License-Identifier: Apache-2.0
"""Which cards this host has, and through which driver they are used."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pynvml

from orion_virt import paths
from orion_virt.errors import Unavailable
from orion_virt.gpu import figures

_CAPABILITY_MAJOR = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
_PROBE_SECONDS = 120  # bringing eight cards up without persistence mode takes tens of seconds


@dataclass(frozen=True)
class Gpu:
    """One physical card."""

    index: int
    name: str
    total_bytes: int
    base_bytes: int  # of a bare context
    attributes: dict[int, int]
    bus_id: str = ""
    figures: dict[int, int] = field(default_factory=dict)  # NVML's, by the numbers of the spec
    texts: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inventory:
    """All cards, and the driver library that workers load."""

    simulated: bool
    driver_path: str
    driver_version: int  # as cuDriverGetVersion says
    gpus: tuple[Gpu, ...]
    version_text: str = ""  # as NVML says, e.g. 550.54.15
    nvml_version: str = ""
    pairs: dict[str, list[int]] = field(default_factory=dict)  # "0.1": topology level, peer status by capability


def nvidia_version() -> str | None:
    """The NVIDIA driver's version when one works and has a card, else None."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        if pynvml.nvmlDeviceGetCount() == 0:
            return None
        ctypes.CDLL("libcuda.so.1")
        return str(pynvml.nvmlSystemGetDriverVersion())
    except (pynvml.NVMLError, OSError):
        return None
    finally:
        pynvml.nvmlShutdown()


def take(driver: str) -> Inventory:
    """Inventory through `driver` (auto, nvidia, simulated). Raises Unavailable with the remedy. Blocks."""
    version = None if driver == "simulated" else nvidia_version()
    if version is not None:
        return _inventory(None, version)
    if driver == "nvidia":
        raise Unavailable(
            "[server] driver = nvidia, but no NVIDIA driver with a GPU works here",
            hint="Check nvidia-smi, or set driver = auto to use the simulated GPU",
        )
    path = paths.simulated_driver()
    if not path.exists():
        raise Unavailable(f"the simulated GPU is not built: {path} is missing", hint="Run `make build`")
    return _inventory(path, "")


def _inventory(simulated: Path | None, version_text: str) -> Inventory:
    found = _run_probe(simulated)
    gpus = tuple(_gpu(gpu, simulated is not None) for gpu in found["gpus"])
    if not gpus:
        raise Unavailable("the driver works but shows no GPU", hint="Check `nvidia-smi -L`")
    driver_path = str(found["driver_path"]) if simulated is None else str(simulated)
    if simulated is not None:
        found["pairs"] = {f"{a.index}.{b.index}": figures.SIMULATED_PAIR for a in gpus for b in gpus if a != b}
    pairs = {key: [int(n) for n in value] for key, value in found.get("pairs", {}).items()}
    return Inventory(simulated is not None, driver_path, int(found["driver_version"]), gpus, version_text,
                     str(found.get("nvml_version", "")), pairs)


def _gpu(found: dict[str, Any], simulated: bool) -> Gpu:
    attributes = {int(number): int(value) for number, value in found["attributes"].items()}
    told = figures.simulated(figures.SIMULATED_STATIC, attributes.get(_CAPABILITY_MAJOR, 0)) if simulated else {}
    return Gpu(
        int(found["index"]),
        str(found["name"]),
        int(found["total_bytes"]),
        int(found["base_bytes"]),
        attributes,
        str(found["bus_id"]),
        told or {int(number): int(value) for number, value in found.get("figures", {}).items()},
        {int(number): str(value) for number, value in found.get("texts", {}).items()},
    )


def _run_probe(simulated: Path | None) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items()
                   if not key.startswith(("CUDA_", "ORION_")) or key.startswith("ORION_SIM_")}
    argv = [sys.executable, "-m", "orion_virt.gpu.probe"]
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    if simulated is not None:
        environment["LD_LIBRARY_PATH"] = str(simulated.parent)
        argv.append("--simulated")
    hint = "Run `python3 -m orion_virt.gpu.probe` by hand to see more"
    try:
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=_PROBE_SECONDS)
        found = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the GPU driver did not come up within {_PROBE_SECONDS} s", hint=hint) from None
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise Unavailable(f"the GPU driver cannot be brought up: {last}", hint=hint) from None
    if "error" in found:
        raise Unavailable(f"the GPU driver cannot be brought up: {found['error']}", hint=hint)
    return dict(found)
