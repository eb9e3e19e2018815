# SPDX-License-Identifier: Apache-2.0
"""In a guest of the distribution's own packages: the installer, the health check, and kernels that NVRTC compiles there."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orion_virt import paths
from vm.conftest import CACHE
from vm.harness import Guest, GuestConfig, Result, Share
from vm.harness.root import guest_root
from vm.stage import Setup, eventually

pytestmark = [pytest.mark.vm, pytest.mark.root]

HERE = Path(__file__).parent
DEMO = "/usr/lib/orion/demo/orion-demo"
KERNELS = """
extern "C" __global__ void saxpy(const float *x, float *y, unsigned n)
{
    unsigned block = blockIdx.y * gridDim.x + blockIdx.x;
    unsigned i = (block * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = K1f * x[i] + K2f * y[i];
}
extern "C" __global__ void matmul(const float *a, const float *b, float *c, unsigned n)
{
    __shared__ float ta[16][16], tb[16][16];
    unsigned row = blockIdx.y * 16 + threadIdx.y, col = blockIdx.x * 16 + threadIdx.x;
    float sum = 0;
    for (unsigned t = 0; t < n; t += 16) {
        ta[threadIdx.y][threadIdx.x] = a[row * n + t + threadIdx.x];
        tb[threadIdx.y][threadIdx.x] = b[(t + threadIdx.y) * n + col];
        __syncthreads();
        for (unsigned k = 0; k < 16; k++)
            sum += ta[threadIdx.y][k] * tb[k][threadIdx.x];
        __syncthreads();
    }
    c[row * n + col] = K3f * sum;
}
"""
# Each is wrong in one place; the kernels compile and run all the same.
MUTATIONS = [("k < 16", "k < 15"), ("K1f * x[i] +", "K1f * x[i] -")]


def nvrtc_libraries() -> list[Path]:
    """libnvrtc and its builtins from the packages of the virtual environment."""
    spec = importlib.util.find_spec("nvidia")
    found = [p for d in (spec.submodule_search_locations or [] if spec else []) for p in Path(d).glob("cu*/lib/libnvrtc*.so*")]
    if not found:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    return [p for p in found if ".alt." not in p.name]


@pytest.fixture(scope="module")
def shared(setup: Setup) -> Path:
    """A directory for the guest: installer, NVRTC, the program that uses it."""
    for name in ("install-client", "guest/libcuda.so.1"):
        assert (paths.lib() / name).exists(), f"{name} is not built: make build"
    directory = setup.host.state / "compute"
    directory.mkdir()
    shutil.copy(paths.lib() / "install-client", directory)
    for library in nvrtc_libraries():
        shutil.copy(library, directory)
        if re.fullmatch(r"libnvrtc\.so\.\d+", library.name):
            (directory / "libnvrtc.so").symlink_to(library.name)
    subprocess.run(["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-o", directory / "nvrtc_check",
                    HERE / "programs" / "nvrtc_check.c", "-ldl", "-lm"], check=True)
    return directory


@pytest.fixture(scope="module")
def guest(setup: Setup, shared: Path) -> Iterator[Guest]:
    """A minimal distribution with no driver, no CUDA and no Python; `guest` and `other` are its users."""
    config = GuestConfig("compute", root=guest_root(CACHE), memory_mib=1024, shares=(Share(shared, "/shared"),))
    made = Guest(setup.libvirt, config, CACHE)
    try:
        made.define()
        eventually(lambda: setup.oriond.domain("compute").get("device") == "defined", "no device")
        made.start()
        eventually(lambda: bool(setup.oriond.domain("compute").get("server_addrs")), "no header")
        must(made.run("PATH=$PATH:/usr/sbin useradd -m other", user="root"))
        yield made
    finally:
        made.destroy()
    eventually(lambda: setup.regions() == [], "the region's file is left")


def must(done: Result) -> str:
    assert done.status == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def installed(guest: Guest) -> Guest:
    """After the installer asked its question, and was told no, yes, and not to ask."""
    install = "sh /shared/install-client"
    refused = guest.run(f"echo n | {install} --user guest", user="root")
    assert refused.status == 1 and "nothing was installed" in refused.output
    assert guest.run("ls /usr/lib/orion", user="root").status != 0
    said = must(guest.run(f"echo y | {install} --user guest", user="root"))
    assert "Do you want to continue [n/y] ?" in said and "User guest was added to the group orion" in said
    assert must(guest.run(f"{install} -q", user="root")) == ""
    return guest


def test_install_and_health(setup: Setup, installed: Guest) -> None:
    assert "/usr/lib/orion/libcuda.so.1" in must(installed.run("/usr/sbin/ldconfig -p"))
    must(installed.run("test -e /dev/nvidiactl"))  # without it JAX takes the CPU
    assert re.search(r"Access to the device +\[Yes\]", must(installed.run("orion-check install client")))
    said = must(installed.run("orion-check runtime client"))
    assert f"is set as {setup.libvirt.gateway}:9123 in shared memory device. Using" in said
    assert said.endswith(" vGPU are free now.\n") and "[Error]" not in said


def test_the_demo_program(setup: Setup, installed: Guest) -> None:
    said = must(installed.run(f"id -u; ls /dev/nvidia[0-9]* /usr/lib/x86_64-linux-gnu/libcuda* 2>/dev/null | wc -l; {DEMO}"))
    assert said.startswith("1000\n0\n") and "PASSED" in said, said
    allocation = re.search(r"Client exits with allocation ID ([0-9a-f-]{36})", said)
    assert allocation and allocation[1] in setup.oriond.output()
    assert "over shared memory" in setup.oriond.output()


def test_orion_smi(setup: Setup, installed: Guest) -> None:
    """An ordinary user sees the vGPU and its processes, also without the group."""
    libraries = must(installed.run("/usr/sbin/ldconfig -p"))
    assert "libnvidia-ml.so.1 " in libraries and "libnvidia-ml.so " in libraries
    busy = f"{DEMO} /usr/lib/orion/demo/kernels.ptx 512 >/dev/null 2>&1 & demo=$!"
    look = """orion-smi --json | grep -q "\\"pid\\": $demo,.*\\"used_bytes\\": [1-9]" && break"""
    watch = f"for i in $(seq 100); do {look}; sleep 0.1; done; orion-smi --json; echo $demo"
    *_, told, pid = must(installed.run(f"{busy}; {watch}; kill $demo", timeout=120)).splitlines()
    vgpu = json.loads(told)["vgpus"][0]
    assert vgpu["name"] == "Orion Simulated GPU" and vgpu["temperature_c"] == 30
    assert [(p["pid"], p["name"], p["used_bytes"] > 0) for p in vgpu["processes"]] == [(int(pid), DEMO, True)]
    other = must(installed.run(f"ORION_CONTROLLER={setup.libvirt.gateway}:9123 orion-smi -L", user="other"))
    assert "is not in group orion" in other and "GPU 0: Orion Simulated GPU (UUID: GPU-" in other


def test_a_wrong_kernel_of_the_demo_is_caught(installed: Guest, shared: Path) -> None:
    ptx = (HERE.parents[1] / "guest-agent" / "demo" / "kernels.ptx").read_text()
    wrong = re.sub(r"fma\.rn\.f32", "mul.rn.f32", ptx, count=1)
    wrong = re.sub(r"(mul\.rn\.f32 [^;]*), %f\d+;", r"\1;", wrong, count=1)
    assert wrong != ptx
    (shared / "wrong.ptx").write_text(wrong)
    done = installed.run(f"{DEMO} /shared/wrong.ptx 32")
    assert done.status == 1 and "FAILED" in done.output, done.output


@pytest.mark.parametrize("mutation", [None, *MUTATIONS], ids=["right", "matmul", "saxpy"])
def test_nvrtc_in_the_guest(installed: Guest, shared: Path, mutation: tuple[str, str] | None) -> None:
    """The constants are new each time, so the source cannot have been in the guest before."""
    constants = [round(random.uniform(1, 2), 4) for _ in range(3)]
    source = KERNELS
    for number, value in enumerate(constants, 1):
        source = source.replace(f"K{number}f", f"{value}f")
    if mutation is not None:
        old, new = (re.sub(r"K(\d)f", lambda m: f"{constants[int(m[1]) - 1]}f", text) for text in mutation)
        assert source.count(old) == 1
        source = source.replace(old, new)
    (shared / "k.cu").write_text(source)
    words = " ".join(map(str, constants))
    done = installed.run(f"LD_LIBRARY_PATH=/shared /shared/nvrtc_check /shared/k.cu {words}", timeout=240)
    assert done.status == (1 if mutation else 0), done.output
    assert ("FAILED" if mutation else "PASSED") in done.output, done.output


def test_a_user_outside_the_group(setup: Setup, installed: Guest) -> None:
    """One line that says so, and the slower path where the controller's address is set."""
    before = len(setup.oriond.output())
    done = installed.run(f"ORION_CONTROLLER={setup.libvirt.gateway}:9123 {DEMO}", user="other")
    assert "PASSED" in must(done)
    assert done.output.count("is not in group orion") == 1, done.output
    assert "over TCP" in setup.oriond.output()[before:]
    check = installed.run("orion-check install client", user="other")
    assert check.status == 1 and "other may not use it. As root: usermod -aG orion other" in check.output


def test_uninstall(installed: Guest) -> None:
    assert "has been removed" in must(installed.run("sh /shared/install-client --uninstall", user="root"))
    assert "/usr/lib/orion" not in must(installed.run("/usr/sbin/ldconfig -p"))
    assert installed.run(f"ls -d /usr/lib/orion {DEMO} /usr/bin/orion-check /usr/bin/orion-smi /dev/nvidiactl | grep .").status != 0
    again = installed.run("sh /shared/install-client --uninstall", user="root")
    assert again.status == 1 and "nothing is installed" in again.output
