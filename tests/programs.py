# SPDX-License-Identifier: Apache-2.0
"""The programs in C on the driver API: compiled here, run natively and through a vGPU, and compared."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from host import LIB, ROOT

FOLDER = ROOT / "tests" / "gpu" / "programs"
KERNELS = FOLDER / "kernels.ptx"
# Of these the outcome is no matter of comparison; tests/loopback says what it must be.
ALONE = {"output": {"flood"}, "registered": {"lost"}}


def names(program):
    """The bodies of a program that run in both ways, from its source."""
    found = re.findall(r'\{ "(\w+)", \w+ \}', (FOLDER / f"{program}.c").read_text())
    assert found, f"{program}.c names no bodies"
    return [name for name in found if name not in ALONE.get(program, ())]


def compiled(folder, program):
    made = Path(folder) / program
    subprocess.run(
        ["cc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o", made, FOLDER / f"{program}.c",
         f"-I{FOLDER}", f"-I{ROOT / 'guest-agent' / 'libcuda' / 'gen'}", LIB / "guest" / "libcuda.so.1", "-lpthread"],
        check=True,
    )  # fmt: skip
    return made


def nvcc(folder, source, *flags, made="", card="compute_90"):
    """A program by NVIDIA's compiler with its runtime in it, for the simulated card or `card="native"`, this machine's."""
    if not shutil.which("nvcc"):
        pytest.skip("nvcc is not installed")
    program = Path(folder) / (made or Path(source).stem)
    options = [f"-arch={card}", "-std=c++17", "-Wno-deprecated-declarations", *flags, "-ldl"]
    subprocess.run(["nvcc", "-o", program, "-x", "cu", FOLDER / source, *options], check=True)
    return program


def both(host, command, given="", timeout=240, env=None, **variables):
    """Runs `command` natively and on a vGPU; standard output and exit status must be equal. Returns the native end."""
    say = {"capture_output": True, "text": True, "timeout": timeout, "check": False, "input": given}
    native = subprocess.run(command, env=os.environ | variables, **say)
    ours = subprocess.run(command, env=(env or host.env) | variables, **say)
    print(native.stdout, ours.stdout, ours.stderr[-3000:], native.stderr[-1000:], sep="\n--\n")
    assert ours.stdout == native.stdout
    assert ours.returncode == native.returncode
    return native


def run(program, body, env):
    return subprocess.run([program, body, KERNELS], env=env, capture_output=True, text=True, timeout=240)


def same(program, body, native_env, env):
    """Standard output, exit status and failed assertions must be equal; returns how it ended through the vGPU."""
    native, ours = run(program, body, native_env), run(program, body, env)
    print(native.stdout[-3000:], native.stderr[-1000:], ours.stdout[-3000:], ours.stderr[-1000:], sep="\n--\n")
    assert native.stdout, "a body that prints nothing compares nothing"
    assert ours.stdout == native.stdout
    assert ours.returncode == native.returncode
    assert assertions(ours) == assertions(native)
    return ours


def assertions(done):
    return [line for line in done.stderr.splitlines() if "Assertion" in line]


def without_vgpu():
    """Environment in which a program finds the machine's own driver."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("ORION_", "CUDA_"))}
