# SPDX-License-Identifier: Apache-2.0
"""Old and new releases of NVIDIA's libraries on our library: they start, and ask for nothing that we lack."""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import host as hosts
import pytest
import wheels

pytestmark = pytest.mark.compat
HERE = Path(__file__).parent
RUNTIME = HERE.parent / "loopback" / "cudart.py"
RUNTIMES = [f"nvidia-cuda-runtime-cu12=={v}" for v in ("12.1.105", "12.4.127", "12.8.90", "12.9.79")]
RUNTIMES += ["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-runtime"]
OLD_12 = {"cuda-runtime": "12.1.105", "cuda-nvrtc": "12.1.105", "nvjitlink": "12.1.105", "cublas": "12.1.3.1",
          "cufft": "11.0.2.54", "curand": "10.3.2.106", "cusolver": "11.4.5.107", "cusparse": "12.1.0.106",
          "cudnn": "8.9.2.26", "nccl": "2.18.1"}  # fmt: skip
OLD_13 = {"cuda-runtime": "13.0.48", "cuda-nvrtc": "13.0.48", "nvjitlink": "13.0.39", "cublas": "13.0.0.19",
          "cufft": "12.0.0.15", "curand": "10.4.0.35", "cusolver": "12.0.3.29", "cusparse": "12.6.2.49",
          "cudnn": "9.12.0.46", "nccl": "2.27.7"}  # fmt: skip
SETS = {"12-old": OLD_12, "12-new": dict.fromkeys(OLD_12, ""), "13-old": OLD_13, "13-new": dict.fromkeys(OLD_13, "")}
FILES = {"cublas": "libcublas.so.*", "cublaslt": "libcublasLt.so.*", "cudnn": "libcudnn.so.*", "cufft": "libcufft.so.*",
         "cusparse": "libcusparse.so.*", "cusolver": "libcusolver.so.*", "curand": "libcurand.so.*", "nccl": "libnccl.so.*",
         "nvjitlink": "libnvJitLink.so.*", "nvrtc": "libnvrtc.so.1[0-9]*"}  # fmt: skip

# A whole string that can only be the name of a driver function, as what is asked for by dlsym or cuGetProcAddress is.
SYMBOL = re.compile(
    rb"\0(cu(?:Get|Init|Driver|Device|Ctx|Mem|Module|Library|Link|Kernel|Func|Launch|Stream|Event|Graph|Array|Mipmapped|"
    rb"Tex|Surf|Occupancy|Pointer|Import|External|Signal|Wait|Destroy|User|Thread|Ipc|Tensor|Multicast|Green|Log|Coredump|"
    rb"Checkpoint|Profiler|Param|Flush)[A-Za-z0-9]*(?:_v[0-9]+)?(?:_pt[ds]z|_ptds)?)(?=\0)"
)
NO_FUNCTIONS = {"cuMemGdrSupport", "cuMemLocType", "cuMemSupport", "cuTensorMap"}


def constants(file: Path) -> bytes:
    """The section .rodata of a shared library; most of the rest is machine code for cards."""
    with file.open("rb") as f:
        head = f.read(64)
        (table,), (size, nr, names) = struct.unpack_from("<Q", head, 40), struct.unpack_from("<HHH", head, 58)
        f.seek(table)
        headers = [struct.unpack_from("<IIQQQQ", f.read(size)) for _ in range(nr)]
        f.seek(headers[names][4])
        text = f.read(headers[names][5])
        found = b""
        for name, _, _, _, at, length in headers:
            if text[name:].startswith(b".rodata\0"):
                f.seek(at)
                found = f.read(length)
    return found


def package(name: str, version: str, major: str) -> str:
    """What pip calls one library of a set."""
    full = f"nvidia-{name}"
    if major == "12" or name in ("cudnn", "nccl"):
        full += f"-cu{major}"
    return f"{full}=={version}" if version else full


@pytest.fixture(scope="session")
def folders() -> Callable[[str], list[Path]]:
    """Folders with the libraries of one set."""
    made: dict[str, list[Path]] = {}

    def get(name: str) -> list[Path]:
        if name not in made:
            parts = [package(p, version, name[:2]) for p, version in SETS[name].items()]
            made[name] = [folder for part in parts for folder in wheels.libraries(wheels.unpacked(part))]
        return made[name]

    return get


@pytest.mark.parametrize("release", RUNTIMES)
@pytest.mark.parametrize("what", ["use", "streams", "reset", "threads"])
def test_runtime(host: hosts.Host, lacks: Callable[[], set[str]], release: str, what: str) -> None:
    library = next(wheels.unpacked(release).glob("**/libcudart.so.*"))
    done = host.run([sys.executable, RUNTIME, what, library])
    assert done.returncode == 0, done.stdout + done.stderr
    assert lacks() == set()


@pytest.mark.parametrize("release", SETS)
@pytest.mark.parametrize("name", FILES)
def test_handle(host: hosts.Host, lacks: Callable[[], set[str]], folders: Callable[[str], list[Path]], name: str,
                release: str) -> None:  # fmt: skip
    if name == "nccl" and not (hosts.LIB / "guest" / "libnvidia-ml.so.1").exists():
        pytest.skip("NCCL needs libnvidia-ml.so.1, which is not built")
    where = folders(release)
    library = next(found for folder in where for found in folder.glob(FILES[name]))
    path = os.pathsep.join([host.env["LD_LIBRARY_PATH"], *map(str, where)])
    done = host.run([sys.executable, HERE / "handles.py", name, library], LD_LIBRARY_PATH=path)
    assert done.returncode == 0 and "done" in done.stdout, done.stdout + done.stderr
    assert lacks() == set()


@pytest.mark.parametrize("release", SETS)
def test_every_name_exists(ours: set[str], folders: Callable[[str], list[Path]], release: str) -> None:
    """Every name of a driver function in these libraries is one of ours."""
    asked: dict[str, str] = {}
    for file in {found for folder in folders(release) for found in folder.glob("lib*.so*")}:
        asked |= {name.decode(): file.name for name in SYMBOL.findall(constants(file))}
    assert len(asked) > 100
    assert {name: file for name, file in asked.items() if name not in ours | NO_FUNCTIONS} == {}
