# SPDX-License-Identifier: Apache-2.0
"""The programs in C on the driver API: compiled here, run natively and through a vGPU, and compared."""

import os
import re
import subprocess
from pathlib import Path

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
